"""The words that a text must hold."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx.decoding.search.phrases import START, Progress, Words

TOKENS = st.integers(0, 2)
PHRASE = st.lists(TOKENS, min_size=1, max_size=3)


def read(words: Words, text: list[int]) -> Progress:
    progress = START
    for token in text:
        progress = words.after(progress, token)
    return progress


def holds(phrase: Any, text: list[int]) -> bool:
    return any(text[at : at + len(phrase)] == list(phrase) for at in range(len(text)))


@given(st.lists(PHRASE, min_size=1, max_size=3), st.lists(TOKENS, max_size=9))
def test_one_word_is_found_wherever_it_is(phrases: list[list[int]], text: list[int]) -> None:
    words = Words([phrases])
    assert words.complete(read(words, text)) == any(holds(phrase, text) for phrase in phrases)


@given(
    st.lists(st.lists(PHRASE, min_size=1, max_size=2), min_size=1, max_size=3), st.lists(TOKENS, max_size=9)
)
def test_words_are_found_in_whatever_order_they_are_given(
    words: list[list[list[int]]], text: list[int]
) -> None:
    expected = holds_all(words, text)
    for order in permutations(words):
        found = Words(order)
        assert found.complete(read(found, text)) == expected


def holds_all(words: list[list[list[int]]], text: list[int], start: int = 0) -> bool:
    """Whether all words stand in the text from `start` on, no two of them over each other."""
    return not words or any(
        text[at : at + len(phrase)] == phrase
        and holds_all(words[:number] + words[number + 1 :], text, at + len(phrase))
        for number, phrases in enumerate(words)
        for phrase in phrases
        for at in range(start, len(text))
    )


@pytest.mark.parametrize("words", list(permutations([[1, 2], [1]])))
def test_a_word_that_another_begins_with(words: Any) -> None:
    found = Words(words)
    assert found.complete(read(found, [1, 5, 1, 2]))
    assert found.complete(read(found, [1, 2, 5, 1]))
    assert not found.complete(read(found, [5, 1, 2, 5]))  # a token counts for one word only


@pytest.mark.parametrize("shared", [[1], [1, 2]])
def test_words_that_can_stand_in_for_each_other(shared: list[int]) -> None:
    """There are more than 10^5 ways to read these texts."""
    words = Words([[shared, [10 + number]] for number in range(20)])
    progress = read(words, shared * 10 + [9])
    assert len(progress) <= 65
    assert len(progress[0].met) == 10
    for token in words.next_tokens(progress):
        assert words.bank(words.after(progress, token)) > words.bank(progress)
    alike = Words([shared] * 20)
    assert len(read(alike, shared * 10)) == 1


@given(
    st.lists(st.lists(PHRASE, min_size=1, max_size=2), min_size=1, max_size=3), st.lists(TOKENS, max_size=6)
)
def test_what_is_offered_leads_to_the_end(words: list[list[list[int]]], text: list[int]) -> None:
    """Each token offered brings a text one step further, so that it is complete in the end."""
    found = Words(words)
    progress = read(found, text)
    for _ in range(sum(max(map(len, phrases)) for phrases in words)):
        if found.complete(progress):
            break
        offered = found.next_tokens(progress)
        assert offered
        banks = [found.bank(found.after(progress, token)) for token in offered]
        assert min(banks) > found.bank(progress)
        progress = found.after(progress, offered[0])
    assert found.complete(progress)
    assert found.next_tokens(progress) == []


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ([1, 2, 3], True),
        ([1, 1, 2, 3], True),  # the second 1 begins anew
        ([1, 9, 2, 3], False),
        ([3, 1, 2], True),
        ([4, 1, 2, 4, 5], True),
        ([1, 3, 2], False),
    ],
)
def test_broken_phrases(text: list[int], complete: bool) -> None:
    words = Words([[1, 2], [[3], [4, 5]]])
    assert words.complete(read(words, text)) is complete


def test_words_that_begin_alike() -> None:
    words = Words([[1, 2], [1, 3]])
    assert words.complete(read(words, [1, 3, 1, 2]))
    assert words.next_tokens(read(words, [1, 3])) == [1]
    assert words.next_tokens(read(words, [1])) == [2, 3]


def test_a_phrase_within_a_phrase_is_enough() -> None:
    assert Words([[[1, 2, 3], [2], [4, 4]]]).words == (((2,), (4, 4)),)
    assert Words([[[1, 2, 3], [2], [4, 4]], [5, 5]]).shortest == 3


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ([], ValueError, "must be at least one word"),
        ([[]], ValueError, "must be at least one token id"),
        ("ab", TypeError, "must be a list of words"),
        ([5], TypeError, "must be a list of token ids"),
        ([[1, None]], TypeError, "must be an integer of at least 0; it is a token id"),
        ([[[1], []]], ValueError, "must be at least one token id"),
        ([[-1]], ValueError, "at least 0"),
    ],
)
def test_errors(words: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Words(words)
