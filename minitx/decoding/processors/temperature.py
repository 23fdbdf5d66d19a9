"""Processors that change probabilities and keep every token. B rows, V vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minitx.decoding.checks import Numbers, column, number, set_frozen
from minitx.decoding.processors.base import LogitsProcessor
from minitx.decoding.processors.context import Context


@dataclass(frozen=True)
class Temperature(LogitsProcessor):
    """Divides the logits: below 1 the probable become more probable, above 1 less.

    Args:
        temperature: above 0, one or per row; 1.0 changes nothing. A row with 0 keeps only its most probable
            token (of equal ones the lowest id), so that greedy and sampled rows can share a batch.
    """

    temperature: Numbers
    elementwise = True

    def __post_init__(self) -> None:
        meaning = "1.0 changes nothing, below 1 is less random"
        value = number("temperature", self.temperature, "[0, inf)", meaning)
        if value == 0.0:
            raise ValueError(
                "temperature=0 leaves no randomness; to always take the most probable token use Greedy(). "
                "Only in a list with one temperature per row may some be 0."
            )
        set_frozen(self, temperature=value)

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        if self.temperature == 1.0:
            return logits
        temperature: Tensor | float = column("temperature", self.temperature, logits)
        if not isinstance(temperature, Tensor):
            return logits / temperature
        greedy = temperature == 0
        scaled = logits / temperature.masked_fill(greedy, 1.0)
        best = torch.zeros_like(logits, dtype=torch.bool).scatter_(
            1, logits.argmax(dim=-1, keepdim=True), True
        )
        return scaled.masked_fill(greedy & ~best, -torch.inf)


@dataclass(frozen=True)
class Renormalize(LogitsProcessor):
    """Log-probabilities: the logits minus their log-sum-exp. Nothing changes for a selector."""

    elementwise = True

    def keeps_log_probs_nonpositive(self, below: bool) -> bool:
        return True

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        return logits.log_softmax(dim=-1)


@dataclass(frozen=True)
class RemoveInvalid(LogitsProcessor):
    """Makes every logit finite: NaN becomes 0, inf and -inf the largest and the least number.

    It undoes the bans of the steps before it: where all tokens are banned, all are possible again.
    """

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        return logits.nan_to_num(nan=0.0)
