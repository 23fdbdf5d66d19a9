"""Rotary positions: both dialects of a config, what cannot be, and the equations at places that one knows."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import minitx
from minitx.architectures import architecture
from minitx.architectures.config_reader import ConfigReader
from minitx.config import RopeConfig, Rotary
from minitx.config.model import FULL, SLIDING
from minitx.decoding.prompts import pad_left
from minitx.layers.rotary import FREQUENCIES, apply_rotary_pos_emb, rotary_tables

LLAMA = {
    "model_type": "llama",
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 64,
}
LISTS = {"short_factor": [1.0, 1.5, 2.0], "long_factor": [3.0, 4.0, 5.0]}


def ropes(**more: Any) -> dict[str, RopeConfig]:
    config = {**LLAMA, **more}
    found = architecture(config["model_type"]).read(ConfigReader(config)).stack.positions
    assert isinstance(found, Rotary)
    return dict(found.ropes)


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ({"rope_theta": 500.0}, {"rope_theta": 500.0}),
        ({"rope_theta": 500.0, "rope_type": "default"}, {"rope_theta": 500.0, "rope_scaling": None}),
        (
            {"rope_theta": 500.0, "rope_type": "linear", "factor": 2.0},
            {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
        ),
        (
            {"rope_theta": 10000.0, "rope_type": "dynamic", "factor": 2.0},
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
        ),
        (
            {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
            | {"high_freq_factor": 4.0, "original_max_position_embeddings": 32},
            {
                "rope_theta": 5e5,
                "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
                | {"high_freq_factor": 4.0, "original_max_position_embeddings": 32},
            },
        ),
        (
            {"rope_theta": 10000.0, "rope_type": "longrope", **LISTS, "factor": 4.0}
            | {"original_max_position_embeddings": 16},
            {"original_max_position_embeddings": 16, "rope_scaling": {"type": "su", **LISTS}},
        ),
        (
            {"rope_theta": 10000.0, "partial_rotary_factor": 0.67},
            {"model_type": "phi3", "partial_rotary_factor": 0.67, "pad_token_id": 0},
        ),
    ],
)
def test_both_dialects_say_the_same(new: dict[str, Any], old: dict[str, Any]) -> None:
    kind = {key: old[key] for key in ("model_type", "pad_token_id") if key in old}
    assert ropes(**kind, rope_parameters=new) == ropes(**old)


def test_two_bases_in_both_dialects() -> None:
    gemma = {"model_type": "gemma3_text", "head_dim": 6, "num_key_value_heads": 2, "sliding_window": 8}
    old = ropes(
        **gemma, rope_theta=1e6, rope_local_base_freq=1e4, rope_scaling={"rope_type": "linear", "factor": 8.0}
    )
    new = ropes(
        **gemma,
        rope_parameters={
            FULL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            SLIDING: {"rope_type": "default", "rope_theta": 1e4},
        },
    )
    assert old == new
    assert (new[FULL].factor, new[SLIDING].factor) == (8.0, 1.0)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rope_type": "spiral"}, "rope_type='spiral' must be one of default, linear"),
        ({"rope_type": "linear", "factor": 0}, "factor=0.0 must be positive"),
        ({"rope_type": "linear", "factor": -2}, "factor"),
        ({"rope_type": "linear", "factor": "two"}, "factor"),
        (
            {"rope_type": "longrope", **LISTS, "long_factor": [1.0]},
            r"long_factor=\[1.0\] must be a list of 3 positive numbers",
        ),
        ({"rope_type": "longrope", "short_factor": [1.0, 1.0, 1.0]}, "long_factor"),
        ({"rope_type": "default", "twist": 1}, "twist"),
        ({"rope_theta": 0}, "rope_theta=0"),
        ({"rope_theta": math.inf}, "rope_theta"),
        (
            {"partial_rotary_factor": 0.5},
            "partial_rotary_factor=0.5 must be 1; this architecture rotates whole",
        ),
        ([1, 2], "must be an object"),
    ],
)
def test_what_cannot_be_is_refused_by_name(parameters: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        minitx.from_config({**LLAMA, "rope_parameters": parameters})


@pytest.mark.parametrize(("share", "features"), [(0.1, 0), (1.5, 9)])
def test_shares_of_a_head_that_cannot_be(share: float, features: int) -> None:
    config = {**LLAMA, "model_type": "phi3", "pad_token_id": 0, "partial_rotary_factor": share}
    with pytest.raises(ValueError, match=f"cannot rotate {features} "):
        minitx.from_config(config)


def test_heads_of_odd_size_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot rotate 7 features of attention heads with head_dim=7"):
        minitx.from_config({**LLAMA, "hidden_size": 28})


# --- the equations ---------------------------------------------------------------------------------


def frequency(length: int = 8, **values: Any) -> torch.Tensor:
    rope = RopeConfig(rope_theta=10000.0, rotary_dim=8, **values)
    return FREQUENCIES[rope.rope_type](rope, torch.arange(length)[None]).flatten()


def test_the_plain_ones_are_powers_of_the_base() -> None:
    assert torch.allclose(frequency(), torch.tensor([1.0, 0.1, 0.01, 0.001]))
    assert torch.allclose(frequency(rope_type="linear", factor=4.0), frequency() / 4)


def test_dynamic_ones_stay_until_the_text_is_longer_than_the_training() -> None:
    options = {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 16}
    assert torch.equal(frequency(16, **options), frequency())
    longer = frequency(32, **options)
    assert longer[0] == 1.0
    assert bool((longer[1:] < frequency()[1:]).all())


def test_yarn_and_llama3_keep_fast_pairs_and_divide_slow_ones() -> None:
    yarn = frequency(rope_type="yarn", factor=4.0, original_max_position_embeddings=400)
    llama3 = frequency(rope_type="llama3", factor=4.0, original_max_position_embeddings=400)
    for found in (yarn, llama3):
        assert torch.allclose(found[0], frequency()[0])
        assert torch.allclose(found[3], frequency()[3] / 4)
        assert bool((found <= frequency()).all())
        assert bool((found >= frequency() / 4 - 1e-9).all())


def test_longrope_has_one_set_for_short_texts_and_one_for_long_ones() -> None:
    options: dict[str, Any] = {
        "rope_type": "longrope",
        "original_max_position_embeddings": 16,
        "short_factor": (1.0, 2.0, 1.0, 1.0),
        "long_factor": (1.0, 1.0, 5.0, 1.0),
    }
    assert torch.allclose(frequency(16, **options), frequency() / torch.tensor([1.0, 2, 1, 1]))
    assert torch.allclose(frequency(17, **options), frequency() / torch.tensor([1.0, 1, 5, 1]))


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
@pytest.mark.parametrize("lengths", [(3, 8), (8, 9), (12, 3, 9, 8, 11)])
def test_a_batch_turns_as_its_rows_do(kind: str, lengths: tuple[int, ...]) -> None:
    """Around 8 tokens, beyond which a text turns otherwise: each row is as long as it is itself."""
    decoder, rows = by_length(kind), [torch.randint(60, (length,)) for length in lengths]
    batch = pad_left([row.tolist() for row in rows], 0, torch.device("cpu"))
    with torch.inference_mode():
        together = decoder(*batch).logits
        for number, row in enumerate(rows):
            alone = decoder(row[None]).logits[0]
            assert torch.allclose(together[number, -len(row) :], alone, rtol=0, atol=1e-9)
    texts = [row.tolist() for row in rows]
    scores = minitx.score(decoder, texts)
    for found, text in zip(scores.logprobs, texts, strict=True):
        assert torch.allclose(found, minitx.score(decoder, [text]).logprobs[0], atol=1e-6)


@torch.inference_mode()
def test_a_cache_is_of_no_use_across_the_turning_point() -> None:
    """With longrope. Dynamic positions go on with the keys that there are, as they do elsewhere."""
    decoder, text = by_length("longrope"), torch.randint(60, (2, 14))
    for first, second in ((8, 1), (5, 5), (1, 13)):
        cache = decoder.make_cache()
        decoder(text[:, :first], cache=cache)
        with pytest.raises(
            ValueError, match=rf"by {first} tokens, now the sequence has .*run the whole sequence"
        ):
            decoder(text[:, first : first + second], cache=cache)
        assert cache.length == first
        decoder(text[:, : first + second], cache=cache.crop(0))  # anew
        decoder(text[:, :1], cache=cache)
    with pytest.raises(ValueError, match=r"by 15 tokens, now the sequence has 6, and above 8"):
        decoder(text[:, 5:6], cache=cache.crop(5))
    cache = decoder.make_cache()
    found = [decoder(text[:, a:b], cache=cache).logits for a, b in ((0, 5), (5, 7), (7, 8))]
    assert torch.allclose(torch.cat(found, 1), decoder(text[:, :8]).logits, rtol=0, atol=1e-9)
    dynamic = by_length("dynamic")
    cache = dynamic.make_cache()
    dynamic(text[:, :8], cache=cache)
    assert dynamic(text[:, 8:], cache=cache).cache is cache


@torch.inference_mode()
def test_padding_does_not_bring_a_row_nearer_to_the_turning_point() -> None:
    decoder, text = by_length("longrope"), torch.randint(60, (2, 14))
    mask = torch.ones_like(text)
    mask[0, :5] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = decoder.make_cache()
    decoder(text[:, :13], mask[:, :13], positions[:, :13], cache=cache)
    with pytest.raises(ValueError, match=r"by 8 tokens, now the sequence has 9"):  # the row with padding
        decoder(text[:, 13:], mask[:, 13:], positions[:, 13:], cache=cache)
    mask[:, :6] = 0  # now none comes near
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = decoder.make_cache()
    pieces = [
        decoder(text[:, a:b], mask[:, a:b], positions[:, a:b], cache=cache).logits
        for a, b in ((0, 8), (8, 9), (9, 14))
    ]
    whole = decoder(text, mask, positions).logits
    assert torch.allclose(torch.cat(pieces, 1)[:, 6:], whole[:, 6:], rtol=0, atol=1e-9)


def by_length(kind: str) -> minitx.DecoderModel:
    rope = {"rope_type": kind, "rope_theta": 100.0, "factor": 4.0}
    if kind == "longrope":
        rope |= {**LISTS, "original_max_position_embeddings": 8}
    config = {**LLAMA, "rope_parameters": rope, "initializer_range": 0.3}
    config["max_position_embeddings"] = 8 if kind == "dynamic" else 32
    made = minitx.from_config(config, head="causal-lm", seed=0, dtype=torch.float64).eval()
    assert isinstance(made, minitx.DecoderModel)
    assert made.original_contexts == {kind: 8}
    return made


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("rotary_dim", [8, 4])
def test_turning_keeps_lengths_and_depends_on_distance_alone(interleaved: bool, rotary_dim: int) -> None:
    rope = RopeConfig(rope_theta=100.0, rotary_dim=rotary_dim, interleaved=interleaved)
    query, key = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)

    def at(x: torch.Tensor, position: int) -> torch.Tensor:
        return apply_rotary_pos_emb(x, rotary_tables(rope, torch.tensor([[position]]), torch.float64))

    assert torch.allclose(at(query, 0), query)
    assert torch.allclose(at(query, 5).norm(), query.norm())
    assert torch.equal(at(query, 5)[..., rotary_dim:], query[..., rotary_dim:])
    scores = [(at(query, start + 3) * at(key, start)).sum() for start in (0, 4, 11)]
    assert torch.allclose(scores[0], scores[1], atol=1e-5)
    assert torch.allclose(scores[0], scores[2], atol=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16}, "rotate 5 features"),
        (
            {"rope_type": "dynamic", "factor": 2.0, "partial_rotary_factor": 0.35},
            "cannot rotate 2 features",
        ),
    ],
)
def test_kinds_that_need_whole_or_several_pairs(values: dict[str, Any], message: str) -> None:
    """In an architecture whose heads turn in part: 8 features, of which 5, or 2."""
    config = {**LLAMA, "model_type": "phi", "hidden_size": 32, "partial_rotary_factor": 0.7}
    with pytest.raises(ValueError, match=message):
        minitx.from_config({**config, "rope_parameters": values})
