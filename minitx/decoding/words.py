"""How far a text has come with the words that it must hold.

A word is one phrase, or several of which one will do; a phrase is a run of tokens. The text is read from the
left, and a token counts for one word only, so no two words overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from minitx.decoding.checks import token_ids

Phrase = tuple[int, ...]


@dataclass(frozen=True)
class Progress:
    """The state of one text.

    Attributes:
        met: the numbers of the words that it holds.
        word: the number of the one that it is in the middle of; None if of none.
        seen: that word's tokens so far.
    """

    met: frozenset[int] = frozenset()
    word: int | None = None
    seen: Phrase = ()


class Words:
    """The words that a text must hold, in any order.

    Args:
        words: each a list of ids, or a list of such lists, one of which will do.

    Raises:
        TypeError: something else.
        ValueError: no words, or an empty one.
    """

    def __init__(self, words: Any) -> None:
        if not isinstance(words, Sequence) or isinstance(words, str):
            raise TypeError(
                f"force_words_ids={words!r:.60} must be a list of words, each a list of token ids."
            )
        if not words:
            raise ValueError("force_words_ids holds no words; without any, use Beam(...).")
        self.words = tuple(_phrases(word) for word in words)
        self._heights = [max(map(len, phrases)) for phrases in self.words]
        self._height = max(self._heights)
        self.after = lru_cache(maxsize=2**14)(self._after)

    @property
    def shortest(self) -> int:
        """The least number of tokens that hold all words."""
        return sum(min(map(len, phrases)) for phrases in self.words)

    def complete(self, progress: Progress) -> bool:
        """Whether the text holds all words."""
        return len(progress.met) == len(self.words)

    def bank(self, progress: Progress) -> int:
        """How far the text has come: texts of one bank compete with each other."""
        bank = len(progress.met) * self._height
        if progress.word is not None:
            bank += self._height - self._heights[progress.word] + len(progress.seen)
        return bank

    def next_tokens(self, progress: Progress) -> list[int]:
        """The tokens that bring the text forward; of a word that it is in the middle of, only that one's."""
        if progress.word is None:
            pending = [number for number in range(len(self.words)) if number not in progress.met]
        else:
            pending = [progress.word]
        place = len(progress.seen)
        found = [
            phrase[place]
            for number in pending
            for phrase in self.words[number]
            if phrase[:place] == progress.seen and len(phrase) > place
        ]
        return list(dict.fromkeys(found))

    def _after(self, progress: Progress, token: int) -> Progress:
        """The state with one token more.

        A token that breaks a phrase sets free those that were seen, for other phrases: read again from the
        second on, "a a b" holds (a b).
        """
        if self.complete(progress):
            return progress
        seen = (*progress.seen, token)
        pending = [number for number in range(len(self.words)) if number not in progress.met]
        for number in sorted(pending, key=lambda number: number != progress.word):
            if self._leads(number, seen):
                met = seen in self.words[number]
                return Progress(progress.met | {number}) if met else Progress(progress.met, number, seen)
        again = Progress(progress.met)
        for each in seen[1:]:
            again = self.after(again, each)
        return again

    def _leads(self, number: int, seen: Phrase) -> bool:
        """Whether a phrase of the word begins with what was seen."""
        return any(phrase[: len(seen)] == seen for phrase in self.words[number])


def _phrases(word: Any) -> tuple[Phrase, ...]:
    """One word's phrases. What holds "a b c" holds "b": beside "b", "a b c" is left out."""
    items = list(word) if isinstance(word, Sequence) and not isinstance(word, str) else word
    several = isinstance(items, list) and bool(items) and isinstance(items[0], Sequence)
    phrases = [token_ids("force_words_ids", phrase) for phrase in (items if several else [items])]
    return tuple(
        phrase
        for phrase in dict.fromkeys(phrases)
        if not any(phrase != other and _holds(phrase, other) for other in phrases)
    )


def _holds(phrase: Phrase, other: Phrase) -> bool:
    return any(phrase[at : at + len(other)] == other for at in range(len(phrase)))
