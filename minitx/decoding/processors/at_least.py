"""A filter that leaves a beam enough tokens to go on. B rows, V vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minitx.decoding.processors.base import LogitsProcessor
from minitx.decoding.processors.context import Context
from minitx.decoding.processors.truncation import Typical


@dataclass(frozen=True)
class AtLeast(LogitsProcessor):
    """A filter that keeps so many tokens at least, the best by its measure.

    Args:
        filter: one of `truncate.py`.
        tokens: how many; at least 1.
    """

    filter: LogitsProcessor
    tokens: int = 2
    elementwise = True

    @property
    def batch_invariant(self) -> bool:
        return self.filter.batch_invariant

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        rated = self._rated(logits)
        worst = rated.topk(min(self.tokens, logits.shape[-1])).values[:, -1:]
        return torch.where(rated >= worst, logits, self.filter(logits, context))

    def _rated(self, logits: Tensor) -> Tensor:
        """(B, V): how much the filter likes each token."""
        if not isinstance(self.filter, Typical):
            return logits
        log_probabilities = logits.log_softmax(dim=-1)
        entropy = -(log_probabilities * log_probabilities.exp()).nansum(dim=-1, keepdim=True)
        return -(-log_probabilities - entropy).abs()
