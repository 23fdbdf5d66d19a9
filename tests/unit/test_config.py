"""Configs: nested replacement, and values that are refused at construction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import minitx
from minitx.config import (
    Alibi,
    AttentionConfig,
    ExpertsConfig,
    FeedForwardConfig,
    LayerConfig,
    LearnedPositions,
    ModelConfig,
    NormConfig,
    RelativeBias,
    Rotary,
    StackConfig,
    TextInputs,
    replace_in,
)
from minitx.layers.experts import MixtureOfExperts
from minitx.layers.feed_forward import Intermediate
from minitx.layers.layer import Layer, ParallelLayer

NORM = NormConfig(eps=1e-5)
SLIDING = ("sliding_attention",) * 2
ATTENTION = AttentionConfig(num_attention_heads=4, head_dim=2)
FEED_FORWARD = FeedForwardConfig(intermediate_size=16, hidden_act="gelu")
LAYER = LayerConfig(attention=ATTENTION, feed_forward=FEED_FORWARD, norm=NORM, norm_placement="pre")
STACK = StackConfig(hidden_size=8, num_hidden_layers=2, layer=LAYER, causal=True)
INPUTS = TextInputs(
    vocab_size=9, embedding_size=8, hidden_size=8, pad_token_id=None, max_position_embeddings=7
)
MODEL = ModelConfig(inputs=INPUTS, decoder=STACK)


def test_replace_in_changes_one_part_and_nothing_else() -> None:
    changed = replace_in(MODEL, "decoder.layer.attention", qk_norm="head", bias=False)
    attention = changed.stack.layer.attention
    assert (attention.qk_norm, attention.bias, attention.num_attention_heads) == ("head", False, 4)
    assert replace_in(changed, "decoder.layer.attention", qk_norm="none", bias=True) == MODEL
    assert replace_in(MODEL, "", initializer_range=0.1).initializer_range == 0.1


@pytest.mark.parametrize(
    ("path", "changes", "message"),
    [
        (
            "decoder.layer.attention",
            {"qk_nrm": "head"},
            r"'qk_nrm' must be a field of AttentionConfig.*'qk_norm'",
        ),
        ("decoder.layers", {}, r"'layers' must be a field of StackConfig; the nearest is 'layer'"),
        ("encoder.layer", {"norm": NORM}, r"path='encoder.layer' must be .*ModelConfig.encoder is None"),
        ("decoder.hidden_size", {"x": 1}, r"StackConfig.hidden_size is 8"),
        (
            "decoder.layer",
            {"norm_placement": "prenorm"},
            r"LayerConfig.norm_placement='prenorm' must be one of",
        ),
    ],
)
def test_replace_in_names_the_nearest_field(path: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace_in(MODEL, path, **changes)


@pytest.mark.parametrize(
    ("path", "changes", "message"),
    [
        ("decoder.layer.attention", {"num_key_value_heads": 3}, r"num_key_value_heads=3 must be a divisor"),
        ("decoder", {"positions": LearnedPositions()}, r"StackConfig.positions=.* must be a Rotary or"),
        ("inputs", {"positions": Alibi()}, r"TextInputs.positions=.* must be a LearnedPositions or"),
        (
            "inputs",
            {"positions": LearnedPositions(numbering="padding")},
            r"pad_token_id=None must be a token id",
        ),
        (
            "decoder",
            {"layer_types": ("full_attention",)},
            r"layer_types=.* must be one entry for each of 2 layers",
        ),
        ("decoder", {"layer_types": ("full", "full")}, r"layer_types='full' must be one of 'full_attention'"),
        (
            "decoder",
            {"positions": Rotary(ropes={})},
            r"positions=.* must be a Rotary with ropes\['full_attention'\]",
        ),
        ("decoder", {"layer": FEED_FORWARD}, r"StackConfig.layer=.* must be a LayerConfig"),
        ("decoder", {"expert_layers": (True, False)}, r"expert_layers=.* must be True for every layer"),
        (
            "decoder",
            {"layer_types": SLIDING},
            r"sliding_window=None must be at least 1 with layers of sliding",
        ),
        ("decoder", {"layer_types": SLIDING, "sliding_window": 0}, r"sliding_window=0 must be at least 1"),
        (
            "decoder",
            {"layer_types": SLIDING, "sliding_window": 3, "positions": Alibi()},
            r"positions=Alibi\(\) must be a Rotary, Disentangled or None",
        ),
        (
            "decoder",
            {"layer_types": SLIDING, "sliding_window": 3, "positions": RelativeBias(num_buckets=8)},
            r"positions=RelativeBias.* must be a Rotary, Disentangled or None",
        ),
        ("decoder", {"num_hidden_groups": 3}, r"num_hidden_groups=3 must be from 1 to 2"),
        (
            "decoder",
            {"num_hidden_groups": 1, "expert_layers": (True, True)},
            r"expert_layers=.* must be None with num_hidden_groups",
        ),
        ("decoder", {"num_hidden_layers": 0}, r"StackConfig.num_hidden_layers=0 must be at least 1"),
        (
            "decoder.layer",
            {"norm_placement": "post", "parallel": "one_norm"},
            r"'post' must be another with par",
        ),
        (
            "decoder.layer",
            {"norm_placement": "post", "residual_after_norm": True},
            r"norm_placement='post' must be another with residual_after_norm=True",
        ),
        ("decoder.layer.attention", {"num_attention_heads": 0}, r"num_attention_heads=0 must be at least 1"),
        ("decoder.layer.attention", {"num_key_value_heads": 0}, r"num_key_value_heads=0 must be at least 1"),
        ("decoder.layer.attention", {"head_dim": -2}, r"head_dim=-2 must be at least 1"),
        ("decoder.layer.feed_forward", {"intermediate_size": 0}, r"intermediate_size=0 must be at least 1"),
    ],
)
def test_contradictions_are_refused_at_construction(path: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace_in(MODEL, path, **changes)


@pytest.mark.parametrize(
    ("path", "changes", "message"),
    [
        ("decoder", {"num_hidden_layers": "3"}, r"StackConfig.num_hidden_layers='3' must be an integer\."),
        ("decoder", {"num_hidden_layers": 2.0}, r"num_hidden_layers=2.0 must be an integer"),
        ("decoder", {"num_hidden_layers": True}, r"num_hidden_layers=True must be an integer"),
        ("decoder", {"sliding_window": "7"}, r"sliding_window='7' must be an integer or None"),
        ("decoder", {"layer_types": ["full_attention"] * 2}, r"layer_types=.* must be a tuple or None"),
        ("decoder.layer", {"branch_scale": None}, r"branch_scale=None must be a number"),
        ("decoder.layer.norm", {"eps": "1e-5"}, r"NormConfig.eps='1e-5' must be a number"),
        ("decoder.layer.feed_forward", {"hidden_act": None}, r"hidden_act=None must be a string"),
    ],
)
def test_values_of_a_wrong_type_are_refused(path: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        replace_in(MODEL, path, **changes)


@pytest.mark.parametrize(
    ("config", "path", "error", "message"),
    [
        (None, "decoder", TypeError, r"config=None must be a config"),
        ({}, "decoder", TypeError, r"config={} must be a config"),
        (MODEL, None, TypeError, r"path=None must be a string"),
        (MODEL, "decoder.", ValueError, r"path='decoder.' must be field names joined by single dots"),
        (MODEL, "decoder..layer", ValueError, r"path='decoder..layer' must be field names"),
        (MODEL, "decoder.positions.ropes", ValueError, r"path='decoder.positions.ropes' must be a chain"),
    ],
)
def test_replace_in_needs_a_config_and_a_path(
    config: Any, path: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        replace_in(config, path, causal=True)


def test_an_integer_is_a_number() -> None:
    assert replace_in(MODEL, "decoder.layer.norm", eps=1).stack.layer.norm.eps == 1


def test_a_stack_is_as_wide_as_its_inputs() -> None:
    with pytest.raises(ValueError, match=r"decoder.hidden_size=32 must be inputs.hidden_size=8; .*at once"):
        replace_in(MODEL, "decoder", hidden_size=32)
    with pytest.raises(ValueError, match=r"encoder.hidden_size=32 must be inputs.hidden_size=8"):
        replace_in(ModelConfig(inputs=INPUTS, encoder=STACK), "encoder", hidden_size=32)
    wide = replace(INPUTS, hidden_size=32)
    with pytest.raises(ValueError, match=r"decoder.hidden_size=8 must be decoder_inputs.hidden_size=32"):
        ModelConfig(inputs=INPUTS, encoder=STACK, decoder_inputs=wide, decoder=STACK)
    both = replace(MODEL, inputs=wide, decoder=replace(STACK, hidden_size=32))
    assert both.stack.hidden_size == 32


def test_a_config_prints_indented_lines() -> None:
    lines = str(MODEL).splitlines()
    assert len(lines) > 20
    assert max(map(len, lines)) <= 110
    assert any(line.startswith(" ") and "num_attention_heads=4" in line for line in lines)
    assert "\n" not in repr(MODEL)
    assert eval(str(MODEL), vars(minitx.config)) == MODEL


def test_experts_must_suffice_for_a_token() -> None:
    with pytest.raises(ValueError, match="num_experts_per_tok=3 must be at most num_experts=2"):
        ExpertsConfig(num_experts=2, num_experts_per_tok=3, intermediate_size=4)


def test_a_parallel_layer_has_no_place_for_cross_attention() -> None:
    with pytest.raises(ValueError, match="parallel='one_norm' must be 'none' with cross_attention=True"):
        replace_in(LAYER, "", parallel="one_norm", cross_attention=True)


def test_layers_are_chosen_at_construction() -> None:
    experts = ExpertsConfig(num_experts=2, num_experts_per_tok=1, intermediate_size=4, dense=FEED_FORWARD)
    mixed = replace_in(
        replace_in(MODEL, "decoder.layer", feed_forward=experts), "decoder", expert_layers=(True, False)
    )
    first, second = minitx.DecoderModel(mixed).decoder.layers
    assert isinstance(first.intermediate, MixtureOfExperts)
    assert isinstance(second.intermediate, Intermediate)
    assert type(first) is Layer
    parallel = replace_in(MODEL, "decoder.layer", parallel="two_norms")
    assert type(minitx.DecoderModel(parallel).decoder.layers[0]) is ParallelLayer
