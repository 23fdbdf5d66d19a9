"""A table's tokens and values, which its questions share, and the part of it that fits beside a question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import nan
from typing import Any, NamedTuple

from minitx.tokenizer.tables.options import TableOptions
from minitx.tokenizer.tables.table import Table
from minitx.tokenizer.tables.values import Value
from minitx.validation import ArgumentValueError

Cell = tuple[int, int]  # row, column, from 0


class Piece(NamedTuple):
    """A token of a table: its id, its cell and the place in the cell where its word begins.

    Row 0 has the names of the columns.
    """

    token: int
    row: int
    column: int
    start: int


@dataclass(frozen=True)
class TokenizedTable:
    """A table's tokens and values.

    Attributes:
        table: the texts.
        pieces: tokens, row by row.
        longest: number of tokens of the longest cell.
        values: of each column, the value of each row that has one.
        ranks: of each column, rank and inverse rank of each row that has one.
    """

    table: Table
    pieces: Sequence[Piece]
    longest: int
    values: Sequence[dict[int, Value]]
    ranks: Sequence[dict[int, tuple[int, int]]]

    def check_size(self, options: TableOptions, *, cuts: bool) -> int:
        """Returns the number of rows, all of them or those that truncation leaves.

        Raises:
            ArgumentValueError: too many columns, or too many rows without truncation.
        """
        rows, columns = len(self.table.rows), len(self.table.columns)
        if columns >= options.max_column_id:
            expected = f"fewer than {options.max_column_id}, max_column_id of the tokenizer"
            raise ArgumentValueError("table: number of columns", columns, expected)
        if rows >= options.max_row_id and not cuts:
            expected = f"fewer than {options.max_row_id}, max_row_id of the tokenizer"
            raise ArgumentValueError("table: number of rows", rows, expected, "or pass truncation=True")
        return min(rows, options.max_row_id - 1)

    def fit(self, options: TableOptions, budget: int | None) -> list[Piece]:
        """Returns the tokens that fit, of all cells alike.

        Cells are cut to the largest number of tokens with which all rows fit; with `cell_trim_length`, to
        that number. Rows are dropped from the end if not even one token of each cell fits.

        Args:
            options: of the tokenizer.
            budget: number of tokens of the table; None: all are needed.
        """
        rows = self.check_size(options, cuts=budget is not None)
        if budget is None:
            return list(self.pieces)
        trim = options.cell_trim_length
        longest = self.longest if trim < 0 else min(self.longest, trim)
        while True:
            words = next((n for n in range(longest + 1) if self.counts[n][max(rows, 0)] > budget), longest)
            fits = words == longest or (words > 0 and trim < 0)
            if fits or rows <= 1:
                break
            rows -= 1
        rows, words = (rows, words or 1) if fits else (rows - 1, 1)
        return [piece for piece in self.pieces if piece.row <= rows and piece.start < words]

    @cached_property
    def counts(self) -> list[list[int]]:
        """For cells cut to 1, 2, ... tokens: the tokens of the names and the first 0, 1, ... rows."""
        counts = []
        for words in range(1, self.longest + 2):
            per_row = [0] * (len(self.table.rows) + 1)
            for piece in self.pieces:
                per_row[piece.row] += piece.start < words
            counts.append(list(accumulate(per_row)))
        return counts

    def targets(self, cells: Sequence[Cell | None], answer: set[Cell]) -> dict[str, list[Any]]:
        """Returns labels and numbers of the tokens of one question.

        Args:
            cells: cell of each token.
            answer: cells that answer the question.
        """
        check_found(answer, cells)
        counts = Counter(cells)
        values = [self.values[cell[1]].get(cell[0]) if cell else None for cell in cells]
        return {
            "labels": [int(cell in answer) for cell in cells],
            "numeric_values": [value if isinstance(value, float) else nan for value in values],
            "numeric_values_scale": [float(counts[cell]) if cell else 1.0 for cell in cells],
        }


def check_found(answer: set[Cell], cells: Sequence[Cell | None]) -> None:
    """Checks that each cell of an answer has a token.

    Raises:
        ArgumentValueError: one has none.
    """
    if missing := answer - set(cells):
        hint = "its row was dropped, or its text is empty"
        raise ArgumentValueError("answers", min(missing), "cells with tokens", hint)
