"""Cells of a table: tokens grouped by column and row, and the selection of cells (arXiv:2004.02349).

A token of a table has a column and a row, counted from 1; row 0 has the names of the columns. Tokens of the
question and padding are in column 0 and row 0, which count as one more cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minitx.config import CellSelection

COLUMN, ROW = 1, 2  # kinds of token types; kind 0 is the segment
OFF = -10_000.0  # added to logits whose probability is 0
TINY = 1e-10  # added to denominators


def cell_positions(types: Tensor, columns: int, rows: int) -> Tensor:
    """Numbers the tokens of each cell by their distance from its first token: (B, T, K) -> (B, T).

    Args:
        types: (B, T, K) token types.
        columns: number of types of columns.
        rows: number of types of rows.
    """
    cell = types[..., COLUMN] * rows + types[..., ROW]
    place = torch.arange(cell.shape[1], device=cell.device).expand_as(cell)
    last = place.new_full((len(cell), columns * rows), cell.shape[1])
    return place - last.scatter_reduce(1, cell.long(), place, "amin").gather(1, cell.long())


@dataclass(frozen=True)
class Cells:
    """The cells of a batch of tables; those of one row of the batch are numbered row by row.

    Attributes:
        index: (B, T) cell of each token.
        column: (cells,) column of each cell.
        present: (B, cells) share of the tokens of a cell that are attended; 0 without tokens.
        columns: number of columns, the first of which is that of the question.
    """

    index: Tensor
    column: Tensor
    present: Tensor
    columns: int

    @classmethod
    def of(cls, types: Tensor, attended: Tensor, config: CellSelection) -> Cells:
        """Groups tokens by their column and row: (B, T, K), (B, T)."""
        columns, rows = config.max_num_columns, config.max_num_rows
        row, column = types[..., ROW].clamp(max=rows - 1), types[..., COLUMN].clamp(max=columns - 1)
        index = (row * columns + column).long()
        number = torch.arange(rows * columns, device=types.device)
        return cls(index, number % columns, mean_by(index, attended.float(), len(number)), columns)

    def mean(self, x: Tensor) -> Tensor:
        """Returns the mean of each cell's tokens, 0 without any: (B, T) -> (B, cells)."""
        return mean_by(self.index, x, len(self.column))

    def sum_by_column(self, x: Tensor) -> Tensor:
        """Sums over the cells of each column: (B, cells) -> (B, columns)."""
        return x.view(len(x), -1, self.columns).sum(dim=1)

    def to_tokens(self, x: Tensor) -> Tensor:
        """Returns the value of each token's cell: (B, cells) -> (B, T)."""
        return x.gather(1, self.index)


def mean_by(index: Tensor, x: Tensor, count: int) -> Tensor:
    """Returns the mean of the values with each index, 0 without any: (B, T), (B, T) -> (B, count)."""
    zeros = x.new_zeros(len(x), count)
    number = zeros.scatter_add(1, index, torch.ones_like(x))
    return zeros.scatter_add(1, index, x) / number.clamp(min=1)


def column_logits(x: Tensor, cells: Cells, *, allow_empty: bool) -> Tensor:
    """Returns the logits of the columns, the means over their cells: (B, T) -> (B, columns).

    Args:
        x: (B, T) logits of the tokens.
        cells: of the tables.
        allow_empty: column 0, which means no column, can be selected.
    """
    count = cells.sum_by_column(cells.present)
    logits = cells.sum_by_column(cells.mean(x) * cells.present) / (count + TINY)
    off = count < 0.5
    off[:, 0] = not allow_empty
    return logits + OFF * off


def select_column(logits: Tensor, columns: Tensor, cells: Cells) -> Tensor:
    """Leaves the cells of the likeliest column, none for column 0: (B, cells), (B, columns) -> (B, cells)."""
    chosen = (cells.column == columns.argmax(dim=-1, keepdim=True)) & (cells.column > 0)
    return logits + OFF * (1 - cells.present * chosen)
