"""Design, section 7: known mistakes must fail the tolerances that the right code passes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from minitx.architectures import deberta_v2
from minitx.layers import mask, position, stack
from minitx.layers.activation import Activation
from minitx.layers.attention import SelfAttention
from minitx.layers.head import POOLING
from minitx.models import EncoderModel
from tests.parity.cases import BY_NAME
from tests.parity.reference import CASES_AND_HEADS, padded, pair, text
from tests.parity.test_forward import compare

Mistake = Callable[[EncoderModel, pytest.MonkeyPatch], None]


def each(model: EncoderModel, kind: type[nn.Module]) -> Iterator[nn.Module]:
    return (module for module in model.modules() if isinstance(module, kind))


def wrong_gelu(model: EncoderModel, patch: pytest.MonkeyPatch) -> None:
    """The two GELUs differ by at most 5e-4 anywhere."""
    for activation in each(model, Activation):
        if activation.name == "gelu":
            activation.function = Activation("gelu_new").function


def swapped_norms(model: EncoderModel, patch: pytest.MonkeyPatch) -> None:
    layer = model.encoder.layers[0]
    layer.attention.self_output.layer_norm, layer.output.layer_norm = (
        layer.output.layer_norm,
        layer.attention.self_output.layer_norm,
    )


def missing_norm_bias(model: EncoderModel, patch: pytest.MonkeyPatch) -> None:
    next(each(model, nn.LayerNorm)).bias.data.zero_()


def other_epsilon(model: EncoderModel, patch: pytest.MonkeyPatch) -> None:
    for norm in each(model, nn.LayerNorm):
        norm.eps = 1e-5


def missing_scale(model: EncoderModel, patch: pytest.MonkeyPatch) -> None:
    for module in model.modules():
        if hasattr(module, "scale"):
            module.scale = 1.0


def swapped_query_and_key(model: EncoderModel, patch: pytest.MonkeyPatch) -> None:
    attention = next(each(model, SelfAttention))
    attention.Q, attention.K = attention.K, attention.Q


def positions_from_zero(model: EncoderModel, patch: pytest.MonkeyPatch) -> None:
    embedder = model.embedder
    embedder.config = replace(embedder.config, positions_from_padding=False)


def ignored_padding(model: EncoderModel, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(stack, "padding_mask", lambda mask: None)


def wrong_rope_base(model: EncoderModel, patch: pytest.MonkeyPatch) -> None:
    bases = dict.fromkeys(model.encoder.config.rope_theta, 10_000.0)
    model.encoder.config = replace(model.encoder.config, rope_theta=bases)


def window_one_too_wide(model: EncoderModel, patch: pytest.MonkeyPatch) -> None:
    window = model.encoder.config.sliding_window
    model.encoder.config = replace(model.encoder.config, sliding_window=window + 1)


def all_layers_global(model: EncoderModel, patch: pytest.MonkeyPatch) -> None:
    model.encoder.config = replace(model.encoder.config, sliding_window=None)


def gate_activated_instead(model: EncoderModel, patch: pytest.MonkeyPatch) -> None:
    inner = model.encoder.layers[0].intermediate
    inner.dense, inner.gate = inner.gate, inner.dense


def one_bucket_off(model: EncoderModel, patch: pytest.MonkeyPatch) -> None:
    right = position.RelativeBias.bucket
    patch.setattr(position.RelativeBias, "bucket", lambda self, d: right(self, d + 1))


def no_relative_bias(model: EncoderModel, patch: pytest.MonkeyPatch) -> None:
    model.encoder.relative_bias = None


def layers_in_another_order(model: EncoderModel, patch: pytest.MonkeyPatch) -> None:
    model.encoder.schedule = model.encoder.schedule[::-1]


def unnormed_positions(model: EncoderModel, patch: pytest.MonkeyPatch) -> None:
    model.encoder.relative_norm = nn.Identity()


def linear_buckets(model: EncoderModel, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(deberta_v2, "log_bucket", lambda distance, buckets, most: distance)


def no_convolution(model: EncoderModel, patch: pytest.MonkeyPatch) -> None:
    model.encoder.convolution = None


COMMON = (missing_norm_bias, missing_scale)
MISTAKES: list[tuple[str, Mistake]] = [
    *(
        (name, m)
        for name in ("bert", "roberta", "distilbert", "albert", "mpnet", "deberta-v2")
        for m in COMMON
    ),
    ("bert", wrong_gelu),
    ("bert", swapped_norms),
    ("bert", other_epsilon),
    ("bert", swapped_query_and_key),
    ("bert", ignored_padding),
    ("roberta", positions_from_zero),
    ("mpnet", positions_from_zero),
    ("mpnet", one_bucket_off),
    ("mpnet", no_relative_bias),
    ("albert-groups", layers_in_another_order),
    ("modernbert", missing_scale),
    ("modernbert", wrong_gelu),
    ("modernbert", wrong_rope_base),
    ("modernbert", window_one_too_wide),
    ("modernbert", all_layers_global),
    ("modernbert", gate_activated_instead),
    ("modernbert-biases", missing_norm_bias),
    ("deberta-v3", unnormed_positions),
    ("deberta-v3", linear_buckets),
    ("deberta-v2-conv", no_convolution),
]


@pytest.mark.parametrize(("name", "mistake"), MISTAKES)
def test_a_known_mistake_is_caught(
    name: str, mistake: Mistake, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = BY_NAME[name]
    for dtype, limit in ((torch.float64, case.float64), (torch.float32, 1e-5)):
        reference, model = pair(name, "none", dtype, root)
        inputs = padded(case, text(case, 3, 33), "right")
        assert compare(reference, model, inputs) <= limit
        wrong = copy.deepcopy(model)
        with monkeypatch.context() as patch:
            mistake(wrong, patch)
            assert wrong_by(reference, wrong, inputs) > 3 * limit


# --- every architecture and every head -------------------------------------------------------------


def other_act(activation: Activation) -> None:
    """Another function, and never one that is nearly the same."""
    near = {"gelu": "gelu_new", "gelu_new": "gelu"}
    activation.function = Activation(
        near.get(activation.name, "relu" if activation.name != "relu" else "gelu")
    ).function


def mistakes_in_the_network(model: EncoderModel) -> dict[str, Callable[[], None]]:
    """What can go wrong in any encoder."""
    layer = model.encoder.layers[0]
    found = {
        "scale": lambda: setattr(layer.attention.self_attention, "scale", 1.0),
        "swapped query and key": lambda: swap(layer.attention.self_attention, "Q", "K"),
        "activation": lambda: other_act(layer.intermediate.activation),
        "norm weight": lambda: model.embedder.layer_norm.weight.data.fill_(1.0),
        "word embedding": lambda: nn.init.normal_(model.embedder.word_emb.weight, std=0.2),
    }
    if not model.config.encoder.pre_norm:
        found["swapped norms"] = lambda: swap2(layer.attention.self_output, layer.output, "layer_norm")
    if model.embedder.layer_norm.bias is not None:
        found["norm bias"] = lambda: model.embedder.layer_norm.bias.data.zero_()
    return found


def mistakes_in_the_head(model: EncoderModel) -> dict[str, Callable[[], None]]:
    head = model.head
    assert head is not None
    found = {"projection": lambda: setattr(head, "projection", redrawn(head.projection))}
    if head.projection.bias is not None:
        found["projection bias"] = lambda: setattr(head.projection, "bias", None)
    if head.config.dense_size:
        found["dense"] = lambda: setattr(head, "dense", redrawn(head.dense))
    if head.config.hidden_act:
        found["activation"] = lambda: other_act(head.activation)
    if head.config.layer_norm_eps is not None:
        found["norm"] = lambda: head.layer_norm.weight.data.fill_(1.0)
    if head.config.pooling != "none":
        other = "mean" if head.config.pooling != "mean" else "first"
        found["pooling"] = lambda: setattr(head, "pool", POOLING[other])
    if head.config.pooling == "pooler":
        found["pooler"] = lambda: setattr(model.pooler, "dense", redrawn(model.pooler.dense))
    return found


def swap(module: nn.Module, a: str, b: str) -> None:
    first, second = getattr(module, a), getattr(module, b)
    setattr(module, a, second)
    setattr(module, b, first)


def swap2(a: nn.Module, b: nn.Module, name: str) -> None:
    first, second = getattr(a, name), getattr(b, name)
    setattr(a, name, second)
    setattr(b, name, first)


def redrawn(dense: nn.Linear) -> nn.Linear:
    other = copy.deepcopy(dense)
    nn.init.normal_(other.weight, std=0.2)
    return other


@pytest.mark.parametrize(("name", "task"), CASES_AND_HEADS)
def test_every_head_has_mistakes_that_are_caught(name: str, task: str, root: Path) -> None:
    case = BY_NAME[name]
    reference, model = pair(name, task, torch.float32, root)
    inputs = text(case, 3, 33, 3 if task == "multiple-choice" else 0)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    assert compare(reference, model, inputs) <= 1e-5
    of = mistakes_in_the_network if task == "none" else mistakes_in_the_head
    for what in of(model):
        wrong = copy.deepcopy(model)
        of(wrong)[what]()
        assert wrong_by(reference, wrong, inputs) > 3e-5, what


def wrong_by(reference: object, model: EncoderModel, inputs: dict[str, torch.Tensor]) -> float:
    try:
        return compare(reference, model, inputs)
    except AssertionError:  # not even finite
        return float("inf")


def test_the_mask_module_is_the_one_in_use() -> None:
    """`ignored_padding` patches a name where it is used; if that moved, it would control nothing."""
    assert stack.padding_mask is mask.padding_mask
