"""`Table`: names of columns and rows of cells, from any of the usual forms of a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any

from minitx.validation import ArgumentTypeError, ArgumentValueError

_FORMS = (
    "a dict of columns, a list of dicts, a list of rows that begins with the names of the columns, or a "
    "pandas DataFrame"
)


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        columns: names of the columns.
        rows: cells of each row, one per column.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        """Checks that each row has one cell per column.

        Raises:
            ArgumentValueError: a row of another length.
        """
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ArgumentValueError(f"table: row {number}", row, f"of {len(self.columns)} cells")


def as_table(table: Any) -> Table:
    """Returns a table in any of its forms as a `Table`.

    Args:
        table: a `Table`, a dict from the names of the columns to their cells, a list of dicts (one per row,
            with the same names), a list of lists whose first has the names of the columns, or a pandas
            DataFrame. Cells are strings or numbers; None is an empty cell.

    Raises:
        ArgumentTypeError: anything else, or a cell that is neither.
        ArgumentValueError: columns or rows of different lengths.
    """
    if isinstance(table, Table):
        return table
    if isinstance(table, Mapping):
        return _from_columns(table)
    if hasattr(table, "columns") and hasattr(table, "itertuples"):  # a DataFrame
        return _table(table.columns, table.itertuples(index=False, name=None))
    if not isinstance(table, Sequence) or isinstance(table, str | bytes):
        raise ArgumentTypeError("table", table, _FORMS)
    if not table:
        return Table((), ())
    if all(isinstance(row, Mapping) for row in table):
        names = list(table[0])
        for number, row in enumerate(table):
            if set(row) != set(names):
                raise ArgumentValueError(f"table[{number}]", row, f"a dict with the keys {names}")
        return _table(names, ([row[name] for name in names] for row in table))
    for number, row in enumerate(table):
        if not isinstance(row, Sequence) or isinstance(row, str | bytes):
            raise ArgumentTypeError(f"table[{number}]", row, "a list of cells", f"a table is {_FORMS}")
    return _table(table[0], table[1:])


def _from_columns(columns: Mapping[Any, Any]) -> Table:
    """Returns the table of a dict of columns."""
    for name, cells in columns.items():
        if not isinstance(cells, Iterable) or isinstance(cells, str | bytes | Mapping):
            raise ArgumentTypeError(f"table[{name!r}]", cells, "a list of cells", f"a table is {_FORMS}")
    listed = {name: list(cells) for name, cells in columns.items()}
    lengths = {len(cells) for cells in listed.values()}
    if len(lengths) > 1:
        name = next(name for name, cells in listed.items() if len(cells) != max(lengths))
        raise ArgumentValueError(f"table[{name!r}]", listed[name], f"of {max(lengths)} cells like the others")
    return _table(listed, zip(*listed.values(), strict=True))


def _table(columns: Iterable[Any], rows: Iterable[Iterable[Any]]) -> Table:
    names = tuple(as_text("the name of a column", name) for name in columns)
    return Table(names, tuple(tuple(as_text("a cell of the table", cell) for cell in row) for row in rows))


def as_text(name: str, cell: Any) -> str:
    """Returns the text of a cell; a number as `str` formats it, and None as an empty text.

    Raises:
        ArgumentTypeError: neither a string nor a number.
        ArgumentValueError: text that is not valid Unicode.
    """
    if cell is None:
        return ""
    if not isinstance(cell, str | Number):
        raise ArgumentTypeError(name, cell, "a string or a number", "format dates and others as text first")
    text = str(cell)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ArgumentValueError(name, cell, "valid Unicode, not half of a surrogate pair")
    return text
