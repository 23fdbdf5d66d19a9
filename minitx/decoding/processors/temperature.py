"""Processors that change probabilities and keep every token. B rows, V vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minitx.decoding.parameters import NON_NEGATIVE, Numbers, Rule
from minitx.decoding.processors.base import LogitsProcessor, NumericProcessor
from minitx.decoding.processors.context import Context
from minitx.validation import ArgumentValueError


@dataclass(frozen=True)
class Temperature(NumericProcessor):
    """Divides the logits: below 1 sharpens the distribution, above 1 flattens it.

    Args:
        temperature: above 0, one or per row; 1.0 changes nothing. A row with 0 keeps only its most probable
            token (of equal ones the lowest id), so that greedy and sampled rows can share a batch.
    """

    temperature: Numbers
    rule = Rule("temperature", "1.0 changes nothing, below 1 is less random", NON_NEGATIVE, 1.0)
    elementwise = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature == 0.0:
            hint = "greedy decoding takes the most probable token"
            raise ArgumentValueError("temperature", self.temperature, "above 0", hint)

    def apply(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        temperature: Tensor | float = self.column(logits)
        if not isinstance(temperature, Tensor):
            return logits / temperature
        greedy = temperature == 0
        scaled = logits / temperature.masked_fill(greedy, 1.0)
        others = torch.ones_like(logits, dtype=torch.bool).scatter_(1, logits.argmax(-1, True), False)
        return scaled.masked_fill(greedy & others, -torch.inf)


@dataclass(frozen=True)
class Renormalize(LogitsProcessor):
    """Returns log-probabilities: the logits minus their log-sum-exp. Samplers draw the same tokens."""

    elementwise = True

    def keeps_log_probs_nonpositive(self, below: bool) -> bool:
        """See `LogitsProcessor.keeps_log_probs_nonpositive`."""
        return True

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        return logits.log_softmax(dim=-1)


@dataclass(frozen=True)
class RemoveInvalid(LogitsProcessor):
    """Replaces NaN by 0, inf and -inf by the largest and smallest finite number.

    Undoes the bans of earlier steps: where all tokens are banned, all are possible again.
    """

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        return logits.nan_to_num(nan=0.0)
