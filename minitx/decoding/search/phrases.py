"""How far a text has come with the words that it must hold.

A word is one phrase, or several of which one will do; a phrase is a run of tokens. A token counts for one
word only, so no two words overlap. Which one it counts for can be open: with the words "a" and "a b", the "a"
of a text may be the first, or the beginning of the second. So all ways to read a text are followed side by
side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from minitx.decoding.parameters import check_ids, check_sequences

Phrase = tuple[int, ...]

# So many ways to read a text are followed, those that have come furthest. To come to more, it takes eight
# words that can stand in for each other.
_MOST_READINGS = 64


@dataclass(frozen=True)
class Reading:
    """One way to read a text.

    Attributes:
        met: the numbers of the words that it holds.
        word: the number of the one that it is in the middle of; None if of none.
        seen: that word's tokens so far.
    """

    met: frozenset[int] = frozenset()
    word: int | None = None
    seen: Phrase = ()

    def surpasses(self, other: Reading) -> bool:
        """Whether all that can come of the other reading can come of this one, and it is another one."""
        if self == other or not other.met <= self.met:
            return False
        if (self.word, self.seen) == (other.word, other.seen):
            return True
        return self.word is None and (other.word is None or other.word in self.met)


# The ways to read a text, those that have come furthest first.
Progress = tuple[Reading, ...]

START: Progress = (Reading(),)


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
        check_sequences("force_words_ids", words)
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
        return len(progress[0].met) == len(self.words)

    def bank(self, progress: Progress) -> int:
        """How far the text has come: texts of one bank compete with each other."""
        return self._distance(progress[0])

    def next_tokens(self, progress: Progress) -> list[int]:
        """The tokens that bring the text forward, in any of the readings that have come furthest."""
        furthest = [reading for reading in progress if self._distance(reading) == self.bank(progress)]
        found = (
            phrase[len(reading.seen)]
            for reading in furthest
            for number in self._open(reading)
            for phrase in self.words[number]
            if phrase[: len(reading.seen)] == reading.seen
        )
        return list(dict.fromkeys(found))

    def _after(self, progress: Progress, token: int) -> Progress:
        """The ways to read the text with one token more."""
        if self.complete(progress):
            return progress
        found = dict.fromkeys(longer for reading in progress for longer in self._longer(reading, token))
        ranked = sorted(found, key=self._distance, reverse=True)
        best: list[Reading] = []
        for reading in ranked:  # what surpasses it has come further, and so was before it
            if len(best) < _MOST_READINGS and not any(other.surpasses(reading) for other in best):
                best.append(reading)
        between = next(reading for reading in ranked if reading.word is None)  # stays if all words break off
        return tuple(dict.fromkeys((*best, between)))

    def _longer(self, reading: Reading, token: int) -> Iterator[Reading]:
        """What a reading may be with one token more."""
        if reading.word is None:
            yield reading  # the token counts for no word
        seen = (*reading.seen, token)
        for number in self._open(reading):
            if seen in self.words[number]:
                yield Reading(reading.met | {number})
            elif any(phrase[: len(seen)] == seen for phrase in self.words[number]):
                yield Reading(reading.met, number, seen)

    def _open(self, reading: Reading) -> list[int]:
        """The numbers of the words that the next token may count for; of equal ones, the first."""
        if reading.word is not None:
            return [reading.word]
        pending: dict[tuple[Phrase, ...], int] = {}
        for number, phrases in enumerate(self.words):
            if number not in reading.met:
                pending.setdefault(phrases, number)
        return list(pending.values())

    def _distance(self, reading: Reading) -> int:
        """How far the text has come in one reading."""
        distance = len(reading.met) * self._height
        if reading.word is not None:
            distance += self._height - self._heights[reading.word] + len(reading.seen)
        return distance


def _phrases(word: Any) -> tuple[Phrase, ...]:
    """One word's phrases. What holds "a b c" holds "b": beside "b", "a b c" is left out."""
    items = list(word) if isinstance(word, Sequence) and not isinstance(word, str) else word
    several = isinstance(items, list) and bool(items) and isinstance(items[0], Sequence)
    phrases = [check_ids("force_words_ids", phrase) for phrase in (items if several else [items])]
    return tuple(
        phrase
        for phrase in dict.fromkeys(phrases)
        if not any(phrase != other and _holds(phrase, other) for other in phrases)
    )


def _holds(phrase: Phrase, other: Phrase) -> bool:
    return any(phrase[at : at + len(other)] == other for at in range(len(phrase)))
