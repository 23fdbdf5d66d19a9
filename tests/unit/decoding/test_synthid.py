"""SynthID and the Gumbel watermark: no distortion, detection, and what is refused."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import minitx
from minitx.decoding import (
    KGW,
    ArithmeticSample,
    Beam,
    BeamSample,
    Chain,
    Context,
    DraftModel,
    Greedy,
    GumbelWatermark,
    PromptLookup,
    Sample,
    Speculative,
    StochasticBeam,
    Strategy,
    SynthID,
)
from minitx.decoding.generate import generate
from minitx.decoding.text.stopping import Stop
from minitx.decoding.watermark.gumbel import KeyedRace
from minitx.decoding.watermark.synthid import tournament
from tests.unit.decoding.chi_square import ALPHA, fit, independence, kolmogorov_smirnov
from tests.unit.decoding.histories import history, logits_of
from tests.unit.decoding.searches import tiny

NEVER = Stop(eos=())
SIZE = 60
KEYS = [*range(3, 90, 3)]


def test_a_tournament_keeps_the_distribution_on_average() -> None:
    """All 2^12 bits of four tokens in three layers."""
    probabilities = torch.tensor([0.6, 0.25, 0.1, 0.05], dtype=torch.float64)
    bits = torch.tensor([*product((0.0, 1.0), repeat=12)], dtype=torch.float64).view(-1, 3, 4)
    winners = tournament(probabilities.expand(len(bits), 4), bits.unbind(dim=1))
    torch.testing.assert_close(winners.mean(dim=0), probabilities, rtol=0, atol=1e-12)
    torch.testing.assert_close(winners.sum(dim=1), torch.ones(len(bits)).double(), rtol=0, atol=1e-12)
    assert (winners[:, 0] - probabilities[0]).abs().max() > 0.2


def test_one_layer_is_a_match_of_two_draws() -> None:
    """The law of the winner: of two draws the one with the bit, else either; by enumeration."""
    probabilities = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    for bits in product((0, 1), repeat=3):
        law = torch.zeros(3, dtype=torch.float64)
        for first, second in product(range(3), repeat=2):
            pair = probabilities[first] * probabilities[second]
            for token in (first, second):
                if bits[first] == bits[second]:
                    law[token] += pair / 2
                elif bits[token] == 1:
                    law[token] += pair
        winner = tournament(probabilities[None], [torch.tensor([bits]).double()])[0]
        torch.testing.assert_close(winner, law, rtol=0, atol=1e-12)


def test_text_without_a_tournament_has_a_standard_normal_score() -> None:
    generator = torch.Generator().manual_seed(5)
    scores = []
    for key in range(200):
        tokens = torch.randint(3000, (300,), generator=generator).tolist()
        tokens += tokens[100:150] * 3
        scores.append(SynthID(keys=[key * 40 + layer for layer in range(9)]).detect(tokens).z_score)
    numbers = torch.tensor(scores, dtype=torch.float64)
    assert kolmogorov_smirnov(torch.special.ndtr(numbers)) > 1e-3
    assert abs(float(numbers.mean())) < 4 / 200**0.5
    assert abs(float(numbers.std()) - 1) < 4 / 400**0.5


def test_text_without_keyed_draws_has_uniform_p_values() -> None:
    generator = torch.Generator().manual_seed(6)
    p_values = []
    for key in range(300):
        tokens = torch.randint(3000, (200,), generator=generator).tolist()
        p_values.append(GumbelWatermark(key=key, context_width=2).detect(tokens + tokens[:50]).p_value)
    assert kolmogorov_smirnov(torch.tensor(p_values)) > 1e-3


def test_keyed_draws_follow_the_distribution() -> None:
    """Over keys and contexts; and two keys, or two contexts, are independent."""
    logits = torch.randn(10, generator=torch.Generator().manual_seed(2)) * 1.5
    rows = 400
    prompts = torch.randint(1000, (rows, 3), generator=torch.Generator().manual_seed(3)).tolist()
    draws = torch.stack(
        [
            KeyedRace(GumbelWatermark(key=key, context_width=3), prompts)(logits.expand(rows, 10), 0)
            for key in range(300)
        ]
    )
    probabilities = logits.double().softmax(dim=-1)
    assert fit(draws.flatten(), probabilities) > ALPHA
    assert fit(draws[:, 0], probabilities) > ALPHA
    assert independence(draws[:-1].flatten(), draws[1:].flatten(), 10) > ALPHA
    assert independence(draws[:, :-1].flatten(), draws[:, 1:].flatten(), 10) > ALPHA
    same = KeyedRace(GumbelWatermark(key=1), [[1, 2, 3, 4]] * 2)(logits.expand(2, 10), 0)
    assert same[0] == same[1]


def test_the_race_looks_at_the_last_tokens() -> None:
    """Its own, and the prompt's; a position that is drawn again gets the same token."""
    mark = GumbelWatermark(context_width=3)
    logits = torch.randn(70, 2, 30, generator=torch.Generator().manual_seed(0))
    prompts = [[5], [9, 9, 4, 7, 8]]
    race = KeyedRace(mark, prompts)
    drawn = torch.stack([race(logits[position], position) for position in range(70)], dim=1)
    again = KeyedRace(mark, prompts)
    for position in range(70):
        again(logits[0], position)
        assert torch.equal(again(logits[position], torch.full((2,), position)), drawn[:, position])
    for row, prompt in enumerate(prompts):
        text = prompt + drawn[row].tolist()
        for position in (0, 1, 2, 3, 69):
            here = KeyedRace(mark, [text[: len(prompt) + position]])
            assert here(logits[position, row : row + 1], 0) == drawn[row, position]


