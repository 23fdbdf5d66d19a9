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
from minitx.models import EncoderModel
from tests.parity.cases import BY_NAME
from tests.parity.reference import padded, pair, text
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


def wrong_by(reference: object, model: EncoderModel, inputs: dict[str, torch.Tensor]) -> float:
    try:
        return compare(reference, model, inputs)
    except AssertionError:  # not even finite
        return float("inf")


def test_the_mask_module_is_the_one_in_use() -> None:
    """`ignored_padding` patches a name where it is used; if that moved, it would control nothing."""
    assert stack.padding_mask is mask.padding_mask
