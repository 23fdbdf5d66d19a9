"""Tables of numbers and words for a terminal, and `Grid`, a table with named axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from minitx.pictures.text import WIDTH, columns_of, cut_columns

LABEL, CELL = 24, 9  # largest columns


def render_table(corner: str, rows: Sequence[str], columns: Sequence[str], cells: list[list[str]]) -> str:
    """Returns a table of at most 80 columns; columns that do not fit follow below.

    Args:
        corner: the text above the names of the rows.
        rows: names.
        columns: names.
        cells: row by row.
    """
    names = [shorten(name, LABEL) for name in (corner, *rows)]
    room = max(map(columns_of, names))
    heads = [shorten(name, CELL) for name in columns]
    widths = [
        max(columns_of(head), *(columns_of(line[i]) for line in cells)) + 2 for i, head in enumerate(heads)
    ]
    blocks, start = [], 0
    while start < len(heads):
        end = start + 1
        while end < len(heads) and room + sum(widths[start : end + 1]) <= WIDTH:
            end += 1
        part = [heads[start:end], *(line[start:end] for line in cells)]
        lines = [
            pad(name, room)
            + "".join(pad(cell, -width) for cell, width in zip(line, widths[start:end], strict=True))
            for name, line in zip(names, part, strict=True)
        ]
        blocks.append("\n".join(line.rstrip() for line in lines))
        start = end
    return "\n\n".join(blocks)


def shorten(text: str, width: int) -> str:
    """Returns the text in at most `width` columns, with an ellipsis where it is cut."""
    text = text if text.isprintable() else text.encode("unicode_escape").decode()
    return text if columns_of(text) <= width else f"{cut_columns(text, width - 1)}…"


def pad(text: str, width: int) -> str:
    """Returns the text with spaces after it, or for a negative width before it."""
    space = " " * max(abs(width) - columns_of(text), 0)
    return text + space if width > 0 else space + text


def number(value: float) -> str:
    """Returns a number in few columns: "0.25", "-12.1", "1.2e+05"."""
    if abs(value) >= 1e4:
        return f"{value:.1e}"
    digits = 2 if abs(value) < 100 else 1
    return f"{round(value, digits) + 0.0:.{digits}f}"  # no minus before a zero


def common_ends(names: Sequence[str]) -> tuple[int, int]:
    """Returns the number of parts between dots that all names have in common, at the start and the end."""
    parts = [name.split(".") for name in names]
    shortest = min(map(len, parts)) - 1  # at least one part remains
    start = 0
    while start < shortest and len({part[start] for part in parts}) == 1:
        start += 1
    end = 0
    while end < shortest - start and len({part[-1 - end] for part in parts}) == 1:
        end += 1
    return start, end


def short_names(names: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Splits names of places into the part that they share and the rest.

    ["decoder.layers.0.residual.after", "decoder.layers.1.residual.after"] ->
    "decoder.layers.*.residual.after", ("0", "1")
    """
    start, end = common_ends(names)
    parts = [name.split(".") for name in names]
    first = parts[0]
    shared = ".".join([*first[:start], "*", *first[len(first) - end :]]) if len(names) > 1 else names[0]
    return shared, tuple(".".join(part[start : len(part) - end]) for part in parts)


@dataclass(frozen=True, eq=False, kw_only=True)
class Grid:
    """A table of numbers with named axes; `print` shows it.

    Attributes:
        values: (rows, columns).
        axes: names of the two axes, such as ("layer", "head").
        rows: names of the rows.
        columns: names of the columns.
        title: line above the table; empty for none.
    """

    values: Tensor
    axes: tuple[str, str]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    title: str = ""

    def __str__(self) -> str:
        cells = [[number(value) for value in line] for line in self.shown.tolist()]
        corner = f"{self.axes[0]} \\ {self.axes[1]}"
        fits = len(corner) <= LABEL
        table = render_table(corner if fits else "", self.rows, self.columns, cells)
        return "\n".join([*filter(None, (self.title, "" if fits else corner)), table])

    @property
    def shown(self) -> Tensor:
        """The values that `print` shows: (rows, columns)."""
        return self.values

    def top(self, k: int = 5) -> list[tuple[str, str, float]]:
        """Returns the k largest of the shown values: name of the row, name of the column, value."""
        flat = self.shown.flatten()
        best = flat.topk(min(k, len(flat)))
        width = len(self.columns)
        return [
            (self.rows[index // width], self.columns[index % width], value)
            for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
