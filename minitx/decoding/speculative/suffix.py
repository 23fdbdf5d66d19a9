"""Suffix decoding: drafts follow earlier outputs (arXiv:2411.04975), or a datastore (arXiv:2311.08252)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from minitx.decoding.parameters import check_ids, check_size, set_frozen
from minitx.decoding.prompts import check_tokenizer
from minitx.decoding.request import GenerationRequest
from minitx.decoding.speculative.draft import Draft, DraftCall, HistoryDrafter
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentTypeError, ArgumentValueError, Interval, check_number

_Key = tuple[int, ...]


@dataclass(frozen=True)
class SuffixDraft(Draft):
    """Proposes the tokens that most often followed the last ones in past texts and in the row itself.

    The longest match of the row's last tokens counts, up to `max_match` of them. Then the most frequent next
    token is appended again and again, as long as the product of the relative frequencies is at least
    `min_frequency`. It serves agents and services whose outputs resemble earlier ones.

    Args:
        past: earlier outputs or other texts: lists of token ids, or strings.
        tokenizer: for strings; that of the model.
        max_match: the most tokens that are compared; the memory of the index grows with it.
        min_frequency: from 0 to 1.

    Raises:
        ArgumentTypeError, ArgumentValueError: not texts, strings without a tokenizer, numbers out of range.
    """

    past: Sequence[str] | Sequence[Sequence[int]] = ()
    tokenizer: Tokenizer | None = field(default=None, compare=False, repr=False)
    max_match: int = 8
    min_frequency: float = 0.1
    _index: SuffixIndex = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_tokenizer(self.tokenizer)
        size = check_size("max_match", self.max_match, 1, "the most tokens that are compared")
        least = check_number("min_frequency", self.min_frequency, Interval(0, 1), "0 ends no draft")
        past, index = tuple(self._ids(number) for number in range(self._number_of_texts())), SuffixIndex(size)
        for row in past:
            index.extend([], row)
        set_frozen(self, past=past, max_match=size, min_frequency=least, _index=index)

    def check(self, model: Any, request: GenerationRequest) -> None:
        """Checks that the past texts consist of the model's tokens."""
        largest = max((max(row, default=0) for row in self.past), default=0)
        if int(largest) >= request.vocab_size:
            raise ArgumentValueError("past", largest, f"token ids from 0 to {request.vocab_size - 1}")

    def start(self, call: DraftCall) -> HistoryDrafter:
        """Returns the drafter, which also indexes the rows."""
        count = len(call.session.logits)
        rows = [(SuffixIndex(self.max_match), [0]) for _ in range(count)]

        def _continuation(tokens: list[int], number: int, most: int) -> list[int]:
            index, seen = rows[number]
            index.extend(tokens[: seen[0]], tokens[seen[0] :])
            seen[0] = len(tokens)
            return self._follow(tokens, index, most)

        return HistoryDrafter(_continuation, count)

    def _follow(self, tokens: list[int], own: SuffixIndex, most: int) -> list[int]:
        """Returns the most frequent continuation."""
        recent, drafted, frequency = tokens[-self.max_match :], list[int](), 1.0
        while len(drafted) < most:
            for size in range(min(self.max_match, len(recent)), 0, -1):
                key = tuple(recent[-size:])
                counts = self._index.counts.get(key, Counter()) + own.counts.get(key, Counter())
                if counts:
                    break
            else:
                return drafted
            token, count = counts.most_common(1)[0]
            frequency *= count / counts.total()
            if frequency < self.min_frequency:
                return drafted
            drafted.append(token)
            recent.append(token)
        return drafted

    def _number_of_texts(self) -> int:
        if isinstance(self.past, str) or not isinstance(self.past, Sequence):
            raise ArgumentTypeError("past", self.past, "a list of strings, or of lists of token ids")
        return len(self.past)

    def _ids(self, number: int) -> tuple[int, ...]:
        text, name = self.past[number], f"past[{number}]"
        if not isinstance(text, str):
            return check_ids(name, text, empty=True)
        if self.tokenizer is None:
            raise ArgumentValueError("tokenizer", None, "a Tokenizer", f"{name} is a string")
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))


class SuffixIndex:
    """How often each token followed each sequence of at most `size` tokens.

    Attributes:
        counts: sequence -> next token -> number of times.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.counts: dict[_Key, Counter[int]] = {}

    def extend(self, before: Sequence[int], tokens: Sequence[int]) -> None:
        """Counts further tokens of a text, after those that were counted already."""
        text = [*before[-self.size :], *tokens] if before else [*tokens]
        first = len(text) - len(tokens)
        for place in range(first, len(text)):
            for start in range(max(0, place - self.size), place):
                self.counts.setdefault(tuple(text[start:place]), Counter())[text[place]] += 1
