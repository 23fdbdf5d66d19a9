"""Decoding of masked diffusion models: a token, once filled, stays; the others remain masked.

Nie et al. 2025, "Large Language Diffusion Models", arXiv:2502.09992, fill the most confident positions,
block by block; Ye et al. 2025, "Dream 7B", arXiv:2508.15487, also choose by margin and entropy; Wu et al.
2025, "Fast-dLLM", arXiv:2505.22618, fill every position above a threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from minitx.decoding.parallel.schedule import FillStep, FillStrategy, FillUpdate, best_of
from minitx.decoding.parameters import check_size, set_frozen
from minitx.validation import ArgumentValueError, Interval, check_choice, check_number

Rule = Literal["confidence", "margin", "entropy", "random"]
_MEASURES = ("confidence", "margin")  # those that lie between 0 and 1


@dataclass(frozen=True, kw_only=True)
class Remasking(FillStrategy):
    """Fills the best masked positions at each step, block by block from left to right.

    Attributes:
        rule: which masked positions are best: those whose proposed token is most probable ("confidence"),
            whose two most probable tokens are farthest apart ("margin"), whose entropy is lowest
            ("entropy"), or any ("random").
        steps: per block: its positions are divided evenly among so many steps, the first of which fill one
            more if that leaves a remainder. None fills one position per step. LLaDA counts the steps of all
            blocks together.
        block_length: positions per block, counted among the masked ones of a row; the next block begins when
            one is full. None for one block.
        threshold: fill every position of the block whose confidence (or margin) is at least this, and at
            least the best one, instead of a fixed number of them.
    """

    rule: Rule = "confidence"
    steps: int | None = None
    block_length: int | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("rule", self.rule, ("confidence", "margin", "entropy", "random"))
        hints = {"steps": "steps per block", "block_length": "positions per block"}
        for name, hint in hints.items():
            if getattr(self, name) is not None:
                set_frozen(self, **{name: check_size(name, getattr(self, name), 1, hint)})
        if self.threshold is None:
            return
        limits = Interval(0, 1)
        set_frozen(self, threshold=check_number("threshold", self.threshold, limits, "a probability"))
        if self.rule not in _MEASURES:
            expected, hint = f"None with rule={self.rule!r}", 'it is one of "confidence" or "margin"'
            raise ArgumentValueError("threshold", self.threshold, expected, hint)
        if self.steps is not None:
            hint = "with a threshold, the number of steps depends on the model"
            raise ArgumentValueError("steps", self.steps, "None with threshold=", hint)

    @property
    def is_random(self) -> bool:
        """Whether the schedule needs a seed."""
        return self.rule == "random"

    def most_steps(self, size: int) -> int:
        """Returns the most steps that a row with `size` open positions takes."""
        length = self.block_length or max(size, 1)
        blocks = [min(length, size - start) for start in range(0, size, length)]
        return sum(min(block, self.steps or block) for block in blocks)

    def step(self, row: FillStep) -> FillUpdate:
        """Fills some positions of the first block that has masks."""
        size = len(row.ids)
        length = self.block_length or size
        first = int(row.masked.nonzero()[0]) // length * length
        place = torch.arange(size, device=row.ids.device)
        left = row.masked & (place >= first) & (place < first + length)
        scores = self._scores(row)
        count = self._count(min(length, size - first), int(left.sum()))
        chosen = best_of(scores, left, count)
        if self.threshold is not None:
            chosen |= left & (scores >= self.threshold)
        return FillUpdate(row.filled(chosen))

    def _scores(self, row: FillStep) -> Tensor:
        if self.rule == "confidence":
            return row.confidence
        if self.rule == "margin":
            return row.margin
        return -row.entropy if self.rule == "entropy" else row.random("order")

    def _count(self, block: int, left: int) -> int:
        """Returns how many positions to fill of a block of which some are left."""
        if self.threshold is not None or self.steps is None:
            return 1
        share, more = divmod(block, self.steps)
        filled = block - left
        # The first `more` steps fill one position more than the others.
        return share + 1 if filled < more * (share + 1) else share
