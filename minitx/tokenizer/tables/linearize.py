"""A table as text after its question, the input of TAPEX (arXiv:2107.07653), which is a BART."""

from __future__ import annotations

from typing import Any

from minitx.tokenizer.tables.table import Table, as_table, as_text
from minitx.tokenizer.tokenizer import Tokenizer
from minitx.validation import check_flags, check_integer

LONGEST_CELL = 15  # tokens, `max_cell_length` in the files of most checkpoints


def linearize(table: Any, query: str = "", *, lower: bool = True) -> str:
    """Returns a question and a table as one text: "question col : a | b row 1 : x | y row 2 : ...".

    Args:
        table: any form of `as_table`; an empty one adds nothing.
        query: the question; "" for the table alone.
        lower: lower-case the text, as the files of most checkpoints state (`do_lower_case`).

    Raises:
        ArgumentTypeError, ArgumentValueError: no table, or no text.
    """
    check_flags(lower=lower)
    table, text = as_table(table), as_text("query", query)
    if table.rows and table.columns:
        lines = [f"col : {' | '.join(table.columns)}"]
        lines += [f"row {number} : {' | '.join(cells)}" for number, cells in enumerate(table.rows, 1)]
        text = f"{text} {' '.join(lines).strip()}" if text else " ".join(lines).strip()
    return text.lower() if lower else text


def shorten_cells(table: Any, tokenizer: Tokenizer, most: int = LONGEST_CELL, *, lower: bool = True) -> Table:
    """Returns a table whose cells are cut to the text of their first tokens.

    Args:
        table: any form of `as_table`.
        tokenizer: of the checkpoint.
        most: number of tokens.
        lower: as for `linearize`; a cell that is cut is lower-cased first.

    Raises:
        ArgumentTypeError, ArgumentValueError: no table, or a number below 1.
    """
    check_integer("most", most, 1)
    table = as_table(table)

    def _shortened(cell: str) -> str:
        text = cell.lower() if lower else cell
        ids = tokenizer.encode(text, add_special_tokens=False) if text.strip() else []
        return cell if len(ids) < most else tokenizer.decode(ids[:most])

    return Table(table.columns, tuple(tuple(map(_shortened, row)) for row in table.rows))


def fit_rows(table: Any, query: str, tokenizer: Tokenizer, max_length: int, *, lower: bool = True) -> Table:
    """Returns a table without the last rows, as few as its text needs to have at most `max_length` tokens.

    (transformers 4 drops rows at random.)

    Args:
        table: any form of `as_table`.
        query: the question before it.
        tokenizer: of the checkpoint.
        max_length: number of tokens, special ones included.
        lower: as for `linearize`.

    Raises:
        ArgumentTypeError, ArgumentValueError: no table, or no text, or a number below 1.
    """
    check_integer("max_length", max_length, 1)
    table = as_table(table)
    low, high = 0, len(table.rows)
    while low < high:
        middle = (low + high + 1) // 2
        text = linearize(Table(table.columns, table.rows[:middle]), query, lower=lower)
        low, high = (middle, high) if len(tokenizer.encode(text)) <= max_length else (low, middle - 1)
    return Table(table.columns, table.rows[:low])
