"""Padded batches of rows, for engines that pad."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from minitx.bench.engine import Rows


def padded(rows: Rows, device: str = "cpu", *, left: bool = False, pad: int = 0) -> tuple[Tensor, Tensor]:
    """Returns ids and mask of rows, (R, T) long each.

    Args:
        rows: token ids.
        device: of the tensors.
        left: pad at the left, as generation needs.
        pad: id of the padding.
    """
    width = max(map(len, rows))
    gaps = [width - len(row) for row in rows]
    if left:
        ids = [[pad] * gap + row for row, gap in zip(rows, gaps, strict=True)]
        mask = [[0] * gap + [1] * len(row) for row, gap in zip(rows, gaps, strict=True)]
    else:
        ids = [row + [pad] * gap for row, gap in zip(rows, gaps, strict=True)]
        mask = [[1] * len(row) + [0] * gap for row, gap in zip(rows, gaps, strict=True)]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def in_batches(rows: Rows, run: Callable[[Rows], Tensor], size: int, *, by_length: bool = True) -> Tensor:
    """Runs rows in batches and returns the results in the order of the rows, (R, ...).

    Args:
        rows: token ids; where all have the same length they are one batch.
        run: a batch -> a tensor with a row for each.
        size: most rows of a batch.
        by_length: sort by length first, which saves padding; False batches them as they come.
    """
    if len({*map(len, rows)}) == 1:
        return run(rows)
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i])) if by_length else [*range(len(rows))]
    parts = [run([rows[i] for i in order[first : first + size]]) for first in range(0, len(order), size)]
    inverse = torch.empty(len(order), dtype=torch.long)
    inverse[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(parts)[inverse]
