"""How many tokens to draft: always the same number, or one per row that follows its acceptance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from minitx.decoding.parameters import check_size, set_frozen
from minitx.validation import Interval, check_number


@dataclass(frozen=True)
class DynamicLength:
    """A number of drafted tokens that each row adapts, and that ends where the draft is not confident.

    Both rules are those of transformers: after a block of which all tokens were accepted, 2 more are drafted,
    after another one 1 fewer; and a token less probable than `confidence` by the draft is its last one.

    Args:
        first: tokens of the first block.
        most: the most tokens of a block.
        confidence: from 0, for every token, to 1. Drafts that draw nothing from a model ignore it.
    """

    first: int = 5
    most: int = 20
    confidence: float = 0.4

    def __post_init__(self) -> None:
        most = check_size("most", self.most, 1, "the most tokens of a block")
        first = check_size("first", self.first, 1, "the tokens of the first block")
        confidence = check_number("confidence", self.confidence, Interval(0, 1), "0 ends no draft")
        set_frozen(self, most=most, first=min(first, most), confidence=confidence)


@dataclass
class Lengths:
    """The number of tokens to draft next, per row of a generation.

    Attributes:
        most: the largest number.
        confidence: as in `DynamicLength`; 0 for a fixed number.
        counts: row -> its number, where it is not the first one.
    """

    first: int
    most: int
    confidence: float = 0.0
    adapts: bool = False
    counts: dict[int, int] = field(default_factory=dict)

    def of(self, rows: Sequence[int]) -> Tensor:
        """Returns the numbers of these rows, (R,) long."""
        return torch.tensor([self.counts.get(row, self.first) for row in rows])

    def update(self, rows: Sequence[int], proposed: Sequence[int], accepted: Sequence[int]) -> None:
        """Adapts the numbers of rows to the outcome of a block."""
        if not self.adapts:
            return
        for row, drafted, kept in zip(rows, proposed, accepted, strict=True):
            if drafted:
                change = 2 if kept == drafted else -1
                self.counts[row] = min(max(1, self.counts.get(row, self.first) + change), self.most)
