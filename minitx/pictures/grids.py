"""Drawings in rows and columns: a table with chosen cells, and a matrix of similarities."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from minitx.pictures import heatmap
from minitx.pictures.drawings import COLORS, PAGE, Bars, Drawing, Highlight, new_figure
from minitx.pictures.layout import shorten, width_of, wrap
from minitx.pictures.text import WIDTH, columns_of, fill, shorten_line

MOST_ROWS, MOST_COLUMNS = 40, 8  # of a large table; its HTML has all
MOST_INCHES = 12.0
LETTERS, LEAST = 46, 15  # columns of a text beside its similarities, at most and at least


def shown(count: int, chosen: Collection[int], most: int) -> list[int | None]:
    """Returns the indices of rows or columns to show, with None in the place of those that are left out.

    Args:
        count: number of rows or columns.
        chosen: those that are shown first of all.
        most: number of those that are shown.
    """
    indices = {*sorted(chosen)[:most]}
    for index in range(count):
        if len(indices) < most:
            indices.add(index)
    places: list[int | None] = []
    for index in sorted(indices):
        if index != (places[-1] + 1 if places and places[-1] is not None else 0):
            places.append(None)
        places.append(index)
    return places + [None] * bool(places and places[-1] != count - 1)


@dataclass(frozen=True)
class Grid(Drawing):
    """A table with chosen cells.

    Attributes:
        title: above the table, such as the question and the answer.
        header: names of the columns.
        rows: cells.
        chosen: (row, column) of the chosen cells, from 0, without the header.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    chosen: frozenset[tuple[int, int]] = frozenset()

    def cells(self) -> tuple[list[list[str]], set[tuple[int, int]]]:
        """Returns the cells that are shown, the header first, and the places of the chosen ones."""
        rows = shown(len(self.rows), {i for i, _ in self.chosen}, MOST_ROWS)
        columns = shown(len(self.header), {j for _, j in self.chosen}, MOST_COLUMNS)
        table = [["…" if j is None else self.header[j] for j in columns]]
        table += [["…" if i is None or j is None else self.rows[i][j] for j in columns] for i in rows]
        chosen = {
            (row, column)
            for row, i in enumerate(rows, start=1)
            for column, j in enumerate(columns)
            if (i, j) in self.chosen
        }
        return table, chosen

    def text(self, highlight: Highlight = str) -> str:
        """Returns the table; chosen cells are in brackets."""
        cells, chosen = self.cells()
        for i, j in chosen:
            cells[i][j] = f"[{cells[i][j]}]"
        sizes = [max(map(columns_of, column)) for column in zip(*cells, strict=True)]
        while sum(sizes) + 2 * len(sizes) > WIDTH and max(sizes) > 4:
            sizes[sizes.index(max(sizes))] -= 1
        lines = [fill(self.title, WIDTH)] if self.title else []
        for i, row in enumerate(cells):
            line = []
            for j, (cell, size) in enumerate(zip(row, sizes, strict=True)):
                text = shorten_line(cell, size)
                padding = " " * (size - columns_of(text))
                line.append((highlight(text) if (i, j) in chosen else text) + padding)
            lines.append("  ".join(line).rstrip())
        return "\n".join(lines)

    def html(self) -> str:
        """Returns a table with chosen cells in a colour."""
        cell = "border: 1px solid #cccccc; padding: 0.2em 0.6em"
        head = "".join(f'<th style="{cell}">{escape(name)}</th>' for name in self.header)
        body = ""
        for i, row in enumerate(self.rows):
            for j, text in enumerate(row):
                style = cell + f"; color: black; background: {COLORS[0]}" * ((i, j) in self.chosen)
                body += "<tr>" * (j == 0) + f'<td style="{style}" dir="auto">{escape(text)}</td>'
            body += "</tr>"
        title = f'<p dir="auto"><b>{escape(self.title)}</b></p>' if self.title else ""
        table = f'<table style="border-collapse: collapse"><tr>{head}</tr>{body}</table>'
        return f'<div style="{PAGE}">{title}{table}</div>'

    def figure(self) -> Any:
        """Returns the table with chosen cells in a colour."""
        cells, chosen = self.cells()
        columns = [[shorten(cell, 2.6) for cell in column] for column in zip(*cells, strict=True)]
        sizes = [max(width_of(cell, 9, "bold") for cell in column) + 0.2 for column in columns]
        while sum(sizes) > MOST_INCHES:
            sizes[sizes.index(max(sizes))] *= 0.9
        columns = [
            [shorten(cell, size - 0.18, 9, "normal" if i else "bold") for i, cell in enumerate(column)]
            for column, size in zip(columns, sizes, strict=True)
        ]
        size = 0.32 * len(cells)
        title = wrap(self.title, max(sum(sizes), 4.0)) if self.title else []
        lines = [width_of(line) for line in title]
        figure = new_figure(max([sum(sizes), *lines]) + 0.4, size + 0.4, title)
        width, height = figure.get_size_inches()
        axes = figure.add_axes((0.2 / width, 0.2 / height, sum(sizes) / width, size / height))
        axes.set_axis_off()
        colors = [
            [COLORS[0] if (i, j) in chosen else "white" for j in range(len(row))]
            for i, row in enumerate(cells)
        ]
        drawn = axes.table(
            cellText=[list(row) for row in zip(*columns, strict=True)],
            cellColours=colors,
            colWidths=[size / sum(sizes) for size in sizes],
            cellLoc="left",
            bbox=(0, 0, 1, 1),
        )
        drawn.auto_set_font_size(False)
        drawn.set_fontsize(9)
        for (i, j), cell in drawn.get_celld().items():
            cell.PAD = 0.08 / sizes[j]
            cell.set_edgecolor("#cccccc")
            cell.get_text().set_parse_math(False)
            cell.get_text().set_fontweight("bold" if i == 0 else "normal")
        return figure


