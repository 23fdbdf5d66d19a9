"""The progress of a sequence through the words that it must contain.

A word is one phrase, or several of which one suffices; a phrase is a run of tokens. A token belongs to one
word only, so words do not overlap. Which one it belongs to may be ambiguous: with the words "a" and "a b", an
"a" may be the first, or the beginning of the second. So all assignments of a sequence are tracked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from minitx.decoding.parameters import check_ids, check_sequences
from minitx.validation import ArgumentTypeError, ArgumentValueError

Phrase = tuple[int, ...]

# Only the most advanced assignments are tracked. More than these take eight interchangeable words.
_MOST_ASSIGNMENTS = 64


@dataclass(frozen=True)
class Assignment:
    """One assignment of the tokens of a sequence to words.

    Attributes:
        met: numbers of the words that are complete.
        word: number of the word that is incomplete; None if there is none.
        seen: the tokens of that word so far.
    """

    met: frozenset[int] = frozenset()
    word: int | None = None
    seen: Phrase = ()

    def surpasses(self, other: Assignment) -> bool:
        """Whether this assignment differs from the other and can reach every state that the other can."""
        if self == other or not other.met <= self.met:
            return False
        if (self.word, self.seen) == (other.word, other.seen):
            return True
        return self.word is None and (other.word is None or other.word in self.met)


# The assignments of a sequence, most advanced first.
Progress = tuple[Assignment, ...]

START: Progress = (Assignment(),)


class Words:
    """The words that a sequence must contain, in any order.

    Args:
        words: each a list of ids, or a list of such lists, of which one suffices.

    Attributes:
        words: per word its phrases.
        shortest: the least number of tokens that contain all words.

    Raises:
        ArgumentTypeError: anything else.
        ArgumentValueError: no words, or an empty one.
    """

    def __init__(self, words: Any) -> None:
        if not isinstance(words, Sequence) or isinstance(words, str):
            raise ArgumentTypeError("force_words_ids", words, "a list of words, each a list of token ids")
        if not words:
            raise ArgumentValueError("force_words_ids", words, "at least one word", "or use Beam(...)")
        check_sequences("force_words_ids", words)
        self.words = tuple(_phrases(word) for word in words)
        self._heights = [max(map(len, phrases)) for phrases in self.words]
        self._height = max(self._heights)
        self.shortest = sum(min(map(len, phrases)) for phrases in self.words)
        self.after = lru_cache(maxsize=2**14)(self._after)

    def complete(self, progress: Progress) -> bool:
        """Whether the sequence contains all words."""
        return len(progress[0].met) == len(self.words)

    def bank(self, progress: Progress) -> int:
        """Returns the bank of the sequence, its progress: sequences of one bank compete with each other."""
        return self._distance(progress[0])

    def next_tokens(self, progress: Progress) -> list[int]:
        """Returns the tokens that advance a word, in any of the most advanced assignments."""
        furthest = [one for one in progress if self._distance(one) == self.bank(progress)]
        tokens = (
            phrase[len(assignment.seen)]
            for assignment in furthest
            for number in self._open(assignment)
            for phrase in self.words[number]
            if phrase[: len(assignment.seen)] == assignment.seen
        )
        return list(dict.fromkeys(tokens))

    def _after(self, progress: Progress, token: int) -> Progress:
        """Returns the assignments after one more token."""
        if self.complete(progress):
            return progress
        assignments = dict.fromkeys(longer for one in progress for longer in self._longer(one, token))
        ranked = sorted(assignments, key=self._distance, reverse=True)
        best: list[Assignment] = []
        for assignment in ranked:  # one that surpasses it is more advanced, and so came before it
            if len(best) < _MOST_ASSIGNMENTS and not any(other.surpasses(assignment) for other in best):
                best.append(assignment)
        between = next(assignment for assignment in ranked if assignment.word is None)  # if words break off
        return tuple(dict.fromkeys((*best, between)))

    def _longer(self, assignment: Assignment, token: int) -> Iterator[Assignment]:
        """Yields the assignments that one more token makes possible."""
        if assignment.word is None:
            yield assignment  # the token belongs to no word
        seen = (*assignment.seen, token)
        for number in self._open(assignment):
            if seen in self.words[number]:
                yield Assignment(assignment.met | {number})
            elif any(phrase[: len(seen)] == seen for phrase in self.words[number]):
                yield Assignment(assignment.met, number, seen)

    def _open(self, assignment: Assignment) -> list[int]:
        """Returns the numbers of the words that the next token may belong to; of equal ones, the first."""
        if assignment.word is not None:
            return [assignment.word]
        pending = [number for number in range(len(self.words)) if number not in assignment.met]
        return sorted({self.words[number]: number for number in reversed(pending)}.values())

    def _distance(self, assignment: Assignment) -> int:
        """Returns the number of tokens that one assignment has matched, each complete word as the longest."""
        missing = 0 if assignment.word is None else self._heights[assignment.word] - len(assignment.seen)
        return (len(assignment.met) + (assignment.word is not None)) * self._height - missing


def _phrases(word: Any) -> tuple[Phrase, ...]:
    """Returns the phrases of a word. "a b c" contains "b": beside "b", it is left out."""
    items = list(word) if isinstance(word, Sequence) and not isinstance(word, str | bytes) else word
    several = isinstance(items, list) and bool(items) and isinstance(items[0], Sequence)
    phrases = [check_ids("force_words_ids", phrase) for phrase in (items if several else [items])]
    return tuple(
        phrase
        for phrase in dict.fromkeys(phrases)
        if not any(phrase != other and _contains(phrase, other) for other in phrases)
    )


def _contains(phrase: Phrase, other: Phrase) -> bool:
    return any(phrase[at : at + len(other)] == other for at in range(len(phrase)))
