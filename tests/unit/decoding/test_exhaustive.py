"""The enumeration of all sequences, against a forward per beginning, searches and samples."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import minitx
from minitx.decoding import KGW, Beam, Greedy, GumbelWatermark, Regex, Sample, exhaustive
from minitx.decoding.generate import generate
from minitx.decoding.text.stopping import Stop
from tests.unit.decoding.chi_square import ALPHA, p_value
from tests.unit.decoding.searches import EOS, PROMPT, search, tiny, tokens
from tests.unit.decoding.vocabularies import byte_level

ENDS: dict[str, Any] = {"stop": Stop(eos=EOS)}


def law(result: Any) -> dict[tuple[int, ...], float]:
    return {tuple(row): float(p) for row, p in zip(result.sequences, result.log_probs, strict=True)}


def one_by_one(length: int, temperature: float) -> dict[tuple[int, ...], float]:
    """A forward over all beginnings of each length, without a cache."""
    ended: dict[tuple[int, ...], float] = {}
    growing: dict[tuple[int, ...], float] = {(): 0.0}
    for _ in range(length):
        ids = torch.tensor([[*PROMPT, *text] for text in growing])
        with torch.no_grad():
            logits = tiny()(ids).logits[:, -1]
        table = (logits.double() / temperature).log_softmax(-1).tolist()
        longer = {
            (*text, token): logp + value
            for (text, logp), row in zip(growing.items(), table, strict=True)
            for token, value in enumerate(row)
        }
        ended |= {text: logp for text, logp in longer.items() if text[-1] == EOS}
        growing = {text: logp for text, logp in longer.items() if text[-1] != EOS}
    return ended | growing


@pytest.mark.parametrize(("length", "temperature"), [(1, 1.0), (3, 1.0), (4, 0.7)])
def test_every_sequence_has_its_probability(length: int, temperature: float) -> None:
    strategy = Sample(temperature=temperature)
    found = exhaustive(tiny(), PROMPT, strategy, max_new_tokens=length, **ENDS)
    expected = one_by_one(length, temperature)
    assert law(found).keys() == expected.keys()
    for text, value in law(found).items():
        assert value == pytest.approx(expected[text], abs=1e-5)
    assert found.log_probs.tolist() == sorted(found.log_probs.tolist(), reverse=True)
    assert float(found.log_probs.exp().sum()) == pytest.approx(1, abs=1e-9)


def test_the_first_is_what_a_wide_beam_finds() -> None:
    found = exhaustive(tiny(), PROMPT, max_new_tokens=4, **ENDS)
    strategy = Beam(num_beams=64, length_penalty=0.0, early_stopping="exact")
    best = search(strategy, [PROMPT], max_new_tokens=4)
    assert found.sequences[0] == best.sequences[0].tolist()
    assert float(found.log_probs[0]) == pytest.approx(best.scores[0], abs=1e-5)


FIELDS: list[dict[str, Any]] = [
    {"top_k": 2},
    {"temperature": 1.5, "repetition_penalty": 1.7, "min_p": 0.05},
    {"no_repeat_ngram_size": 1},
    {"watermark": KGW(bias=1.0)},
]


@pytest.mark.parametrize("fields", FIELDS)
def test_samples_follow_the_law(fields: dict[str, Any]) -> None:
    """With processors that depend on the beginning."""
    strategy = Sample(**fields)
    options: dict[str, Any] = {"max_new_tokens": 3, **ENDS}
    found = law(exhaustive(tiny(), PROMPT, strategy, **options))
    draws = 4000
    result = generate(tiny(), [list(PROMPT)], strategy, num_samples=draws, seed=2, **options)
    counts = dict.fromkeys(found, 0)
    for text in tokens(result):
        counts[text] += 1
    expected = torch.tensor([math.exp(value) * draws for value in found.values()])
    assert p_value(torch.tensor([*counts.values()]), expected) > ALPHA


def test_a_filter_leaves_fewer() -> None:
    found = exhaustive(tiny(), PROMPT, Sample(top_k=2), max_new_tokens=6, max_sequences=64, **ENDS)
    assert len(found) <= 64
    greedy = generate(tiny(), [list(PROMPT)], Greedy(), max_new_tokens=6, **ENDS)
    one = exhaustive(tiny(), PROMPT, Sample(top_k=1), max_new_tokens=6, **ENDS)
    assert one.sequences == [greedy.sequences[0].tolist()]
    assert one.log_probs.tolist() == [0.0]


def test_ends() -> None:
    """End tokens, stop tokens, the least length, and no tokens at all."""
    stop = Stop(eos=EOS, tokens=[2])
    found = exhaustive(tiny(), PROMPT, max_new_tokens=3, min_new_tokens=2, stop=stop)
    for row in found.sequences:
        ended = [index for index, token in enumerate(row) if token == EOS or (token == 2 and index >= 1)]
        assert ended in ([], [len(row) - 1])
        assert len(row) == 3 or ended
        assert len(row) >= 2
    assert float(found.log_probs.exp().sum()) == pytest.approx(1, abs=1e-9)
    nothing = exhaustive(tiny(), PROMPT, max_new_tokens=0)
    assert (nothing.sequences, nothing.log_probs.tolist()) == ([[]], [0.0])


def test_texts_and_a_grammar() -> None:
    tokenizer = byte_level()
    model = tiny(len(tokenizer), 3)
    found = exhaustive(
        model,
        "the",
        Sample(),
        max_new_tokens=4,
        tokenizer=tokenizer,
        grammar=Regex("a(b|cd)?"),
        stop=Stop(eos=tokenizer.eos_token_id),
    )
    assert sorted(found.texts or []) == ["a", "ab", "acd"]
    assert float(found.log_probs.exp().sum()) == pytest.approx(1, abs=1e-9)
    assert repr(found).splitlines()[0].endswith(repr((found.texts or [])[0]))


def test_an_encoder_decoder() -> None:
    config = {
        "model_type": "t5",
        "vocab_size": 6,
        "d_model": 8,
        "d_kv": 4,
        "d_ff": 8,
        "num_layers": 1,
        "num_heads": 2,
        "decoder_start_token_id": 0,
        "initializer_factor": 3.0,
    }
    model: Any = minitx.from_config(config, head="seq2seq-lm", seed=0).eval()
    found = exhaustive(model, [5, 3, 1], max_new_tokens=3, stop=Stop(eos=1))
    assert float(found.log_probs.exp().sum()) == pytest.approx(1, abs=1e-9)
    rows = [row[:-1] if row[-1] == 1 else row for row in found.sequences[:20]]
    whole = [row for row in rows if len(row) == 3]
    scores = minitx.score(model, whole, sources=[[5, 3, 1]] * len(whole))
    assert scores.totals.tolist() == pytest.approx([law(found)[tuple(row)] for row in whole], abs=1e-4)


def test_it_prints_the_best() -> None:
    found = exhaustive(tiny(), PROMPT, max_new_tokens=3, **ENDS)
    lines = repr(found).splitlines()
    assert len(lines) == 11
    assert lines[-1] == f"and {len(found) - 10} more"
    assert lines[0].endswith(repr(found.sequences[0]))


@pytest.mark.parametrize(
    ("prompt", "strategy", "options", "message"),
    [
        (
            PROMPT,
            Sample(),
            {"max_sequences": 20},
            "max_sequences=20 must be at least the number",
        ),
        (PROMPT, Beam(num_beams=2), {}, r"must be a Sample\(...\) of processors alone"),
        (PROMPT, Greedy(), {}, r"must be a Sample\(...\) of processors alone"),
        (PROMPT, Sample(xtc=(0.5, 0.1)), {}, r"must be a Sample\(...\) of processors alone"),
        (PROMPT, Sample(watermark=GumbelWatermark()), {}, r"must be a Sample\(...\) of processors alone"),
        ([[1], [2]], Sample(), {}, "prompt"),
        (PROMPT, Sample(), {"max_sequences": 0}, "max_sequences=0 must be at least 1"),
    ],
)
def test_refusals(prompt: Any, strategy: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        exhaustive(tiny(), prompt, strategy, max_new_tokens=3, **options)


def test_options_without_effect_are_refused() -> None:
    for name, value in (("seed", 1), ("num_samples", 2), ("logprobs", "raw")):
        options: Any = {name: value}
        with pytest.raises(TypeError, match=f"exhaustive.*{name}"):
            exhaustive(tiny(), PROMPT, max_new_tokens=2, **options)
    tokenizer = byte_level()
    with pytest.raises(ValueError, match="must be without strings"):
        exhaustive(
            tiny(len(tokenizer), 3), "the", max_new_tokens=1, stop=Stop(strings=["a"]), tokenizer=tokenizer
        )
