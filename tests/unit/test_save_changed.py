"""What a model no longer is, is not saved as if it were."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
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
    from minitx.optimize.few_rows import undo_few_rows

    model = undo_few_rows(tiny())
    minitx.save(model, tmp_path)
    assert torch.equal(minitx.load(tmp_path)(IDS).logits, model(IDS).logits)
