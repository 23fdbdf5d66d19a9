"""The rows of a prompt do not depend on how many are returned: fewer are the first of more.

That holds for every search, whatever its fields, with `seed` and with `generator`, and for `Alternatives`. By
definition it does not hold for

- `log_weights` of `StochasticBeam`: the threshold is the best sequence outside the sample;
- `ArithmeticSample`: the codes of N samples are 1 / N apart, and N q < 1 decides when a code is fresh;
- `Sample` and `ArithmeticSample` with `generator`: one source that all rows draw from in turn;
- `Sample` with `seed` where a prompt occurs twice in a batch: the samples of both are numbered together. The
  first of the two is not affected. (Searches number prompts, not samples.)
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import torch

from minitx.decoding import (
    Alternatives,
    ArithmeticSample,
    Beam,
    BeamSample,
    DiverseBeam,
    LexicalBeam,
    Sample,
    StochasticBeam,
    Strategy,
)
from minitx.decoding.search.base import Search
from tests.unit.decoding.searches import search, tiny

SETTINGS = 40
CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"repetition_penalty": 0.7},
    {"no_repeat_ngram_size": 2},
    {"logit_bias": {3: 2.5}},
    {"presence_penalty": -1.5},
    {"sequence_bias": {(4, 5): 6.0, (2,): -1.0}},
    {"exponential_decay_length_penalty": (2, 1.5)},
    {"renormalize_logits": True},
    {"processors": [lambda logits, context: logits + 0.8]},
    {"forced_eos_token_id": [0]},
    {"min_length": 5},
)


def scored(draw: Random, *more: Any) -> dict[str, Any]:
    return {
        **draw.choice(CHANGES),
        "num_beams": draw.choice([2, 3, 4, 6]),
        "length_penalty": draw.choice([-1.0, 0.0, 0.6, 1.0, 2.0]),
        "early_stopping": draw.choice([True, False, "never", *more]),
    }


def beam(draw: Random) -> Strategy:
    norm, patience = draw.choice(["power", "gnmt"]), draw.choice([0.5, 1.0, 1.0, 2.0])
    return Beam(**scored(draw, "exact"), length_norm=norm, patience=patience)


def beam_sample(draw: Random) -> Strategy:
    return BeamSample(**scored(draw, "exact"), top_k=draw.choice([0, 4]))


def diverse(draw: Random) -> Strategy:
    fields = scored(draw)
    groups = [size for size in range(1, fields["num_beams"] + 1) if fields["num_beams"] % size == 0]
    penalty = draw.choice([0.0, 0.4, 2.0])
    return DiverseBeam(**fields, num_beam_groups=draw.choice(groups), diversity_penalty=penalty)


def lexical(push_progress: bool) -> Callable[[Random], Strategy]:
    def make(draw: Random) -> Strategy:
        words = [[draw.randint(1, 4) for _ in range(draw.randint(1, 2))] for _ in range(draw.randint(1, 2))]
        return LexicalBeam(**scored(draw), force_words_ids=words, push_progress=push_progress)

    return make


def stochastic(draw: Random) -> Strategy:
    temperature, beams = draw.choice([0.7, 1.0, 1.5]), draw.choice([3, 4, 5, 7])
    return StochasticBeam(**draw.choice(CHANGES), num_beams=beams, temperature=temperature)


STRATEGIES: dict[str, Callable[[Random], Strategy]] = {
    "Beam": beam,
    "BeamSample": beam_sample,
    "DiverseBeam": diverse,
    "LexicalBeam": lexical(push_progress=True),
    "LexicalBeam, push_progress=False": lexical(push_progress=False),
    "StochasticBeam": stochastic,
    "Alternatives": lambda draw: Alternatives(**draw.choice(CHANGES)),
    "Sample": lambda draw: Sample(**draw.choice(CHANGES), top_p=0.9),
}


def most(strategy: Strategy) -> int:
    """The most rows per prompt."""
    if isinstance(strategy, StochasticBeam):
        return strategy.num_beams - 1
    if isinstance(strategy, Beam):
        return min(strategy.num_beams, strategy.max_hypotheses)
    return strategy.num_beams if isinstance(strategy, Search) else 4


def rows(strategy: Strategy, prompts: list[list[int]], number: int, **options: Any) -> list[Any]:
    """Per prompt the texts and the scores of so many rows."""
    result = search(strategy, prompts, num_samples=number, **options)  # type: ignore[arg-type]
    texts = [text.tolist() for text in result.sequences]
    scores = result.scores or [0.0] * len(texts)
    places = range(0, len(texts), number)
    return [(texts[at : at + number], scores[at : at + number]) for at in places]


@pytest.mark.parametrize("name", STRATEGIES)
def test_fewer_rows_are_the_first_of_more(name: str) -> None:
    compared = 0
    for setting in range(SETTINGS):
        draw = Random(f"{name} {setting}")
        strategy, vocab_size = STRATEGIES[name](draw), draw.choice([6, 8, 12])
        prompts = [[draw.randrange(1, vocab_size) for _ in range(draw.randint(2, 5))] for _ in range(2)]
        options = {
            "model": tiny(vocab_size, draw.randrange(6)),
            "eos": draw.choice([(), (0,), (0, 5)]),
            "max_new_tokens": draw.choice([2, 4, 8, 11]),
            "min_new_tokens": draw.choice([0, 0, 2]),
        }
        by_generator = isinstance(strategy, Search) and isinstance(strategy, Sample) and setting % 3 == 0

        def run(number: int, call: Any = (strategy, prompts, options, by_generator)) -> Any:
            strategy, prompts, options, by_generator = call
            source = {"generator": torch.Generator().manual_seed(1)} if by_generator else {}
            return rows(strategy, prompts, number, **options, **source)

        outcomes = []
        for number in range(1, most(strategy) + 1):
            try:
                outcomes.append(run(number))
            except ValueError as error:  # there are no more hypotheses, so there are none for more
                if not any(part in str(error) for part in ("num_samples=", "force_words_ids=", "eos")):
                    raise
                break
        for number, outcome in enumerate(outcomes, 1):
            for (texts, scores), (all_texts, all_scores) in zip(outcome, outcomes[-1], strict=True):
                assert texts == all_texts[:number], (strategy, setting, number)
                assert scores == pytest.approx(all_scores[:number], rel=1e-5), (strategy, setting, number)
        compared += len(outcomes) > 1
    assert compared >= SETTINGS / 2


PROMPTS = [[number, 3] for number in range(1, 12)]


def differs(strategy: Strategy, prompts: list[list[int]] = PROMPTS, **options: Any) -> list[bool]:
    """Per prompt, whether the first text of three is another one than the only text."""
    one, three = (
        rows(
            strategy,
            prompts,
            number,
            model=tiny(12, 3),
            max_new_tokens=8,
            eos=(),
            **{name: make() for name, make in options.items()},
        )
        for number in (1, 3)
    )
    return [a[0][0] != b[0][0] for a, b in zip(one, three, strict=True)]


def test_rows_that_depend_on_the_number_by_definition() -> None:
    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(1)

    assert any(differs(ArithmeticSample(temperature=1.5)))
    assert any(differs(ArithmeticSample(temperature=1.5), generator=generator))
    assert any(differs(Sample(temperature=1.5), generator=generator))
    first, second = differs(Sample(temperature=1.5), [[3, 4], [3, 4]])
    assert not first
    assert second
    assert differs(BeamSample(num_beams=3), [[3, 4], [3, 4]]) == [False, False]
    assert differs(StochasticBeam(num_beams=5), [[3, 4], [3, 4]]) == [False, False]


def test_weights_have_the_threshold_of_their_sample() -> None:
    one, three = (
        search(StochasticBeam(num_beams=5), PROMPTS, model=tiny(12, 3), num_samples=number)
        for number in (1, 3)
    )
    assert one.scores == three.scores[::3]
    assert one.log_weights != pytest.approx(three.log_weights[::3])
