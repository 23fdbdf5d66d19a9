"""The output of `fill`: filled rows, and how they came about. T tokens of a row, S steps."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from minitx.tokenizer import Tokenizer
from minitx.validation import check_integer

_WIDTH = 100


@dataclass(frozen=True, eq=False, repr=False)
class FillResult:
    """Rows whose masks are filled: the samples of the first prompt, then those of the second, ...

    Attributes:
        sequences: per row (T,) long, on the CPU: all its tokens, given and filled.
        texts: per row, its text without special tokens; None without a tokenizer.
        order: per row (T,) long: the step, from 1, since which a position has its token; 0 for given ones.
        steps: per row (S + 1, T) long: its tokens at the start and after each step, with the mask token where
            a position was still, or again, masked.
        mask_token_id: of the mask token.
    """

    sequences: list[Tensor]
    texts: list[str] | None
    order: list[Tensor]
    steps: list[Tensor]
    mask_token_id: int
    _tokenizer: Tokenizer | None = field(default=None)

    def __len__(self) -> int:
        return len(self.sequences)

    def __repr__(self) -> str:
        """A line per row: its number, its steps, and its text or ids."""
        shown = [*map(repr, self.texts or ())] or [str(row.tolist()) for row in self.sequences]
        counts = [len(steps) - 1 for steps in self.steps]
        lines = (f"{i:>4}  {n:>3} steps  {s}" for i, (n, s) in enumerate(zip(counts, shown, strict=True)))
        return "\n".join(map(_cut, lines))

    def table(self, row: int = 0) -> str:
        """Returns a line per step of a row: the tokens that changed, the masks that are left, the text.

        Raises:
            ArgumentTypeError, ArgumentValueError: not the number of a row.
        """
        steps = self.steps[check_integer("row", row, 0, len(self) - 1, "the number of a row")]
        lines = ["step  new  masks  text"]
        for number, ids in enumerate(steps):
            masks = ids == self.mask_token_id
            new = int(((ids != steps[number - 1]) & ~masks).sum()) if number else 0
            lines.append(f"{number:>4} {new:>4} {int(masks.sum()):>6}  {self._shown(ids)}")
        return "\n".join(map(_cut, lines))

    def _shown(self, ids: Tensor) -> str:
        """The text of some ids with its mask tokens, without other special tokens."""
        if self._tokenizer is None:
            return " ".join("_" if i == self.mask_token_id else str(i) for i in ids.tolist())
        hidden = {*self._tokenizer.special_ids} - {self.mask_token_id}
        return self._tokenizer.decode([i for i in ids.tolist() if i not in hidden])


def fill_order(steps: Tensor, is_open: Tensor) -> Tensor:
    """Returns the step since which each position has its token: (S + 1, T), (T,) bool -> (T,) long."""
    numbers = torch.arange(1, len(steps))[:, None]
    changed = (steps[1:] != steps[:-1]) * numbers
    # Noise can have been the right token from the start.
    return torch.where(is_open, changed.amax(dim=0).clamp(min=1), 0)


def _cut(line: str) -> str:
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"
