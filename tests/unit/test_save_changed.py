"""What a model no longer is, is not saved as if it were."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import minitx
from minitx.layers.attention import sdpa

SIZES = {
    "model_type": "bert",
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
IDS = torch.arange(1, 13).view(2, 6)


def tiny(head: str | None = "sequence-classification") -> Any:
    return minitx.from_config(SIZES, head=head, seed=1).eval()


def uniform(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: Any) -> Tensor:
    return sdpa(query * 0, key, value, mask, options)


def attention(model: Any) -> Any:
    return model.encoder.layers[0].attention.self_attention


def _backend(model: Any) -> None:
    model.set_attention(uniform)


def _one_backend(model: Any) -> None:
    attention(model).backend = uniform


def _scale(model: Any) -> None:
    attention(model).scale = 0.5


def _forward(model: Any) -> None:
    output = model.encoder.layers[0].output
    output.forward = lambda hidden, residual: residual


def _method(model: Any) -> None:
    attention(model).attend = lambda query, key, value, context: value


def _model_forward(model: Any) -> None:
    model.forward = lambda ids: ids


def _hook(model: Any) -> None:
    model.encoder.layers[1].register_forward_hook(lambda module, inputs, output: output * 2)


def _pre_hook(model: Any) -> None:
    model.head.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2, *inputs[1:]))


def _dropout_hook(model: Any) -> None:
    model.encoder.layers[0].output.dropout.register_forward_hook(lambda module, inputs, output: output * 2)


def _eps(model: Any) -> None:
    model.encoder.layers[0].output.layer_norm.eps = 0.1


def _slot(model: Any) -> None:
    model.head.layer_norm = nn.LayerNorm(24)


def _function_in_a_slot(model: Any) -> None:
    model.head.layer_norm = torch.tanh


def _no_norm(model: Any) -> None:
    model.encoder.layers[0].output.layer_norm = nn.Identity()


def _order(model: Any) -> None:
    model.encoder.layer_order = [1, 0]


def _activation(model: Any) -> None:
    model.encoder.layers[0].intermediate.activation.function = torch.relu


def _pool(model: Any) -> None:
    model.head.pool = lambda hidden, pooled, mask: hidden[:, 1]


def _stack_config(model: Any) -> None:
    model.encoder.config = minitx.replace_in(model.encoder.config, "", causal=True)


def _subclass(model: Any) -> None:
    class Other(type(attention(model))):  # type: ignore[misc]
        pass

    attention(model).__class__ = Other


def _weight(model: Any) -> None:
    model.head.projection.weight = nn.Parameter(torch.zeros(3, 24))


CHANGES: list[tuple[Callable[[Any], None], str]] = [
    (_backend, r"self_attention\.backend is uniform, but by its config sdpa"),
    (_one_backend, r"layers\.0.*self_attention\.backend is uniform"),
    (_scale, r"self_attention\.scale is 0\.5"),
    (_forward, r"layers\.0\.output\.forward is <lambda>, but by its config not set"),
    (_method, r"self_attention\.attend is <lambda>"),
    (_model_forward, "the model's forward is <lambda>"),
    (_hook, r"layers\.1\.forward hook is <lambda>"),
    (_pre_hook, r"head\.forward pre-hook is <lambda>"),
    (_dropout_hook, r"output\.dropout\.forward hook is <lambda>"),
    (_eps, r"layer_norm is LayerNorm\(.*eps=0\.1"),
    (_slot, r"head\.layer_norm is LayerNorm"),
    (_function_in_a_slot, r"head\.layer_norm is tanh, but by its config identity"),
    (_no_norm, r"layer_norm is Identity\(\), but by its config LayerNorm"),
    (_order, r"encoder\.layer_order is \[1, 0\], but by its config \[0, 1\]"),
    (_activation, r"intermediate\.activation\.function is relu"),
    (_pool, r"head\.pool is <lambda>"),
    (_stack_config, r"encoder\.config is"),
    (_subclass, r"self_attention is Other"),
    (_weight, r"head\.projection\.weight is of shape \(3, 24\)"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=[c.__name__[1:] for c, _ in CHANGES])
def test_a_changed_model_is_not_saved_as_if_it_were_not(
    tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    model = tiny()
    change(model)
    with pytest.raises(ValueError, match=message):
        minitx.save(model, tmp_path)
    assert not list(tmp_path.iterdir())


def _eager(model: Any) -> None:
    model.set_attention("eager")


def _no_dropout(model: Any) -> None:
    model.encoder.layers[0].output.dropout.p = 0.3
    model.encoder.layers[1].output.dropout = nn.Identity()


def _notes(model: Any) -> None:
    model.notes, model.encoder.notes = "tried", torch.zeros(3)


def _frozen(model: Any) -> None:
    model.embedder.requires_grad_(False)
    model.train()


def _removed_hook(model: Any) -> None:
    model.encoder.register_forward_hook(lambda module, inputs, output: output * 2).remove()


@pytest.mark.parametrize("change", [_eager, _no_dropout, _notes, _frozen, _removed_hook, copy.deepcopy])
def test_changes_that_leave_the_outputs_are_saved(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    model = tiny()
    model = change(model) or model
    minitx.save(model, tmp_path)
    assert torch.equal(minitx.load(tmp_path)(IDS).logits, model.eval().set_attention("sdpa")(IDS).logits)


def test_projections_without_few_rows_are_saved(tmp_path: Path) -> None:
    from minitx.optimize.linear import undo_fast_linear

    model = undo_fast_linear(tiny())
    minitx.save(model, tmp_path)
    assert torch.equal(minitx.load(tmp_path)(IDS).logits, model(IDS).logits)


def _subclass(model: Any) -> None:
    dense = model.encoder.layers[0].attention.self_attention.Q
    name = type(dense).__name__
    dense.__class__ = type(name, (type(dense),), {"forward": lambda self, x: nn.Linear.forward(self, x) * 2})


def _model_subclass(model: Any) -> None:
    model.__class__ = type(type(model).__name__, (type(model),), {})


def _forward_of_dropout(model: Any) -> None:
    model.embedder.dropout.forward = lambda hidden: hidden * 2


def _call(model: Any) -> None:
    attention(model)._call_impl = lambda *args, **options: args[0]


def _state_dict_hook(model: Any) -> None:
    model.register_state_dict_post_hook(lambda module, state, *_: state.update({"x": torch.ones(1)}))


def _not_stored(model: Any) -> None:
    dense = attention(model).Q
    weight = dense.weight.detach()
    del dense._parameters["weight"]
    dense.register_buffer("weight", weight, persistent=False)


def _buffer(model: Any) -> None:
    model.register_buffer("extra", torch.ones(2))


def _meta(model: Any) -> None:
    attention(model).Q.to("meta")


def _sparse(model: Any) -> None:
    attention(model).Q.weight = nn.Parameter(attention(model).Q.weight.detach().to_sparse())


STORED = "not one that is stored"
LATER_CHANGES = {
    _subclass: r"self_attention\.Q is .*, but by its config torch\.nn\.modules\.linear\.Linear",
    _model_subclass: r"class is tests\..*EncoderModel, but by its config minitx\.models",
    _forward_of_dropout: r"embedder\.dropout\.forward is <lambda>, but by its config not set",
    _call: r"self_attention\._call_impl is <lambda>, but by its config not set",
    _state_dict_hook: r"state dict hook is <lambda>, but by its config none",
    _not_stored: rf"self_attention\.Q\.weight is {STORED}, but by its config a stored tensor",
    _buffer: rf"extra is a stored tensor, but by its config {STORED}",
    _meta: r"Q\.bias is on the meta device, without values, but by its config a dense tensor",
    _sparse: r"Q\.weight is of layout torch\.sparse_coo, but by its config a dense tensor",
}


@pytest.mark.parametrize("model_type", [None, "minitx"])
@pytest.mark.parametrize(("change", "message"), LATER_CHANGES.items())
def test_changes_that_the_files_would_not_show(
    tmp_path: Path, change: Callable[[Any], None], message: str, model_type: str | None
) -> None:
    model = tiny()
    change(model)
    with pytest.raises(ValueError, match=message):
        minitx.save(model, tmp_path, model_type=model_type)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # within torch
def test_a_compiled_part_and_another_dropout_are_saved(tmp_path: Path) -> None:
    model = tiny()
    model.encoder.compile()
    model.embedder.dropout.p = 0.9
    model.encoder.layers[0].output.dropout.inplace = True
    minitx.save(model, tmp_path)
    assert torch.equal(minitx.load(tmp_path)(IDS).logits, tiny()(IDS).logits)


def test_a_dtype_of_the_file_is_not_that_of_a_converted_model(tmp_path: Path) -> None:
    """T5 in float16 computes `wo` in float32; trained in float32, it may have values beyond float16."""
    config = {
        "model_type": "t5",
        "vocab_size": 40,
        "d_model": 8,
        "d_kv": 4,
        "d_ff": 12,
        "num_layers": 1,
        "num_heads": 2,
    }
    minitx.save(minitx.from_config(config, dtype="float16", seed=0), tmp_path / "half")
    model: Any = minitx.load(tmp_path / "half").float()
    dense = model.encoder.layers[0].output.dense
    with torch.no_grad():
        dense.weight.fill_(1e5)
    minitx.save(model, tmp_path / "single")
    again: Any = minitx.load(tmp_path / "single")
    assert torch.equal(again.encoder.layers[0].output.dense.weight, dense.weight)


def test_generation_settings_of_another_model_are_refused(tmp_path: Path) -> None:
    minitx.save(tiny(), tmp_path)
    (tmp_path / "generation_config.json").write_text('{"num_beams": 7}')
    with pytest.raises(FileExistsError, match=r"already holds generation_config\.json"):
        minitx.save(tiny(), tmp_path)


def test_sizes_of_a_native_config_are_bounded(tmp_path: Path) -> None:
    minitx.save(tiny(None), tmp_path, model_type="minitx")
    config = json.loads((tmp_path / "config.json").read_text())
    config["config"]["encoder"]["num_hidden_layers"] = 100_000
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config\.encoder\.num_hidden_layers=100000 must be at most 1000"):
        minitx.load(tmp_path)


def test_another_head_in_the_file_is_kept_in_minitx_s_own_form(tmp_path: Path) -> None:
    minitx.save(tiny("masked-lm"), tmp_path / "one")
    stored = load_file(tmp_path / "one" / "model.safetensors") | {"cls.species.weight": torch.ones(3, 24)}
    save_file(stored, tmp_path / "one" / "model.safetensors", {"format": "pt"})
    with pytest.warns(UserWarning, match="species"):
        model = minitx.load(tmp_path / "one")
    minitx.save(model, tmp_path / "two", model_type="minitx")
    assert torch.equal(
        load_file(tmp_path / "two" / "model.safetensors")["cls.species.weight"], torch.ones(3, 24)
    )
