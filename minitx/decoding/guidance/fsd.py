"""Frustratingly simple decoding: the text so far is a language model of what not to say.

R rows, L history, V vocabulary, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from minitx.decoding.guidance.base import Guidance
from minitx.decoding.parameters import check_size, set_frozen
from minitx.decoding.processors.context import Context
from minitx.validation import Interval, check_number


@dataclass(frozen=True, repr=False)
class FSD(Guidance):
    """FSD: penalises tokens that an n-gram model of the row's own text predicts (arXiv:2305.12675).

    The score of the k most probable tokens is (1 - alpha) * p - alpha * q, where q is a smoothed n-gram model
    of prompt and output; others get -inf. From the longest context to the shortest, a token that followed it
    c times gets the part `smoothing` of what is left, times c / (times the context occurred); the shortest
    context, the empty one, gets the rest. This is the authors' implementation, without stop words.

    The scores are no log-probabilities, so that only `Greedy` takes them.

    Args:
        alpha: in [0, 1]; 0.0 chooses the most probable token.
        n: at least 1, length of the n-grams.
        k: at least 1, number of candidates.
        smoothing: in [0, 1].

    Raises:
        ArgumentTypeError, ArgumentValueError: not numbers, or out of range.
    """

    alpha: float = 0.4
    n: int = 2
    k: int = 3
    smoothing: float = 0.9

    greedy_only: ClassVar[bool] = True

    def combine(self, logits: Tensor, others: Sequence[Tensor], context: Context) -> Tensor:
        """See `Guidance.combine`."""
        probabilities, ids = logits.softmax(dim=-1).topk(min(self.k, logits.shape[-1]))
        scores = (1 - self.alpha) * probabilities - self.alpha * self.repetition(ids, context)
        scores = scores.masked_fill(logits.gather(1, ids) == -torch.inf, -torch.inf)
        return torch.full_like(logits, -torch.inf).scatter_(1, ids, scores)

    def repetition(self, ids: Tensor, context: Context) -> Tensor:
        """Returns q of candidates: ids (R, K) -> (R, K) float32; 0 for a text shorter than n - 1 tokens."""
        tokens, valid = context.tokens, context.valid()
        recent = context.last(self.n - 1)
        q = torch.zeros(ids.shape, device=ids.device)
        left = torch.ones_like(q)
        for size in range(self.n - 1, -1, -1):
            follows = valid.clone()  # (R, L): the `size` tokens before this one are the last ones
            for back in range(1, size + 1):
                follows[:, :back] = False
                follows[:, back:] &= tokens[:, :-back] == recent[:, -back, None]
            counts = (follows[:, None] & (tokens[:, None] == ids[:, :, None])).sum(dim=-1)
            total = follows.sum(dim=-1, keepdim=True)
            share = self.smoothing * counts / (total + 1) if size else counts / total
            q = torch.where(counts > 0, q + left * share, q)
            left = torch.where(counts > 0, left * (1 - self.smoothing), left)
        return q.where(context.length[:, None] >= self.n - 1, 0.0)

    def _check(self) -> None:
        share = Interval(0, 1)
        set_frozen(
            self,
            alpha=check_number("alpha", self.alpha, share, "0.0 penalises nothing"),
            n=check_size("n", self.n, 1, "the length of the n-grams"),
            k=check_size("k", self.k, 1, "the number of candidates"),
            smoothing=check_number("smoothing", self.smoothing, share, "the part of the longest context"),
        )
