"""Passes that meet: undone in any order, applied again, seen by hooks of all modules, copied and pickled."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import minitx
from minitx import Greedy, PrefixCache
from minitx.optimize import (
    bfloat16_weights,
    fast_linear,
    fuse_projections,
    pack_weights,
    recompute_layers,
    undo_fast_linear,
    undo_pack_weights,
    undo_vocabulary_shortlist,
    unpadded,
    vocabulary_shortlist,
)
from minitx.optimize.graphs.model import static_steps
from minitx.optimize.linear import FastLinear
from minitx.optimize.packed import has_packed
from minitx.optimize.quantize import int8_dynamic, undo_quantization
from minitx.validation import ArgumentValueError
from tests.parity.cases import BY_NAME

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.1,
}
IDS = torch.tensor([[5, 6, 7, 8]])
Pass = Callable[[Any], Any]


def llama() -> Any:
    return minitx.from_config(LLAMA, head="causal-lm", seed=0).eval()


def shortlist(model: Any) -> Any:
    return vocabulary_shortlist(model, range(10))


@torch.no_grad()
def logits(model: Any) -> Tensor:
    output: Tensor = model(IDS).logits
    return output


ORDERS: dict[str, tuple[Pass, ...]] = {
    "pack, int8": (pack_weights, int8_dynamic, undo_pack_weights, undo_quantization),
    "pack, shortlist": (pack_weights, shortlist, undo_pack_weights, undo_vocabulary_shortlist),
    "pack, shortlist, int8": (
        *(pack_weights, shortlist, int8_dynamic, undo_pack_weights),
        *(undo_vocabulary_shortlist, undo_quantization),
    ),
    "plain, shortlist, fast": (undo_fast_linear, shortlist, fast_linear, undo_vocabulary_shortlist),
    "plain, int8, fast": (undo_fast_linear, int8_dynamic, fast_linear, undo_quantization),
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_passes_are_undone_in_any_order(order: tuple[Pass, ...]) -> None:
    model, plain = llama(), llama()
    for apply in order:
        apply(model)
    assert [*map(type, model.modules())] == [*map(type, plain.modules())]
    assert isinstance(model.head.projection, FastLinear)
    assert torch.equal(logits(model), logits(plain))


@pytest.mark.parametrize(
    "apply",
    [
        pack_weights,
        lambda model: pack_weights(fuse_projections(model)),
        *([bfloat16_weights] if has_packed(torch.bfloat16) else []),
    ],
    ids=lambda apply: apply.__name__,
)
def test_a_pass_applied_again_copies_what_was_written_through_data(apply: Pass) -> None:
    model, other = apply(llama()), llama()
    logits(model)
    for each in (model, other):
        each.decoder.layers[0].attention.self_attention.V.weight.data.mul_(50)
    assert torch.equal(logits(apply(model)), logits(apply(other)))


def test_hooks_of_all_modules_see_every_projection() -> None:
    model = fuse_projections(llama())
    names, called = {module: name for name, module in model.named_modules()}, []
    prefix = PrefixCache(model)
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: called.append(module))
    try:
        logits(model)
        minitx.generate(model, IDS, Greedy(), max_new_tokens=2, prefix=prefix)
    finally:
        handle.remove()
    assert {names.get(module) for module in called} >= {
        *(f"decoder.layers.0.attention.self_attention.{name}" for name in "QKV"),
        "decoder.layers.0.intermediate.gate",
    }
    assert all(module in names for module in called)
    assert len(prefix) == 0


PICKLED: dict[str, Pass] = {
    "unpadded": unpadded,
    "shortlist": shortlist,
    "packed shortlist": lambda model: shortlist(pack_weights(fuse_projections(model))),
    "steps": lambda model: static_steps(unpadded(model)),
    "recompute": recompute_layers,
}


@pytest.mark.parametrize("apply", PICKLED.values(), ids=PICKLED)
def test_models_with_mixins_are_copied_and_pickled(apply: Pass) -> None:
    model = apply(llama())
    expected = minitx.generate(model, IDS, Greedy(), max_new_tokens=4).sequences[0]
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for each in (
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
        copy.deepcopy(model),
        copy.copy(model),
    ):
        assert [*map(type, each.modules())] == [*map(type, model.modules())]
        assert torch.equal(logits(each), logits(model))
        again = minitx.generate(each, IDS, Greedy(), max_new_tokens=4).sequences[0]
        assert again.tolist() == expected.tolist()


def test_copies_made_in_inference_mode() -> None:
    model, integers = fuse_projections(llama()), int8_dynamic(llama())
    with torch.inference_mode():
        check_copies(model, integers)


def check_copies(model: Any, integers: Any) -> None:
    other = copy.deepcopy(model)
    assert torch.allclose(other(IDS).logits, model(IDS).logits, atol=1e-5)
    other.decoder.layers[0].attention.self_attention.V.weight.mul_(2)  # a change that is not counted
    assert not torch.allclose(other(IDS).logits, model(IDS).logits, atol=1e-5)
    quantized = copy.deepcopy(integers)
    with pytest.raises(ArgumentValueError, match=r"copy the model outside torch\.inference_mode"):
        quantized(IDS)


@pytest.mark.parametrize("tied", [False, True], ids=["own", "tied"])
def test_a_shortlisted_head_is_trained(tied: bool) -> None:
    config = {**LLAMA, "tie_word_embeddings": tied}
    model, plain = (minitx.from_config(config, head="causal-lm", seed=0).eval() for _ in range(2))
    vocabulary_shortlist(model, range(300))
    logits(model)  # the copied rows
    for each in (model.train(), plain.train()):
        each(IDS, labels=IDS).loss.backward()
    for (name, one), two in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert one.grad is not None, name
        assert torch.allclose(one.grad, two.grad, atol=1e-6), name


def test_tokens_that_a_smaller_vocabulary_lacks_leave_the_list() -> None:
    model = vocabulary_shortlist(llama(), [3, 7, 250])
    model.resize_token_embeddings(200)
    assert logits(model).isfinite().sum(-1).tolist() == [[2] * 4]
    vocabulary_shortlist(model, [150]).resize_token_embeddings(100)
    with pytest.raises(ArgumentValueError, match="call vocabulary_shortlist with ids"):
        logits(model)
    assert logits(undo_vocabulary_shortlist(model)).isfinite().all()


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_a_source_without_a_token(name: str) -> None:
    case = BY_NAME[name]
    config = {**case.config, "model_type": case.model_type}
    model = minitx.from_config(config, head="seq2seq-lm", seed=0).double().eval()
    ids, mask = torch.randint(4, 99, (2, 5)), torch.tensor([[1, 1, 1, 0, 0], [0] * 5])
    options = {"attention_mask": mask, "decoder_input_ids": ids[:, :3]}
    with torch.no_grad():
        expected = model(ids, **options).logits
        assert torch.allclose(unpadded(model)(ids, **options).logits, expected)
