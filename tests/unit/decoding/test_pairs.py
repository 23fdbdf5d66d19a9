"""Any two features of decoding work together, or the call refuses one of them by name.

`FEATURES` is the table: a new feature is one line. Each pair is run on ragged prompts. If it works, the batch
gives what its rows give one by one, the ids exist, and the promises of both features hold. `REFUSED` lists
the pairs that do not fit together, with the words of the error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations, pairwise
from typing import Any

import pytest
import torch

import minitx
from minitx.decoding import (
    KGW,
    Alternatives,
    ArithmeticSample,
    Beam,
    BeamSample,
    Chain,
    ClassifierFree,
    ContrastiveDecoding,
    DiverseBeam,
    Greedy,
    GumbelWatermark,
    Jacobi,
    LexicalBeam,
    Lookahead,
    PromptLookup,
    Regex,
    RepetitionPenalty,
    Sample,
    Speculative,
    StochasticBeam,
    SynthID,
    ThinkingBudget,
    TopK,
    Unigram,
)
from tests.unit.decoding.grammars import small_tokenizer
from tests.unit.decoding.vocabularies import SPECIAL
from tests.unit.test_cli_generate import CONFIG, WORDS

LENGTH = 5
PROMPTS = [[3, 4, 5, 3, 4], [6], [7, 8, 7]]
EOS = WORDS.index("</s>")
PHRASE = [WORDS.index("k"), WORDS.index("q")]
Ids = list[int]
Check = Callable[[Ids, Ids], bool]  # the ids of a prompt, and of one of its rows


@dataclass(frozen=True)
class Feature:
    """A feature.

    Attributes:
        name: of the feature.
        kind: what it is, for `REFUSED`.
        fields: of the strategy.
        options: of the call.
        strategy: makes the strategy from its fields; None for `Sample`.
        holds: what it promises of each row, where it does not depend on the other feature.
        streams: whether the rows are those of `stream`.
    """

    name: str
    kind: str
    fields: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    strategy: Any = None
    holds: Check = lambda prompt, row: True
    streams: bool = False


def without(*banned: int) -> Check:
    return lambda prompt, row: not {*banned} & {*row}


def only(*words: str) -> Check:
    return lambda prompt, row: {*row} <= {WORDS.index(word) for word in words}


def no_repeated_pair(prompt: Ids, row: Ids) -> bool:
    earlier, pairs = [*pairwise(prompt)], [*pairwise([prompt[-1], *row])]
    return len({*pairs}) == len(pairs) and not {*pairs} & {*earlier}


def contains(row: Ids, phrase: Ids) -> bool:
    return any(row[i : i + len(phrase)] == phrase for i in range(len(row)))


def no_vowels(logits: torch.Tensor, context: Any) -> torch.Tensor:
    return logits.index_fill(1, torch.tensor([WORDS.index(vowel) for vowel in "aeiou"]), -torch.inf)


def speculative(**fields: Any) -> Speculative:
    return Speculative(draft=PromptLookup(), tokens=3, target=Sample(**fields))


STOP = minitx.Stop(strings=["bc"])
DIVERSE = {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5}
AMATEUR = minitx.from_config(CONFIG, head="causal-lm", seed=1).eval()
LEXICAL = {"force_words_ids": [PHRASE], "num_beams": 3}
FEATURES = [
    Feature("repetition penalty", "penalty", {"repetition_penalty": 1.3}),
    Feature("frequency penalty", "penalty", {"frequency_penalty": 0.7}),
    Feature("presence penalty", "penalty", {"presence_penalty": 0.7}),
    Feature("no repeated pair", "penalty", {"no_repeat_ngram_size": 2}, holds=no_repeated_pair),
    Feature("relative frequency", "penalty", {"relative_frequency_penalty": 2.0}),
    Feature("penalty window", "penalty", {"penalty_window": 2, "repetition_penalty": 1.3}),
    Feature("DRY", "penalty", {"dry": (0.8, 1.75, 1)}),
    Feature("prefix bias", "bias", {"prefix_bias": ([20, 21], 0.6)}),
    Feature("thinking budget", "bias", {"thinking_budget": ThinkingBudget(tokens=1, begin=[4], end=[18])}),
    Feature("logit bias", "bias", {"logit_bias": {5: 2.0, 6: -100.0}}),
    Feature("bad words", "bias", {"bad_words_ids": [[7], [8, 9]]}, holds=without(7)),
    Feature("suppressed tokens", "ban", {"suppress_tokens": [10, 11]}, holds=without(10, 11)),
    Feature("custom processor", "custom", {"processors": [no_vowels]}, holds=without(3, 7, 11, 17, 23)),
    Feature("renormalize", "bias", {"renormalize_logits": True}),
    Feature("temperature", "filter", {"temperature": 0.7}),
    Feature("top-k", "filter", {"top_k": 8}),
    Feature("top-p", "filter", {"top_p": 0.9}),
    Feature("min-p", "filter", {"min_p": 0.05}),
    Feature("typical", "filter", {"typical_p": 0.9}),
    Feature("literal chain", "chain", {"chain": Chain(RepetitionPenalty(1.2), TopK(9))}),
    Feature("KGW", "watermark", {"watermark": KGW()}),
    Feature("unigram watermark", "watermark", {"watermark": Unigram()}),
    Feature("SynthID", "watermark", {"watermark": SynthID(keys=[3, 5, 7])}),
    Feature("Gumbel watermark", "gumbel", {"watermark": GumbelWatermark()}),
    Feature("guidance", "guidance", options={"guidance": ClassifierFree(1.5, [[9, 10]])}),
    Feature("amateur", "guidance", options={"guidance": ContrastiveDecoding(AMATEUR)}),
    Feature("speculation", "speculation", strategy=speculative),
    Feature("Jacobi", "guesses", strategy=Jacobi),
    Feature("lookahead", "guesses", strategy=Lookahead),
    Feature("beams", "search", {"num_beams": 3}, strategy=Beam),
    Feature("drawn beams", "drawn search", {"num_beams": 3}, strategy=BeamSample),
    Feature("groups of beams", "search", DIVERSE, strategy=DiverseBeam),
    Feature("stochastic beams", "drawn search", {"num_beams": 3}, strategy=StochasticBeam),
    Feature("phrase", "search", LEXICAL, strategy=LexicalBeam, holds=lambda _, row: contains(row, PHRASE)),
    Feature("arithmetic", "draw", strategy=ArithmeticSample),
    Feature("alternatives", "greedy", strategy=Alternatives),
    Feature("Greedy", "greedy", strategy=Greedy),
    Feature("two samples", "samples", options={"num_samples": 2}),
    Feature("stop string", "stop string", options={"stop": STOP}),
    Feature("least tokens", "length", options={"min_new_tokens": 4}, holds=lambda _, row: EOS not in row[:3]),
    Feature("log-probabilities", "call", options={"logprobs": "processed", "top_logprobs": 2}),
    Feature("prefill in parts", "call", options={"prefill_chunk": 2}),
    Feature("stream", "stream", streams=True),
    Feature(
        "grammar", "grammar", options={"grammar": Regex("[a-q]*")}, holds=only(*"abcdefghijklmnopq", "</s>")
    ),
]
# By kinds or names of the two; the error must have these words.
NO_FIELD, NO_STRINGS = "has no field", "cannot stop at strings"
_PAIRS = {
    **{("filter", kind): NO_FIELD for kind in ("search", "greedy", "guesses")},
    **{("literal chain", kind): "passed without" for kind in ("penalty", "bias", "ban", "custom", "filter")},
    **{("literal chain", kind): "passed without watermark" for kind in ("watermark", "gumbel")},
    # Top-k, or the amateur's threshold, has removed them.
    **{(name, "phrase"): "contain all phrases" for name in ("literal chain", "amateur")},
    **{("gumbel", kind): "watermark=" for kind in ("search", "drawn search", "draw", "greedy", "guesses")},
    ("gumbel", "speculation"): "GumbelWatermark",
    ("guidance", "guesses"): "None with trees",
    **{(name, "samples"): "num_samples=2" for name in ("gumbel", "guesses", "Greedy")},
    **{("stream", kind): "cannot be streamed" for kind in ("search", "drawn search")},
    **{("stop string", name): NO_STRINGS for name in ("groups of beams", "stochastic beams", "phrase")},
}
REFUSED = {frozenset(pair): words for pair, words in _PAIRS.items()}


@cache
def model_and_tokenizer() -> tuple[Any, Any]:
    letters = [word.encode() for word in WORDS if word not in SPECIAL]
    return minitx.from_config(CONFIG, head="causal-lm", seed=0).eval(), small_tokenizer(*letters)


def run(features: Sequence[Feature], prompts: list[Ids]) -> list[Ids]:
    """The rows of a call with all features."""
    fields: dict[str, Any] = {}
    options: dict[str, Any] = {"max_new_tokens": LENGTH}
    for feature in features:
        fields |= feature.fields
        options |= feature.options
    kind = next((f.strategy for f in features if f.strategy is not None), Sample)
    strategy = kind(**fields)
    model, tokenizer = model_and_tokenizer()
    watermarked = isinstance(fields.get("watermark"), GumbelWatermark)
    draws = isinstance(getattr(strategy, "target", strategy), Sample | StochasticBeam)
    if draws and not watermarked:
        options["seed"] = 1
    if not any(feature.streams for feature in features):
        result = minitx.generate(model, prompts, strategy, tokenizer=tokenizer, **options)
        return [row.tolist() for row in result.sequences]
    events = minitx.stream(model, prompts, strategy, tokenizer=tokenizer, **options)
    rows: list[Ids] = [[] for _ in range(events.rows)]
    for event in events:
        rows[event.row].append(event.token)
    return rows


def refusal(pair: Sequence[Feature]) -> str | None:
    names = (
        {first, second} for first in (pair[0].name, pair[0].kind) for second in (pair[1].name, pair[1].kind)
    )
    return next((REFUSED[frozenset(both)] for both in names if frozenset(both) in REFUSED), None)


PAIRS = [
    pytest.param(pair, id=f"{pair[0].name} + {pair[1].name}")
    for pair in combinations(FEATURES, 2)
    if not {*pair[0].fields} & {*pair[1].fields} and not (pair[0].strategy and pair[1].strategy)
]


@pytest.mark.parametrize("pair", PAIRS)
def test_two_features_work_together_or_are_refused(pair: tuple[Feature, Feature]) -> None:
    expected = refusal(pair)
    if expected is not None:
        with pytest.raises((TypeError, ValueError), match=re.compile(expected)):
            run(pair, PROMPTS)
        return
    rows = run(pair, PROMPTS)
    count = len(rows) // len(PROMPTS)
    for number, prompt in enumerate(PROMPTS):
        part = rows[number * count : (number + 1) * count]
        if number < 2:
            assert part == run(pair, [prompt])
        assert all(0 <= token < len(WORDS) for row in part for token in row)
        assert all(0 < len(row) <= LENGTH for row in part)
        for feature in pair:
            assert all(feature.holds(prompt, row) for row in part), feature.name