MARKS = [GumbelWatermark(context_width=2), SynthID(keys=KEYS), SynthID(keys=KEYS, ngram_len=2)]


@pytest.mark.parametrize("mark", MARKS, ids=lambda mark: type(mark).__name__)
def test_generated_text_is_detected(mark: Any) -> None:
    """Drawn, with ragged prompts; a batch gives what its rows give. Another key finds nothing."""
    prompts = [[3, 4, 5], [1, 2, 3, 4, 5, 6], [7, 7, 8, 9]]
    options: dict[str, Any] = {"max_new_tokens": 18, "stop": NEVER}
    options |= {} if mark.draws else {"seed": 4}
    strategy = Sample(watermark=mark, temperature=3.0)
    rows = [row.tolist() for row in generate(tiny(SIZE), prompts, strategy, **options).sequences]
    for prompt, row in zip(prompts, rows, strict=True):
        assert generate(tiny(SIZE), [prompt], strategy, **options).sequences[0].tolist() == row
        found = mark.detect(prompt + row, len(prompt))
        assert found.p_value < 1e-4
        assert found.watermarked
        assert repr(found).endswith(", watermarked")
    other: Any = GumbelWatermark(key=5) if mark.draws else SynthID(keys=[key + 1 for key in KEYS])
    assert not any(other.detect(row).watermarked for row in rows)
    assert "no watermark found" in repr(other.detect(rows[0]))


def flat(logits: Tensor, context: Context) -> Tensor:
    return logits / 8


MARKED: Any = {"watermark": SynthID(keys=KEYS, ngram_len=3), "processors": [flat]}


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        (Greedy(**MARKED), {}),
        (Beam(num_beams=3, **MARKED), {}),
        (BeamSample(num_beams=3, **MARKED), {"seed": 2}),
        (ArithmeticSample(**MARKED), {"seed": 2}),
    ],
)
def test_searches_with_a_tournament(strategy: Strategy, options: dict[str, Any]) -> None:
    prompts = [[3, 4, 5], [1, 2, 3, 4, 5, 6]]
    options |= {"max_new_tokens": 12, "stop": NEVER}
    result = generate(tiny(SIZE), prompts, strategy, **options)
    for prompt, row in zip(prompts, result.sequences, strict=True):
        assert generate(tiny(SIZE), [prompt], strategy, **options).sequences[0].tolist() == row.tolist()
        assert MARKED["watermark"].detect(row).watermarked


