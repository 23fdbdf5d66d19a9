"""Grammars with strategies that draft, look ahead, or run a second model."""

from __future__ import annotations

import re
from typing import Any

import pytest

import minitx
from minitx.decoding import (
    DRY,
    KGW,
    ContrastiveDecoding,
    ContrastiveSearch,
    DraftModel,
    EarlyExit,
    Ensemble,
    Jacobi,
    Lookahead,
    Mirostat,
    PromptLookup,
    Regex,
    Speculative,
)
from minitx.decoding.generate import generate
from tests.unit.decoding.test_grammar import PATTERN, TOKENIZERS, model_of

TOKENIZER = TOKENIZERS["bytes"]
MODEL, SMALL = model_of(TOKENIZER), model_of(TOKENIZER, n_embd=8, n_layer=1)
PROMPTS = [[10, 20, 30, 40], [7], [1], [50, 60, 70]]
OPTIONS: Any = {"max_new_tokens": 24, "tokenizer": TOKENIZER, "grammar": Regex(PATTERN)}
DRAFTS = {"model": DraftModel(SMALL), "lookup": PromptLookup(), "early exit": EarlyExit(1)}


@pytest.mark.parametrize("verify", ["rejection", "match", "block"])
@pytest.mark.parametrize("draft", DRAFTS)
def test_drafted_tokens_obey_the_grammar(draft: str, verify: Any) -> None:
    """Rejected tokens leave no trace in the state of the grammar."""
    greedy = Speculative(draft=DRAFTS[draft], verify=verify)
    expected = generate(MODEL, PROMPTS, minitx.Greedy(), **OPTIONS)
    assert generate(MODEL, PROMPTS, greedy, **OPTIONS).texts == expected.texts
    sampled = Speculative(draft=DRAFTS[draft], target=minitx.Sample(), verify=verify)
    drawn = generate(MODEL, PROMPTS, sampled, seed=3, num_samples=3, **OPTIONS)
    assert all(re.fullmatch(PATTERN, text) for text in drawn.texts)
    if verify == "match":
        plain = generate(MODEL, PROMPTS, minitx.Sample(), seed=3, num_samples=3, **OPTIONS)
        assert drawn.texts == plain.texts


@pytest.mark.parametrize("strategy", [Jacobi(), Lookahead()], ids=repr)
def test_guesses_obey_the_grammar(strategy: Any) -> None:
    expected = generate(MODEL, PROMPTS, minitx.Greedy(), **OPTIONS)
    assert generate(MODEL, PROMPTS, strategy, **OPTIONS).texts == expected.texts


@pytest.mark.parametrize(
    ("strategy", "more"),
    [
        (ContrastiveSearch(penalty_alpha=0.6, top_k=4), {}),
        (minitx.Sample(processors=[Mirostat(3.0), DRY(0.8)]), {"seed": 0}),
        (minitx.Sample(processors=[KGW(key=1)]), {"seed": 0}),
        (minitx.Greedy(), {"guidance": Ensemble([SMALL])}),
    ],
    ids=repr,
)
def test_other_strategies_and_processors(strategy: Any, more: dict[str, Any]) -> None:
    texts = generate(MODEL, PROMPTS, strategy, **more, **OPTIONS).texts
    assert texts is not None
    assert all(re.fullmatch(PATTERN, text) for text in texts)


def test_guidance_that_leaves_no_allowed_token_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"Regex left no token. Tokens after each step: the model"):
        generate(MODEL, PROMPTS, minitx.Greedy(), guidance=ContrastiveDecoding(SMALL), **OPTIONS)
