"""Configs: nested replacement, and values that are refused at construction."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest

import minitx
from minitx.config import (
    Alibi,
    AttentionConfig,
    Disentangled,
    ExpertsConfig,
    FeedForwardConfig,
    HeadConfig,
    LayerConfig,
    LearnedPositions,
    ModelConfig,
    NormConfig,
    RelativeBias,
    RopeConfig,
    Rotary,
    StackConfig,
    TextInputs,
    from_json,
    replace_in,
    to_json,
)
from minitx.config.base import ValidatedConfig
from minitx.layers.experts import MixtureOfExperts
from minitx.layers.feed_forward import Intermediate
from minitx.layers.layer import Layer, ParallelLayer
from minitx.validation import ArgumentError

NORM = NormConfig(eps=1e-5)
SLIDING = ("sliding_attention",) * 2
ATTENTION = AttentionConfig(num_attention_heads=4, head_dim=2)
FEED_FORWARD = FeedForwardConfig(intermediate_size=16, hidden_act="gelu")
LAYER = LayerConfig(attention=ATTENTION, feed_forward=FEED_FORWARD, norm=NORM, norm_placement="pre")
STACK = StackConfig(hidden_size=8, num_hidden_layers=2, layer=LAYER, causal=True)
INPUTS = TextInputs(
    vocab_size=9, embedding_size=8, hidden_size=8, pad_token_id=None, max_position_embeddings=7
)
ENCODER = replace(STACK, causal=False)
CROSS = replace(STACK, layer=replace(LAYER, cross_attention=True))
MODEL = ModelConfig(inputs=INPUTS, decoder=STACK)
HEAD = HeadConfig(task="causal-lm", num_labels=9)
LONG = {"rope_type": "longrope", "original_max_position_embeddings": 8, "short_factor": (1.0,)}
DISENTANGLED = Disentangled(
    relative_attention=True,
    max_relative_positions=8,
    position_buckets=4,
    pos_att_type=frozenset({"c2p"}),
    share_att_key=False,
    dropout=0.1,
    norm_rel_ebd=False,
    conv_kernel_size=3,
    conv_groups=1,
    conv_act="tanh",
)
FULL = "full_attention"


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
        ("decoder", {"positions": LearnedPositions()}, r"StackConfig.positions=.* must be Rotary or"),
        ("inputs", {"positions": Alibi()}, r"TextInputs.positions=.* must be LearnedPositions or"),
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
        ("decoder", {"layer": FEED_FORWARD}, r"StackConfig.layer=.* must be LayerConfig"),
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
            r"positions=Alibi\(\) must be a Rotary or None",
        ),
        (
            "decoder",
            {"layer_types": SLIDING, "sliding_window": 3, "positions": RelativeBias(num_buckets=8)},
            r"positions=RelativeBias.* must be a Rotary or None",
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
    wide = replace(INPUTS, hidden_size=32, embedding_size=32)
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


# --- bounds ------------------------------------------------------------------------------------------

ROPE = RopeConfig(rope_theta=10_000.0, rotary_dim=2)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        (HEAD, {"num_labels": -3}, r"HeadConfig.num_labels=-3 must be at least 1"),
        (HEAD, {"classifier_dropout": 2.0}, r"HeadConfig.classifier_dropout=2.0 must be in \[0, 1\]"),
        (HEAD, {"softcap": 0.0}, r"HeadConfig.softcap=0.0 must be in \(0, inf\)"),
        (HEAD, {"scale": math.nan}, r"HeadConfig.scale=nan must be in"),
        (HEAD, {"problem_type": "regresion"}, r"HeadConfig.problem_type='regresion' must be one of"),
        (ROPE, {"rope_theta": 0.0}, r"RopeConfig.rope_theta=0.0 must be in \(0, inf\)"),
        (ROPE, {"factor": -1.0}, r"RopeConfig.factor=-1.0 must be in"),
        (ROPE, {"rotary_dim": 0}, r"RopeConfig.rotary_dim=0 must be at least 2"),
        (ROPE, {"rope_type": "yrn"}, r"RopeConfig.rope_type='yrn' must be one of"),
        (ROPE, {"rope_type": "yarn"}, r"original_max_position_embeddings=0 must be at least 1 for rope_type"),
        (ROPE, LONG | {"long_factor": ()}, r"long_factor=\(\) must be 1 positive numbers"),
        (ROPE, LONG | {"long_factor": (0.0,)}, r"long_factor\[0\]=0.0 must be in"),
        (ROPE, LONG | {"rope_type": "llama3", "low_freq_factor": 4.0}, r"low_freq_factor=4.0 must be below"),
        (ROPE, LONG | {"rope_type": "dynamic"}, r"rotary_dim=2 must be more than 2"),
        (ROPE, LONG | {"rope_type": "yarn", "beta_slow": 40.0}, r"beta_slow=40.0 must be at most beta_fast"),
        (ROPE, LONG | {"rope_type": "yarn", "rope_theta": 1.0}, r"rope_theta=1.0 must be other than 1"),
        (NORM, {"eps": -1.0}, r"NormConfig.eps=-1.0 must be in \[0, inf\)"),
        (ATTENTION, {"dropout": 1.5}, r"AttentionConfig.dropout=1.5 must be in"),
        (INPUTS, {"vocab_size": 0}, r"TextInputs.vocab_size=0 must be at least 1"),
        (INPUTS, {"pad_token_id": 9}, r"TextInputs.pad_token_id=9 must be from 0 to 8"),
        (INPUTS, {"type_vocab_size": -1}, r"TextInputs.type_vocab_size=-1 must be at least 0"),
        (STACK, {"output_size": 0}, r"StackConfig.output_size=0 must be at least 1"),
        (
            STACK,
            {"positions": Rotary(ropes={FULL: replace(ROPE, rotary_dim=4)})},
            r"rotary_dim=4 must be at most",
        ),
        (
            STACK,
            {"positions": replace(DISENTANGLED, conv_groups=3)},
            r"conv_groups=3 must be a divisor",
        ),
        (STACK, {"positions": DISENTANGLED}, r"StackConfig.causal=True must be False with"),
        (INPUTS, {"embedding_size": 4}, r"TextInputs.embedding_size=4 must be hidden_size=8 without"),
        (INPUTS, {"positions": LearnedPositions(offset=7)}, r"max_position_embeddings=7 must be more than 7"),
        (
            INPUTS,
            {"positions": LearnedPositions(numbering="padding"), "pad_token_id": 6},
            r"max_position_embeddings=7 must be more than 7, the row of the first position",
        ),
        (
            MODEL,
            {"encoder": ENCODER},
            r"decoder.layer.cross_attention=False must be True in a decoder",
        ),
        (
            MODEL,
            {"encoder": replace(ENCODER, output_size=4), "decoder": CROSS},
            r"encoder_projection=False must be True for an encoder output of 4 and a decoder of 8",
        ),
        (MODEL, {"initializer_range": -0.1}, r"initializer_range=-0.1 must be in \[0, inf\)"),
        (MODEL, {"decoder_start_token_id": -1}, r"decoder_start_token_id=-1 must be at least 0"),
        (RelativeBias(num_buckets=8), {"num_buckets": 3}, r"RelativeBias.num_buckets=3 must be at least 4"),
        (DISENTANGLED, {"conv_kernel_size": 2}, r"conv_kernel_size=2 must be odd"),
        (
            DISENTANGLED,
            {"pos_att_type": frozenset({"c2c"})},
            r"pos_att_type='c2c' must be one of 'c2p', 'p2c'",
        ),
        (DISENTANGLED, {"position_buckets": 1}, r"position_buckets=1 must be 0, or at least 2"),
        (Rotary(ropes={}), {"ropes": [ROPE]}, r"Rotary.ropes=.* must be a mapping of layer types"),
        (Rotary(ropes={}), {"ropes": {FULL: None}}, r"Rotary.ropes=.* must be a mapping of layer types"),
    ],
)
def test_numbers_have_bounds(part: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(part, **changes)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        (STACK, {"expert_layers": (True, 0)}, r"StackConfig.expert_layers\[1\]=0 must be a bool"),
        (STACK, {"layer_types": (FULL, 3)}, r"StackConfig.layer_types\[1\]=3 must be a string"),
        (Rotary(ropes={}), {"layers": (1, 2)}, r"Rotary.layers\[0\]=1 must be a bool"),
        (ROPE, {"short_factor": (True,)}, r"RopeConfig.short_factor\[0\]=True must be a number"),
    ],
)
def test_elements_of_tuples_have_a_type(part: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        replace(part, **changes)


def test_a_set_of_scores_is_a_frozenset() -> None:
    with pytest.raises(TypeError, match=r"Disentangled.pos_att_type='c2p' must be a frozenset"):
        replace(DISENTANGLED, pos_att_type="c2p")  # type: ignore[arg-type]


def test_the_inputs_of_a_model_of_text() -> None:
    assert MODEL.text_inputs is INPUTS
    other = replace(MODEL, inputs=minitx.CustomInputs(hidden_size=8), decoder=None, encoder=STACK)
    with pytest.raises(ValueError, match=r"ModelConfig.inputs=CustomInputs.* must be a TextInputs; this"):
        _ = other.text_inputs


@dataclass(frozen=True, kw_only=True)
class Ladder(ValidatedConfig):
    """A custom config with tuples of configs and of tuples."""

    norms: tuple[NormConfig, ...] = ()
    pairs: tuple[tuple[int, int], ...] | None = None
    names: tuple[str | None, ...] = ()
    kinds: tuple[Literal["a", "b"], ...] = ()


def test_tuples_of_configs_and_of_tuples_are_checked_and_come_back() -> None:
    ladder = Ladder(norms=(NORM, NORM), pairs=((1, 2), (3, 4)), names=("a", None), kinds=("b",))
    assert from_json(Ladder, json.loads(json.dumps(to_json(ladder)))) == ladder
    for changes, message in (
        ({"norms": (3,)}, r"Ladder\.norms\[0\]=3 must be NormConfig"),
        ({"pairs": (3,)}, r"Ladder\.pairs\[0\]=3 must be a tuple"),
        ({"pairs": ((1, "x"),)}, r"Ladder\.pairs\[0\]\[1\]='x' must be an integer"),
        ({"pairs": ((1, True),)}, r"Ladder\.pairs\[0\]\[1\]=True must be an integer"),
        ({"pairs": ((1, 2, 3),)}, r"Ladder\.pairs\[0\]=\(1, 2, 3\) must be a tuple of 2"),
        ({"names": (3,)}, r"Ladder\.names\[0\]=3 must be a string or None"),
    ):
        with pytest.raises(ArgumentError, match=message):
            Ladder(**changes)
    form = to_json(ladder) | {"pairs": [[1, 2, 3]]}
    with pytest.raises(ValueError, match=r"Ladder\.pairs\[0\]=\(1, 2, 3\) must be a tuple of 2"):
        from_json(Ladder, form)


def test_the_class_of_a_part_has_no_article() -> None:
    with pytest.raises(ValueError, match=r"LayerConfig\.attention=3 must be AttentionConfig\."):
        LayerConfig(attention=3, feed_forward=FEED_FORWARD, norm=NORM)  # type: ignore[arg-type]
