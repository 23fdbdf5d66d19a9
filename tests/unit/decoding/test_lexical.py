"""Beam search for texts that hold words. Tokens and scores: tests/parity."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.decoding.search.constrained import LexicalBeam
from minitx.decoding.search.phrases import START, Words
from minitx.decoding.text.stopping import Stop
from tests.unit.decoding.searches import EOS, PROMPT, all_texts, search, tiny, tokens

MODEL = tiny(vocab_size=12, seed=3)
PROMPTS = [[3, 4, 1], [2], [3, 4, 1, 1, 2], [3, 4, 1]]
WORDS = [[7, 9], [[4], [10, 11]]]
PHRASE = st.lists(st.integers(1, 4), min_size=1, max_size=2)


def holds(words: Any, text: Any) -> bool:
    progress, found = START, Words(words)
    for token in text:
        progress = found.after(progress, token)
    return found.complete(progress)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(PHRASE, min_size=1, max_size=2), min_size=1, max_size=2))
def test_with_room_for_all_texts_the_best_is_found(words: list[list[list[int]]]) -> None:
    strategy = LexicalBeam(num_beams=200, force_words_ids=words, length_penalty=0.0, early_stopping="never")
    expected = sorted(
        ((logp, text) for text, logp in all_texts().items() if holds(words, text)), reverse=True
    )[:5]
    if Words(words).shortest > 3 or not expected:
        return
    result = search(strategy, [PROMPT], num_samples=len(expected))
    assert tokens(result) == [text for _, text in expected]
    assert result.scores == pytest.approx([logp for logp, _ in expected], abs=1e-5)


@pytest.mark.parametrize("num_beams", [1, 2, 5])
@pytest.mark.parametrize("early_stopping", [True, False, "never"])
def test_texts_hold_the_words_even_with_few_beams(num_beams: int, early_stopping: Any) -> None:
    strategy = LexicalBeam(num_beams=num_beams, force_words_ids=WORDS, early_stopping=early_stopping)
    result = search(strategy, PROMPTS, model=MODEL, max_new_tokens=8)
    assert all(holds(WORDS, text) for text in tokens(result))
    shortest = search(strategy, PROMPTS, model=MODEL, max_new_tokens=4)
    assert all(holds(WORDS, text) for text in tokens(shortest))


def test_a_batch_is_its_prompts() -> None:
    strategy = LexicalBeam(num_beams=4, force_words_ids=WORDS, repetition_penalty=1.3)
    options: dict[str, Any] = {"model": MODEL, "num_samples": 2, "max_new_tokens": 9, "min_new_tokens": 5}
    batch = search(strategy, PROMPTS, **options)
    for number, prompt in enumerate(PROMPTS):
        alone = search(strategy, [prompt], **options)
        assert tokens(alone) == tokens(batch)[number * 2 : number * 2 + 2]
        assert alone.scores == pytest.approx(batch.scores[number * 2 : number * 2 + 2], rel=1e-5)


def test_the_prompt_does_not_count() -> None:
    strategy = LexicalBeam(force_words_ids=[[3, 4]])
    (text,) = tokens(search(strategy, [[3, 4]], max_new_tokens=5))
    assert holds([[3, 4]], text)


def test_texts_that_are_complete_stay() -> None:
    """A word need not come last: without push_progress the scores are no better."""
    options: dict[str, Any] = {"model": MODEL, "max_new_tokens": 8, "eos": ()}
    pushed = search(LexicalBeam(force_words_ids=WORDS), PROMPTS, **options)
    dropped = search(LexicalBeam(force_words_ids=WORDS, push_progress=False), PROMPTS, **options)
    assert sum(pushed.scores) > sum(dropped.scores)


def test_what_is_reported() -> None:
    strategy = LexicalBeam(num_beams=5, force_words_ids=WORDS, length_penalty=0.7)
    result = search(
        strategy, PROMPTS, model=MODEL, num_samples=2, max_new_tokens=8, logprobs="processed", top_logprobs=2
    )
    for text, reason, logprobs, score in zip(
        tokens(result), result.finish_reasons, result.logprobs, result.scores, strict=True
    ):
        assert reason == ("eos" if text[-1] == EOS else "length")
        assert float(logprobs.sum()) / len(text) ** 0.7 == pytest.approx(score, rel=1e-5)
    assert "[returned #1]" in str(result.beams[3])


def test_fields() -> None:
    assert LexicalBeam(force_words_ids=WORDS) == LexicalBeam(force_words_ids=[[[7, 9]], [[4], [10, 11]]])
    with pytest.raises(ValueError, match="must be at least one word"):
        LexicalBeam()
    with pytest.raises(TypeError, match="push_progress=1 must be True or False"):
        LexicalBeam(force_words_ids=WORDS, push_progress=1)


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        ([[7, 9, 4]], {"max_new_tokens": 2}, "must be at most max_new_tokens=2 tokens together; they have 3"),
        ([[7, EOS]], {}, "force_words_ids=0 must be tokens that do not end"),
        ([[7]], {"stop": Stop(eos=EOS, tokens=7)}, "force_words_ids=7 must be tokens that do not end"),
        ([[12]], {}, "force_words_ids=12 must be from 0 to 11"),
        ([[7]], {"num_samples": 9}, "num_samples=9 must be at most num_beams=4"),
    ],
)
def test_calls_that_do_not_fit(words: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search(LexicalBeam(force_words_ids=words), [PROMPT], model=MODEL, **options)


def test_words_that_are_banned() -> None:
    with pytest.raises(ValueError, match="Prompt 0: only 0 hypotheses contain all phrases"):
        search(LexicalBeam(force_words_ids=[[7]], suppress_tokens=[7]), [PROMPT], model=MODEL)
    with pytest.raises(ValueError, match="left no token"):
        search(LexicalBeam(force_words_ids=[[7]], suppress_tokens=list(range(12))), [PROMPT], model=MODEL)


ENDLESS = (
    {"forced_eos_token_id": EOS, "num_beams": 1, "push_progress": False},
    {"allowed_token_ids": [EOS]},
    {"no_repeat_ngram_size": 1, "allowed_token_ids": [4, EOS], "force_words_ids": [[4, 4]]},
    {"prefix_allowed_tokens_fn": lambda prompt, tokens: [EOS] if len(tokens) > len(PROMPT) + 1 else [4]},
)


@pytest.mark.parametrize("fields", ENDLESS, ids=lambda fields: next(iter(fields)))
def test_beams_that_must_end_without_the_words(fields: dict[str, Any]) -> None:
    strategy = LexicalBeam(**{"num_beams": 2, "force_words_ids": [[7, 9]], **fields})
    if "forced_eos_token_id" in fields:
        with pytest.raises(ValueError, match="tokens together, one of them the forced end; they have 2"):
            search(strategy, [PROMPT], model=MODEL, max_new_tokens=2)
        return
    with pytest.raises(ValueError, match=r"^Prompt 0: only 0 hypotheses contain all phrases"):
        search(strategy, [PROMPT], model=MODEL, max_new_tokens=5)
