"""Mask-predict: all masks are filled at once, then the least confident tokens are masked and filled again.

Ghazvininejad et al. 2019, "Mask-Predict: Parallel Decoding of Conditional Masked Language Models",
arXiv:1904.09324, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from minitx.decoding.parallel.schedule import FillStep, FillStrategy, FillUpdate, best_of
from minitx.decoding.parameters import check_size, set_frozen


@dataclass(frozen=True, kw_only=True)
class MaskPredict(FillStrategy):
    """Fills all masks at each of `steps` steps, and masks ever fewer of them again.

    After step t of T, the floor(N (T - t) / T) of a row's N tokens with the lowest probability are masked
    again. A token that stays keeps the probability with which it was chosen. One step fills every mask with
    the best token by itself.

    Attributes:
        steps: T, the number of forward passes. Fewer are made where no token is masked again.
    """

    steps: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        set_frozen(self, steps=check_size("steps", self.steps, 1, "the number of forward passes"))

    def most_steps(self, size: int) -> int:
        """Returns the most steps that a row with `size` open positions takes."""
        return self.steps

    def step(self, row: FillStep) -> FillUpdate:
        """Fills the masks, then masks the least probable tokens; the state has the probabilities."""
        before = row.confidence if row.state is None else row.state
        confidence = torch.where(row.masked, row.confidence, before)
        count = len(row.ids) * (self.steps - row.number) // self.steps
        again = best_of(-confidence, torch.ones_like(row.masked), count)
        return FillUpdate(row.filled(row.masked).masked_fill(again, row.mask_token_id), state=confidence)
