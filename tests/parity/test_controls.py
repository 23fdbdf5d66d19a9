"""Design, section 7: known mistakes must fail the tolerances that the right code passes."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from minitx.config import RopeConfig, replace_in
from minitx.inspect.compare.reference import Wide
from minitx.layers import disentangled, stack
from minitx.layers import masks as mask
from minitx.layers import positions as position
from minitx.layers.activation import Activation
from minitx.layers.attention import SelfAttention
from minitx.layers.embedder import NUMBERINGS
from minitx.layers.experts import Experts, MixtureOfExperts
from minitx.layers.layer import Layer, Output, ParallelLayer, before_norm
from minitx.layers.norm import RMSNorm
from minitx.layers.pooling import POOLING
from minitx.layers.table_head import TableHead
from minitx.models import Model
from tests.parity.cases import BY_NAME
from tests.parity.encoder_decoder_mistakes import ENCODER_DECODER_MISTAKES
from tests.parity.reference import CASES_AND_HEADS, padded, pair, text
from tests.parity.test_forward import difference, output_of

Mistake = Callable[[Model, pytest.MonkeyPatch], None]


def each(model: Model, kind: type[nn.Module]) -> Iterator[nn.Module]:
    return (module for module in model.modules() if isinstance(module, kind))


def norms(model: Model) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.LayerNorm | RMSNorm)]


def wrong_gelu(model: Model, patch: pytest.MonkeyPatch) -> None:
    """The two GELUs differ by at most 5e-4 anywhere."""
    for activation in each(model, Activation):
        if activation.name == "gelu":
            activation.function = Activation("gelu_new").function


def swapped_norms(model: Model, patch: pytest.MonkeyPatch) -> None:
    layer = model.stack.layers[0]
    layer.attention.self_output.layer_norm, layer.output.layer_norm = (
        layer.output.layer_norm,
        layer.attention.self_output.layer_norm,
    )


def missing_norm_bias(model: Model, patch: pytest.MonkeyPatch) -> None:
    next(each(model, nn.LayerNorm)).bias.data.zero_()


def other_epsilon(model: Model, patch: pytest.MonkeyPatch) -> None:
    for norm in norms(model):
        norm.eps = 1e-5


def doubled_scale(model: Model, patch: pytest.MonkeyPatch) -> None:
    for module in model.modules():
        if isinstance(getattr(module, "scale", None), float):
            module.scale *= 2.0


def swapped_query_and_key(model: Model, patch: pytest.MonkeyPatch) -> None:
    attention = next(each(model, SelfAttention))
    attention.Q, attention.K = attention.K, attention.Q


def positions_from_zero(model: Model, patch: pytest.MonkeyPatch) -> None:
    model.embedder.number = NUMBERINGS["sequence"]


def ignored_padding(model: Model, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(stack, "padding_mask", lambda mask: None)


def wrong_rope_base(model: Model, patch: pytest.MonkeyPatch) -> None:
    change_ropes(model, lambda rope: {"rope_theta": 0.9 * rope.rope_theta})


def window_one_too_wide(model: Model, patch: pytest.MonkeyPatch) -> None:
    window = model.stack.config.sliding_window
    model.stack.config = replace(model.stack.config, sliding_window=window + 1)


def all_layers_global(model: Model, patch: pytest.MonkeyPatch) -> None:
    model.stack.config = replace(model.stack.config, sliding_window=10**6)


def positions_one_row_off(model: Model, patch: pytest.MonkeyPatch) -> None:
    table = model.embedder.pos_emb.weight
    table.data = table.data.roll(-1, 0)


def one_series_of_slopes(model: Model, patch: pytest.MonkeyPatch) -> None:
    """Right for powers of two only."""
    patch.setattr(position, "alibi_slopes", lambda heads, _: 2.0 ** (-8 * torch.arange(1, heads + 1) / heads))


def residual_before_the_norm(model: Model, patch: pytest.MonkeyPatch) -> None:
    for layer in each(model, Layer):
        layer.residual = before_norm


def branches_one_after_the_other(model: Model, patch: pytest.MonkeyPatch) -> None:
    for layer in each(model, ParallelLayer):
        layer.forward = types.MethodType(Layer.forward, layer)


def other_pairs_of_features(model: Model, patch: pytest.MonkeyPatch) -> None:
    """Halves for neighbours, or neighbours for halves."""
    change_ropes(model, lambda rope: {"interleaved": not rope.interleaved})


def whole_heads_turn(model: Model, patch: pytest.MonkeyPatch) -> None:
    size = model.stack.config.layer.attention.head_dim
    change_ropes(model, lambda rope: {"rotary_dim": size})


def change_ropes(model: Model, changes: Callable[[RopeConfig], dict[str, Any]]) -> None:
    ropes = model.stack.config.positions.ropes
    changed = {kind: replace(rope, **changes(rope)) for kind, rope in ropes.items()}
    model.stack.config = replace_in(model.stack.config, "positions", ropes=changed)


def queries_not_normed(model: Model, patch: pytest.MonkeyPatch) -> None:
    next(each(model, SelfAttention)).q_norm = nn.Identity()


def every_layer_turns(model: Model, patch: pytest.MonkeyPatch) -> None:
    model.stack.layer_kinds = [kind._replace(uses_rope=True) for kind in model.stack.layer_kinds]


def angles_not_stretched(model: Model, patch: pytest.MonkeyPatch) -> None:
    change_ropes(model, lambda rope: {"rope_type": "default"})


def turned_features_not_scaled(model: Model, patch: pytest.MonkeyPatch) -> None:
    change_ropes(model, lambda rope: {"attention_factor": 1.0})


def bands_rounded_otherwise(model: Model, patch: pytest.MonkeyPatch) -> None:
    change_ropes(model, lambda rope: {"truncate": not rope.truncate})


def always_the_short_factors(model: Model, patch: pytest.MonkeyPatch) -> None:
    change_ropes(model, lambda rope: {"long_factor": rope.short_factor})


def no_sinks(model: Model, patch: pytest.MonkeyPatch) -> None:
    for attention in each(model, SelfAttention):
        attention.sinks = None


def limits_left_out(model: Model, patch: pytest.MonkeyPatch) -> None:
    for experts in each(model, Experts):
        experts.limit = 1e3


def weights_of_experts_normed_otherwise(model: Model, patch: pytest.MonkeyPatch) -> None:
    for mixture in each(model, MixtureOfExperts):
        mixture.config = replace(mixture.config, norm_topk_prob=not mixture.config.norm_topk_prob)


def gate_and_dense_of_experts_swapped(model: Model, patch: pytest.MonkeyPatch) -> None:
    for experts in each(model, Experts):
        experts.gate, experts.dense = experts.dense, experts.gate


def gate_activated_instead(model: Model, patch: pytest.MonkeyPatch) -> None:
    inner = model.stack.layers[0].intermediate
    inner.dense, inner.gate = inner.gate, inner.dense


def one_bucket_off(model: Model, patch: pytest.MonkeyPatch) -> None:
    right = position.RelativePositionBias.bucket
    patch.setattr(position.RelativePositionBias, "bucket", lambda self, d: right(self, d + 1))


def no_relative_bias(model: Model, patch: pytest.MonkeyPatch) -> None:
    model.encoder.has_score_bias = False


def layers_in_another_order(model: Model, patch: pytest.MonkeyPatch) -> None:
    model.encoder.layer_order = model.encoder.layer_order[::-1]


def unnormed_positions(model: Model, patch: pytest.MonkeyPatch) -> None:
    model.encoder.relative_norm = nn.Identity()


def linear_buckets(model: Model, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(disentangled, "log_bucket", lambda distance, buckets, most: distance)


def embeddings_not_scaled(model: Model, patch: pytest.MonkeyPatch) -> None:
    model.embedder.config = replace(model.embedder.config, embedding_scale=None)


def branches_not_scaled(model: Model, patch: pytest.MonkeyPatch) -> None:
    for output in each(model, Output):
        output.branch_scale = 1.0


def scores_of_llama(model: Model, patch: pytest.MonkeyPatch) -> None:
    for attention in each(model, SelfAttention):
        attention.scale = model.stack.config.layer.attention.head_dim**-0.5


def no_convolution(model: Model, patch: pytest.MonkeyPatch) -> None:
    model.encoder.convolution = None


COMMON = (missing_norm_bias, doubled_scale)
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
    ("modernbert", doubled_scale),
    ("modernbert", wrong_gelu),
    ("modernbert", wrong_rope_base),
    ("modernbert", window_one_too_wide),
    ("modernbert", all_layers_global),
    ("modernbert", gate_activated_instead),
    ("modernbert-biases", missing_norm_bias),
    ("deberta-v3", unnormed_positions),
    ("deberta-v3", linear_buckets),
    ("deberta-v2-conv", no_convolution),
    *(
        (name, m)
        for name in ("bloom", "opt", "opt-350m", "gpt-neo", "gptj", "gpt-neox", "phi")
        for m in (*COMMON, swapped_query_and_key)
    ),
    ("bloom-residual-after-norm", residual_before_the_norm),
    ("bloom-residual-after-norm", one_series_of_slopes),
    ("opt", positions_one_row_off),
    ("opt-350m", swapped_norms),
    ("gpt-neo", window_one_too_wide),
    ("gpt-neo", all_layers_global),
    *(
        (name, m)
        for name in ("gptj", "gpt-neox", "phi")
        for m in (branches_one_after_the_other, other_pairs_of_features, whole_heads_turn)
    ),
    ("gpt-neox", wrong_rope_base),
    ("phi-normed-heads", queries_not_normed),
    *(
        (name, m)
        for name in ("qwen3", "qwen3-moe", "olmo2", "smollm3", "gemma3", "phi3", "gpt-oss")
        for m in (doubled_scale, wrong_rope_base)
    ),
    *((name, queries_not_normed) for name in ("qwen3", "qwen3-moe", "olmo2", "gemma3")),
    *(
        (name, m)
        for name in ("qwen2-window", "smollm3-listed-windows", "gemma3", "phi3-window", "gpt-oss")
        for m in (window_one_too_wide, all_layers_global)
    ),
    *((name, gate_activated_instead) for name in ("qwen2", "olmo2", "phi3", "gemma3")),
    *((name, weights_of_experts_normed_otherwise) for name in ("mixtral", "qwen3-moe", "gpt-oss")),
    *((name, gate_and_dense_of_experts_swapped) for name in ("qwen3-moe", "gpt-oss")),
    ("gpt-oss", no_sinks),
    ("gpt-oss-every-expert", limits_left_out),
    ("gpt-oss", bands_rounded_otherwise),
    ("gpt-oss", turned_features_not_scaled),
    ("smollm3", every_layer_turns),
    *(("granite", m) for m in (embeddings_not_scaled, branches_not_scaled, scores_of_llama)),
    ("phi3-window", whole_heads_turn),
    ("phi3-long", always_the_short_factors),
    *(
        (name, angles_not_stretched)
        for name in ("llama-linear", "llama-dynamic", "llama-yarn", "llama-3", "llama-longrope", "phi3-long")
    ),
    ("llama-yarn-magnitudes", turned_features_not_scaled),
]


@pytest.mark.parametrize(("name", "mistake"), MISTAKES)
def test_a_known_mistake_is_caught(
    name: str, mistake: Mistake, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = BY_NAME[name]
    for dtype, limit in ((torch.float64, case.float64), (torch.float32, 1e-5)):
        reference, model = pair(name, "none", dtype, root)
        inputs = padded(case, text(case, 3, 33), "right")
        expected = output_of(reference, inputs)
        assert difference(expected, model, inputs) <= limit
        wrong = copy.deepcopy(model)
        with monkeypatch.context() as patch:
            mistake(wrong, patch)
            assert wrong_by(expected, wrong, inputs) > 3 * limit


@pytest.mark.filterwarnings("ignore:Version v4.12.0 introduces")  # of the reference, about its past
@pytest.mark.parametrize("name", ENCODER_DECODER_MISTAKES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_known_mistakes_in_an_encoder_decoder_are_caught(
    name: str, dtype: torch.dtype, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the hidden states and logits, with both texts padded, or in the loss of given labels."""
    case = BY_NAME[name]
    limit = case.float64 if dtype == torch.float64 else case.float32
    reference, model = pair(name, "seq2seq-lm", dtype, root)
    inputs = padded(case, text(case, 3, 33, "seq2seq-lm"), "right")
    labels = inputs["decoder_input_ids"].masked_fill(inputs["decoder_attention_mask"] == 0, -100)
    learned = {name: inputs[name] for name in ("input_ids", "attention_mask")} | {"labels": labels}
    expected, loss = output_of(reference, inputs), loss_of(reference, learned)
    assert difference(expected, model, inputs) <= limit
    assert loss_apart(loss, model, learned) <= limit
    for mistake in ENCODER_DECODER_MISTAKES[name]:
        wrong = copy.deepcopy(model)
        with monkeypatch.context() as patch:
            mistake(wrong, patch)
            found = max(wrong_by(expected, wrong, inputs), loss_apart(loss, wrong, learned))
        assert found > 3 * limit, mistake.__name__