@dataclass(frozen=True)
class Matrix(Drawing):
    """Similarities of texts to one another.

    Attributes:
        labels: N texts.
        rows: (N, N) similarities.
    """

    labels: Sequence[str]
    rows: Sequence[Sequence[float]]

    def text(self, highlight: Highlight = str) -> str:
        """Returns a numbered text and a number per column; the most similar other text is highlighted.

        Of more texts than 80 columns hold, returns the similarities to the first text as bars.
        """
        cells = [[f"{round(value, 2) + 0.0:.2f}" for value in row] for row in self.rows]
        size = max(len(cell) for row in cells for cell in row) + 1
        if 5 + LEAST + size * len(cells) > WIDTH:
            pairs = zip(self.labels[1:], self.rows[0][1:], strict=True)
            ranked = sorted(pairs, key=lambda pair: -pair[1])
            return Bars(self.labels[0], ranked).text(highlight)
        texts = [shorten_line(label, LETTERS) for label in self.labels]
        room = min(max(map(columns_of, texts)), WIDTH - 5 - size * len(texts))
        lines = [" " * (room + 5) + "".join(f"{i:>{size}}" for i in range(1, len(texts) + 1))]
        for i, label in enumerate(texts):
            others = [j for j in range(len(texts)) if j != i]
            best = max(others, key=self.rows[i].__getitem__, default=i)
            numbers = [f"{cell:>{size}}" for cell in cells[i]]
            numbers[i], numbers[best] = "·".rjust(size), highlight(numbers[best])
            name = shorten_line(label, room)
            lines.append(f"{i + 1:>3}  {name}{' ' * (room - columns_of(name))}{''.join(numbers)}")
        return "\n".join(lines)

    def html(self) -> str:
        """Returns a table whose cells are the darker the more similar."""
        values = [value for i, row in enumerate(self.rows) for j, value in enumerate(row) if i != j]
        least, most = min(values, default=0.0), max(values, default=1.0)
        cell = "padding: 0.3em 0.6em; text-align: right"
        head = "".join(f'<th style="{cell}">{i}</th>' for i in range(1, len(self.labels) + 1))
        body = ""
        for i, (label, row) in enumerate(zip(self.labels, self.rows, strict=True)):
            body += f'<tr><th style="{cell}; text-align: left" dir="auto">{i + 1}&ensp;{escape(label)}</th>'
            for j, value in enumerate(row):
                share = 0.0 if i == j else 0.6 * (value - least) / ((most - least) or 1.0)
                color = f"background: rgba(0, 114, 178, {share:.2f})"
                body += f'<td style="{cell}; {color}">{round(value, 2) + 0.0:.2f}</td>'
            body += "</tr>"
        return f'<div style="{PAGE}"><table><tr><th></th>{head}</tr>{body}</table></div>'

    def figure(self) -> Any:
        """Returns a heat map."""
        return heatmap.draw([list(row) for row in self.rows], list(self.labels), None)
