"""Start and end logits to answers: the best spans of a sequence, and answers of several windows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

_MASKED = -10000.0  # logit of a token that takes no part


@dataclass(frozen=True, slots=True)
class Span:
    """A span of tokens.

    Attributes:
        score: probability of its first token times that of its last.
        first, last: indices of these tokens.
    """

    score: float
    first: int
    last: int


def span_probabilities(start: Tensor, end: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the probabilities of each token to be the first and the last of the answer.

    Args:
        start, end: (T) logits.
        allowed: (T) bool, the tokens among which the probabilities are distributed.
    """
    return (
        start.masked_fill(~allowed, _MASKED).softmax(dim=-1),
        end.masked_fill(~allowed, _MASKED).softmax(dim=-1),
    )


def best_spans(
    start: Tensor, end: Tensor, candidates: Tensor, *, top_k: int, max_answer_len: int
) -> list[Span]:
    """Returns the spans with the largest products of probabilities, the best first; equal ones in order.

    Only the diagonals of short spans are computed, not all pairs of tokens.

    Args:
        start, end: (T) probabilities.
        candidates: (T) bool, the tokens that may be the first or the last.
        top_k: most spans.
        max_answer_len: most tokens of a span.
    """
    width = min(max_answer_len, len(start))
    if not width:
        return []
    scores = start[:, None] * pad(end, (0, width - 1)).unfold(0, width, 1)
    valid = candidates[:, None] & pad(candidates, (0, width - 1)).unfold(0, width, 1)
    count = min(top_k, int(valid.sum()))
    flat = scores.masked_fill(~valid, -1.0).flatten()
    if not count:
        return []
    best = (~(flat < flat.topk(count).values[-1])).nonzero()[:, 0]  # few to sort; NaN stays
    order = best[flat[best].argsort(descending=True, stable=True)[:count]]
    rows = zip(flat[order].tolist(), order.tolist(), strict=True)
    return [Span(score, index // width, index // width + index % width) for score, index in rows]


def window_spans(
    logits: Tensor, candidates: Tensor, nulls: Tensor, *, top_k: int, max_answer_len: int
) -> tuple[list[Span], float]:
    """Returns the best spans of a window, and its score for no answer, that of the first token.

    Args:
        logits: (2, T), of start and end.
        candidates: (T) bool, the tokens of the context; the first token is no answer in any case.
        nulls: (T) bool, the tokens where models put the probability of no answer.
        top_k: most spans.
        max_answer_len: most tokens of a span.
    """
    start, end = span_probabilities(logits[0], logits[1], candidates | nulls)
    candidates = candidates.clone()
    candidates[0] = False
    spans = best_spans(start, end, candidates, top_k=top_k, max_answer_len=max_answer_len)
    return spans, float(start[0] * end[0])


def span_characters(encoding: Any, span: Span, *, words_of: int | None = None) -> tuple[int, int]:
    """Returns start and end of a span in characters of its text.

    Args:
        encoding: of the tokenizer.
        span: of its tokens.
        words_of: the text of a pair to whose words the span is extended; None: it is not.
    """
    if words_of is not None:
        words = [encoding.token_to_word(index) for index in (span.first, span.last)]
        ranges = [encoding.word_to_chars(word, words_of) for word in words if word is not None]
        if len(ranges) == 2 and ranges[0] and ranges[1]:
            return ranges[0][0], ranges[1][1]
    return encoding.offsets[span.first][0], encoding.offsets[span.last][1]


def merge_answers(answers: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merges answers whose texts differ in case only: the first one has the sum of their scores."""
    merged: dict[str, dict[str, Any]] = {}
    for answer in answers:
        key = answer["answer"].lower()
        if key in merged:
            merged[key]["score"] += answer["score"]
        else:
            merged[key] = dict(answer)
    return list(merged.values())


def rank_answers(answers: Iterable[dict[str, Any]], top_k: int) -> list[dict[str, Any]]:
    """Returns the answers with the best scores; equal ones in their order."""
    return sorted(answers, key=lambda answer: -answer["score"])[:top_k]


def allow(sequence_ids: Iterable[int | None], sequence: int) -> Tensor:
    """Returns (T) bool, the tokens of one text of a pair; None marks a special token."""
    return torch.tensor([index == sequence for index in sequence_ids], dtype=torch.bool)