@pytest.mark.parametrize("mark", [KGW(bias=3.0), KGW(seeding="selfhash", context_width=3), MARKS[2]])
def test_drafted_tokens_are_marked_as_others(mark: Any) -> None:
    """The context of each drafted position is its own."""
    prompts, options = [[3, 4, 5], [1, 2, 3, 4, 5, 6]], {"max_new_tokens": 14, "stop": NEVER}
    plain = generate(tiny(SIZE), prompts, Greedy(watermark=mark, processors=[flat]), **options)
    for draft in (PromptLookup(), DraftModel(tiny(SIZE, 2))):
        strategy = Speculative(draft=draft, target=Greedy(watermark=mark, processors=[flat]))
        found = generate(tiny(SIZE), prompts, strategy, **options)
        assert [row.tolist() for row in found.sequences] == [row.tolist() for row in plain.sequences]


def test_only_generated_tokens_are_context() -> None:
    logits = logits_of("random", 2, SIZE)[:1].expand(2, -1)
    mark = SynthID(keys=KEYS)
    processed = mark(logits, history([[9, 1, 2, 3], [5, 6, 1, 2, 3]], [1, 2]))
    assert torch.equal(processed[0], processed[1])
    empty = mark(logits, history([[], [7]], [0, 1]))
    assert torch.equal(empty[0], empty[1])


def test_a_repeated_context_changes_nothing() -> None:
    logits = logits_of("random", 1, SIZE)
    mark = SynthID(keys=KEYS, ngram_len=3)
    assert torch.equal(mark(logits, history([[1, 2, 5, 1, 2]], 0)), logits)
    assert not torch.equal(mark(logits, history([[1, 2, 5, 2, 1]], 0)), logits)
    assert not torch.equal(mark(logits, history([[1, 2, 5, 1, 2]], 1)), logits)  # once in the prompt
    short = SynthID(keys=KEYS, ngram_len=3, context_history_size=2)
    assert not torch.equal(short(logits, history([[1, 2, 5, 1, 2]], 0)), logits)


def test_banned_tokens_stay_banned() -> None:
    for kind in ("holes", "one-hot", "huge"):
        logits = logits_of(kind, 3, SIZE).double()
        processed = SynthID(keys=KEYS)(logits, history([[1, 2], [3], []]))
        assert processed.dtype == torch.float64
        assert torch.equal(processed == -torch.inf, logits == -torch.inf)
        assert not processed.isnan().any()


def test_posterior_is_bayes_rule() -> None:
    """By hand: one layer, a probability q of two different tokens."""
    mark = SynthID(keys=[7], ngram_len=2)
    tokens = [5, 1, 8, 2, 9, 4]
    ones = int(mark.g_values(tokens).sum())
    zeros = len(mark.g_values(tokens)) - ones
    q = 0.8
    marked = ((1.5 * q + 1 - q) / 2) ** ones * ((0.5 * q + 1 - q) / 2) ** zeros
    expected = 0.3 * marked / (0.3 * marked + 0.7 * 0.5 ** (ones + zeros))
    beta = torch.logit(torch.tensor(q, dtype=torch.float64))
    found = mark.posterior(tokens, beta=[float(beta)], delta=[[5.0]], prior=0.3)
    assert found == pytest.approx(expected, rel=1e-9)


def test_explain_takes_both() -> None:
    for mark in MARKS:
        seed = {} if mark.draws else {"seed": 0}
        strategy = Sample(watermark=mark)
        explained = minitx.explain(tiny(SIZE), [3, 4, 5], strategy, max_new_tokens=2, stop=NEVER, **seed)
        drawn = generate(tiny(SIZE), [[3, 4, 5]], strategy, max_new_tokens=2, stop=NEVER, **seed)
        assert [p.drawn.token for p in explained.positions] == drawn.sequences[0].tolist()