def loss_of(reference: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.inference_mode(), Wide():
        loss: torch.Tensor = reference(**inputs).loss
    return loss


def loss_apart(expected: torch.Tensor, model: Any, inputs: dict[str, torch.Tensor]) -> float:
    with torch.inference_mode():
        apart: float = (model(**inputs).loss - expected).abs().item()
    return apart


# --- every architecture and every head -------------------------------------------------------------


def other_act(activation: Activation) -> None:
    """Another function, and never one that is nearly the same."""
    near = {"gelu": "gelu_new", "gelu_new": "gelu"}
    activation.function = Activation(
        near.get(activation.name, "relu" if activation.name != "relu" else "gelu")
    ).function


def mistakes_in_the_network(model: Model) -> dict[str, Callable[[], None]]:
    """What can go wrong in any encoder."""
    layer = model.stack.layers[0]
    attention = layer.attention.self_attention
    found = {
        "scale": lambda: setattr(attention, "scale", 2 * attention.scale),
        "swapped key and value": lambda: swap(attention, "K", "V"),
        "activation": lambda: other_act(layer.intermediate.activation),
        "norm weight": lambda: norms(model)[0].weight.data.fill_(1.0),
        "word embedding": lambda: nn.init.normal_(model.embedder.word_emb.weight, std=0.2),
    }
    if model.config.stack.layer.norm_placement == "post":
        found["swapped norms"] = lambda: swap2(layer.attention.self_output, layer.output, "layer_norm")
    if getattr(norms(model)[0], "bias", None) is not None:
        found["norm bias"] = lambda: norms(model)[0].bias.data.zero_()
    if isinstance(layer.intermediate, MixtureOfExperts):
        del found["activation"]
        found["router"] = lambda: setattr(layer.intermediate, "router", redrawn(layer.intermediate.router))
        found["experts"] = lambda: layer.intermediate.experts.output.weight.data.copy_(
            layer.intermediate.experts.output.weight.data.flip(0)
        )
    return found


def mistakes_in_the_head(model: Model) -> dict[str, Callable[[], None]]:
    head = model.head
    assert head is not None
    if isinstance(head, TableHead):
        return mistakes_in_the_selection(model, head)
    found = {"projection": lambda: setattr(head, "projection", redrawn(head.projection))}
    if head.projection.bias is not None:
        found["projection bias"] = lambda: setattr(head.projection, "bias", None)
    transform = head.config.transform
    if transform is not None:
        found["dense"] = lambda: setattr(head, "dense", redrawn(head.dense))
        found["activation"] = lambda: other_act(head.activation)
    if transform is not None and transform.norm is not None:
        found["norm"] = lambda: head.layer_norm.weight.data.fill_(1.0)
    if head.config.pooling != "none":
        other = "mean" if head.config.pooling not in ("mean", "last") else "first"
        found["pooling"] = lambda: setattr(head, "pool", POOLING[other])
    if head.config.pooling == "pooler":
        found["pooler"] = lambda: setattr(model.pooler, "dense", redrawn(model.pooler.dense))
    return found


def mistakes_in_the_selection(model: Model, head: TableHead) -> dict[str, Callable[[], None]]:
    found = {
        "cells": lambda: setattr(head, "cells", redrawn(head.cells)),
        "cells bias": lambda: head.cells.bias.data.add_(0.1),
    }
    if head.selection.select_one_column:
        found["columns"] = lambda: setattr(head, "columns", redrawn(head.columns))
    if head.aggregation is not None:
        found["aggregation"] = lambda: setattr(head, "aggregation", redrawn(head.aggregation))
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
    inputs = text(case, 3, 33, task)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    expected = output_of(reference, inputs)
    assert difference(expected, model, inputs) <= 1e-5
    of = mistakes_in_the_network if model.head is None else mistakes_in_the_head
    for what in of(model):
        wrong = copy.deepcopy(model)
        of(wrong)[what]()
        assert wrong_by(expected, wrong, inputs) > 3e-5, what


def wrong_by(expected: object, model: Model, inputs: dict[str, torch.Tensor]) -> float:
    try:
        return difference(expected, model, inputs)
    except AssertionError:  # not even finite
        return float("inf")


def test_the_mask_module_is_the_one_in_use() -> None:
    """`ignored_padding` patches a name where it is used; if that moved, it would control nothing."""
    assert stack.padding_mask is mask.padding_mask
