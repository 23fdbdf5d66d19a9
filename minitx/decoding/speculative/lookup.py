"""Prompt lookup: the draft is copied from earlier in the text (A. Saxena 2023, prompt-lookup-decoding)."""

from __future__ import annotations

from dataclasses import dataclass

from minitx.decoding.parameters import check_size, set_frozen
from minitx.decoding.speculative.draft import Draft, DraftCall, HistoryDrafter
from minitx.validation import ArgumentValueError


@dataclass(frozen=True)
class PromptLookup(Draft):
    """Proposes the tokens that followed the last tokens of the row where they occurred before.

    The longest match of at most `max_ngram` tokens counts, and of several equally long ones the first, after
    which the most text follows. It costs no model, and serves where the output repeats the prompt: summaries,
    code, answers about a document.

    Args:
        max_ngram: the most tokens that are compared.
        min_ngram: the fewest.
    """

    max_ngram: int = 3
    min_ngram: int = 1

    def __post_init__(self) -> None:
        least = check_size("min_ngram", self.min_ngram, 1, "the fewest tokens that must match")
        most = check_size("max_ngram", self.max_ngram, 1, "the most tokens that are compared")
        if least > most:
            raise ArgumentValueError("min_ngram", least, f"at most max_ngram={most}")
        set_frozen(self, min_ngram=least, max_ngram=most)

    def start(self, call: DraftCall) -> HistoryDrafter:
        """Returns the drafter; it needs no model."""
        return HistoryDrafter(
            lambda tokens, _, most: self.continuation(tokens, most), len(call.session.logits)
        )

    def continuation(self, tokens: list[int], most: int) -> list[int]:
        """Returns up to `most` tokens that followed the last tokens earlier; none without a match."""
        for size in range(min(self.max_ngram, len(tokens) - 1), self.min_ngram - 1, -1):
            start = find(tokens, tokens[-size:], len(tokens) - size - 1)
            if start >= 0:
                return tokens[start + size : start + size + most]
        return []


def find(tokens: list[int], pattern: list[int], last: int) -> int:
    """Returns the first index up to `last` at which the pattern starts, -1 if there is none."""
    start = 0
    while True:
        try:
            start = tokens.index(pattern[0], start, last + 1)
        except ValueError:
            return -1
        if tokens[start : start + len(pattern)] == pattern:
            return start
        start += 1