def test_log_probabilities_are_those_of_the_model() -> None:
    """The keyed draw changes no probability: the chain is empty."""
    strategy = Sample(watermark=GumbelWatermark(), top_k=5)
    assert [type(p).__name__ for p in strategy.build().processors] == ["TopK"]
    kept = generate(tiny(SIZE), [[3]], strategy, max_new_tokens=9, stop=NEVER, top_logprobs=5, logprobs="raw")
    for row, top in zip(kept.sequences, kept.top_logprobs or [], strict=True):
        assert all(token in ids for token, ids in zip(row.tolist(), top.ids.tolist(), strict=True))


def run(**options: Any) -> Any:
    return generate(tiny(SIZE), [[3]], Sample(watermark=GumbelWatermark()), max_new_tokens=2, **options)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: Greedy(watermark=MARKS[0]),
            ValueError,
            "must be another; this one replaces",
        ),
        (lambda: Beam(num_beams=2, watermark=MARKS[0]), ValueError, "must be another; this one"),
        (lambda: ArithmeticSample(watermark=MARKS[0]), ValueError, "must be another; this one"),
        (lambda: BeamSample(num_beams=2, watermark=MARKS[0]), ValueError, "must be another; this one"),
        (lambda: StochasticBeam(num_beams=2, watermark=MARKS[0]), ValueError, "must be another; this one"),
        (
            lambda: Speculative(draft=PromptLookup(), target=Sample(watermark=MARKS[0])),
            ValueError,
            "must be without a GumbelWatermark",
        ),
        (lambda: Chain(MARKS[0]), TypeError, "must be processors"),
        (lambda: run(seed=1), ValueError, "seed=1 must be left out; the key and the text determine"),
        (lambda: run(generator=torch.Generator()), ValueError, "generator=.* must be left out"),
        (lambda: run(num_samples=2), ValueError, "num_samples=2 must be 1; with a GumbelWatermark"),
        (lambda: GumbelWatermark(key=-1), ValueError, "key=-1 must be from 0"),
        (lambda: GumbelWatermark(context_width=0), ValueError, "context_width=0 must be at least 1"),
        (lambda: GumbelWatermark().detect([1, 2, 3, 4]), ValueError, "at least 5 tokens, not 4"),
        (lambda: GumbelWatermark().detect([1] * 9, p_threshold=0), ValueError, "p_threshold=0 must be in"),
        (lambda: SynthID(keys=[]), TypeError, r"keys=\[\] must be a list of at least one integer"),
        (lambda: SynthID(keys=5), TypeError, "keys=5 must be a list"),
        (lambda: SynthID(keys=[5, "a"]), TypeError, r"keys\[1\]='a' must be an integer"),
        (lambda: SynthID(keys=[5], ngram_len=1), ValueError, "ngram_len=1 must be at least 2"),
        (lambda: SynthID(keys=[5], sampling_table_size=2**25), ValueError, "must be from 2 to 16777216"),
        (lambda: SynthID(keys=[5], context_history_size=0), ValueError, "must be at least 1"),
        (lambda: SynthID(keys=[5], skip_first_ngram_calls=1), TypeError, "must be True or False"),
        (lambda: SynthID(keys=[5]).detect([1, 2, 3, 4, 5], 1), ValueError, "at least 6 tokens, not 5"),
        (lambda: MARKS[1].posterior([*range(9)], beta=[1.0], delta=[[1.0]]), ValueError, "beta"),
        (lambda: MARKS[1].detect([*range(9)], z_threshold=None), TypeError, "z_threshold=None"),
    ],
)
def test_refusals(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_marks_are_values() -> None:
    assert SynthID(keys=torch.tensor([1, 2])) == SynthID(keys=(1, 2))
    assert hash(GumbelWatermark(key=3)) == hash(GumbelWatermark(key=3))
