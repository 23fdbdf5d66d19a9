"""Guidance by a function that scores candidate texts. R rows, V vocabulary, K candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minitx.decoding.guidance.base import Guidance
from minitx.decoding.parameters import check_size, set_frozen
from minitx.decoding.processors.context import Context
from minitx.validation import ArgumentTypeError, ArgumentValueError, Interval, check_callable, check_number

_ANY = Interval(-torch.inf, torch.inf, open_low=True, open_high=True)


@dataclass(frozen=True, repr=False)
class ScoreFunction(Guidance):
    """Adds weight * score to the log-probabilities of the k best tokens; others get -inf.

    The score is that of the text with the token. With the log-probability of an attribute it is FUDGE (Yang
    and Klein 2021, arXiv:2104.05218), with a reward model ARGS (Khanov et al. 2024,
    arXiv:2402.01694); GeDi and controlled decoding are the same with their scores.

    Args:
        function: gets lists of ids, prompt, output and candidate, for all rows and candidates at once;
            returns a number for each. With an encoder, the ids are the decoder's. -inf bans the candidate.
        k: at least 1, number of candidates.
        weight: a finite number; 0.0 only filters.

    Raises:
        ArgumentTypeError, ArgumentValueError: not a function, or not numbers in range.
    """

    function: Callable[[list[list[int]]], Sequence[float] | Tensor]
    k: int = 10
    weight: float = 1.0

    def combine(self, logits: Tensor, others: Sequence[Tensor], context: Context) -> Tensor:
        """See `Guidance.combine`."""
        values, ids = logits.log_softmax(dim=-1).topk(min(self.k, logits.shape[-1]))
        rows = zip(context.tokens.tolist(), context.length.tolist(), ids.tolist(), strict=True)
        texts = [[*tokens[:length], token] for tokens, length, best in rows for token in best]
        scores = self._scores(texts).to(values).view_as(values)
        combined = values + self.weight * scores if self.weight else values
        combined = combined.masked_fill(values == -torch.inf, -torch.inf)
        return torch.full_like(logits, -torch.inf).scatter_(1, ids, combined)

    def _scores(self, texts: list[list[int]]) -> Tensor:
        """Calls the function and checks what it returns, (texts,)."""
        returned: Any = self.function(texts)
        try:
            scores = torch.as_tensor(returned, dtype=torch.float32).detach()
        except (TypeError, ValueError, RuntimeError):
            raise ArgumentTypeError("function", returned, "one that returns a number per text") from None
        if scores.numel() != len(texts) or scores.dim() == 0:
            expected = f"one that returns {len(texts)} numbers, one per text, not {scores.numel()}"
            raise ArgumentValueError("function", self.function, expected)
        if bool((scores.isnan() | (scores == torch.inf)).any()):
            raise ArgumentValueError("function", self.function, "one that returns no NaN and no inf")
        return scores

    def _check(self) -> None:
        check_callable("function", self.function, "lists of ids -> a number for each")
        set_frozen(
            self,
            k=check_size("k", self.k, 1, "the number of candidates"),
            weight=check_number("weight", self.weight, _ANY, "0.0 only filters"),
        )
