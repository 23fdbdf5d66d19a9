"""Drawings of results, each as text for a terminal, as HTML and as a figure: bars, marked texts, tables."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from minitx.io import write_atomically
from minitx.pictures.figure import FORMATS, check_picture_path, import_figure, save_figure
from minitx.pictures.text import WIDTH, columns_of, fill, shorten_line

OPEN, CLOSE = "\ue000", "\ue001"  # around a marked part, for private use
Highlight = Callable[[str], str]
# Light backgrounds on which black text has a contrast of at least 10; after Okabe and Ito's palette, which
# differs with any colour vision.
COLORS = ("#f6d58f", "#a8d8f0", "#9fdcc4", "#f2b8a0", "#e3bfd4", "#f3ec9e", "#b9c9ec", "#d9d9d9")
BAR_COLOR = "#0072b2"
BAR_WIDTH = 30
LINE = 72  # columns of a marked text in a figure
LETTER = 10 * 0.602 / 72  # width of a letter of 10 points in inches, in DejaVu Sans Mono
PAGE = "font-family: sans-serif; line-height: 1.7; max-width: 50em"


class Drawing(ABC):
    """A result that can be shown; a notebook displays its HTML."""

    @abstractmethod
    def text(self, highlight: Highlight = str) -> str:
        """Returns lines of at most 80 columns.

        Args:
            highlight: marks the important parts, such as with a colour.
        """

    @abstractmethod
    def html(self) -> str:
        """Returns an element of HTML, without scripts."""

    @abstractmethod
    def figure(self) -> Any:
        """Returns a figure of matplotlib.

        Raises:
            ImportError: matplotlib is not installed; the message names the extra.
        """

    def save(self, path: str | Path) -> Path:
        """Writes an .html, .png or .svg file, all or nothing.

        Raises:
            ValueError: another kind of file.
            ImportError: as `figure`.
        """
        checked = check_drawing_path(path)
        if checked.suffix.lower() != ".html":
            return save_figure(self.figure(), checked)
        page = f'<!doctype html><meta charset="utf-8"><title>minitx</title>\n{self.html()}\n'
        checked.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(checked, lambda temporary: temporary.write_text(page, encoding="utf-8"))
        return checked

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return self.html()


def check_drawing_path(path: str | Path) -> Path:
    """Returns the path of a drawing; raises ArgumentValueError for another kind of file."""
    return check_picture_path(path, (".html", *FORMATS))


@dataclass(frozen=True)
class Plain(Drawing):
    """A text, such as a translation.

    Attributes:
        content: the text.
    """

    content: str

    def text(self, highlight: Highlight = str) -> str:
        """Returns the text as it is."""
        return self.content

    def html(self) -> str:
        """Returns a paragraph that keeps line breaks."""
        return f'<div style="{PAGE}; white-space: pre-wrap" dir="auto">{escape(self.content)}</div>'

    def figure(self) -> Any:
        """Returns the text in lines."""
        return Marks(self.content, ()).figure()


@dataclass(frozen=True)
class Bars(Drawing):
    """Labels with numbers, as bars from the longest on.

    Attributes:
        title: above the bars, such as the text that was classified.
        values: label and number of each bar.
    """

    title: str
    values: Sequence[tuple[str, float]]

    def text(self, highlight: Highlight = str) -> str:
        """Returns a line per label: its name, its number, its bar."""
        most = max((abs(value) for _, value in self.values), default=0.0) or 1.0
        room = min(max((len(label) for label, _ in self.values), default=0), WIDTH - BAR_WIDTH - 12)
        lines = [shorten_line(self.title, WIDTH)] if self.title else []
        for row, (label, value) in enumerate(self.values):
            bar = "█" * round(BAR_WIDTH * max(value, 0.0) / max(most, 1.0))
            line = f"{shorten_line(label, room):<{room}}  {value:>7.4f}  {bar}".rstrip()
            lines.append(highlight(line) if row == 0 else line)
        return "\n".join(lines)

    def html(self) -> str:
        """Returns a table with a bar in each row."""
        most = max((abs(value) for _, value in self.values), default=0.0) or 1.0
        rows = "".join(
            f'<tr><td style="padding-right: 1em" dir="auto">{escape(label)}</td><td>{value:.4f}</td>'
            f'<td style="width: 20em"><div style="background: {BAR_COLOR}; height: 0.8em; '
            f'width: {100 * max(value, 0.0) / max(most, 1.0):.1f}%"></div></td></tr>'
            for label, value in self.values
        )
        title = f'<p dir="auto">{escape(self.title)}</p>' if self.title else ""
        return f'<div style="{PAGE}">{title}<table>{rows}</table></div>'

    def figure(self) -> Any:
        """Returns horizontal bars with their numbers."""
        labels = [shorten_line(label, 40) for label, _ in self.values]
        numbers = [value for _, value in self.values]
        margin = 0.4 + 0.085 * max(map(len, labels), default=0)
        width, height = margin + 5.2, 0.36 * len(labels) + (0.9 if self.title else 0.5)
        figure = import_figure()(figsize=(width, height), facecolor="white")
        bottom = 0.3 / height
        axes = figure.add_axes((margin / width, bottom, 4.4 / width, 0.36 * len(labels) / height))
        places = range(len(labels))
        axes.barh(places, numbers, color=BAR_COLOR, height=0.7)
        axes.set_yticks(places, labels, parse_math=False)
        axes.invert_yaxis()
        axes.set_xlim(min([0.0, *numbers]), max([1.0, *numbers]))
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9, length=0)
        for place, value in zip(places, numbers, strict=True):
            axes.text(max(value, 0.0), place, f" {value:.4f}", va="center", fontsize=8)
        if self.title:
            title = shorten_line(self.title, int(width / 0.085))
            figure.text(0.15 / width, 1 - 0.3 / height, title, fontsize=11, va="center", parse_math=False)
        return figure


@dataclass(frozen=True)
class Mark:
    """A marked part of a text.

    Attributes:
        start, end: in characters.
        label: such as the kind of an entity.
        score: its probability; None without one.
    """

    start: int
    end: int
    label: str = ""
    score: float | None = None

    @property
    def note(self) -> str:
        """The label with the score."""
        return f"{self.label} {self.score:.2f}".strip() if self.score is not None else self.label


@dataclass(frozen=True)
class Marks(Drawing):
    """A text with marked parts, such as its entities, or the answer in its context.

    Attributes:
        content: the text.
        marks: in any order; of overlapping ones the first in the text is shown.
        title: above the text, such as the question.
    """

    content: str
    marks: Sequence[Mark]
    title: str = ""

    def parts(self) -> list[tuple[str, Mark | None]]:
        """Returns the text in parts, each with its mark or None."""
        parts: list[tuple[str, Mark | None]] = []
        end = 0
        for mark in sorted(self.marks, key=lambda mark: (mark.start, -mark.end)):
            if mark.start >= end and mark.end > mark.start:
                parts += [(self.content[end : mark.start], None), (self.content[mark.start : mark.end], mark)]
                end = mark.end
        parts.append((self.content[end:], None))
        return [(text, mark) for text, mark in parts if text]

    def colors(self) -> dict[str, str]:
        """Returns the background colour of each label."""
        labels = dict.fromkeys(mark.label for mark in sorted(self.marks, key=lambda mark: mark.start))
        return {label: COLORS[index % len(COLORS)] for index, label in enumerate(labels)}

    def text(self, highlight: Highlight = str) -> str:
        """Returns the wrapped text; marked parts are in brackets with their labels."""
        pieces = []
        for text, mark in self.parts():
            note = f"({mark.note})" if mark and mark.note else ""
            pieces.append(text if mark is None else f"{OPEN}[{text}]{note}{CLOSE}")
        content = "".join(pieces)
        title = f"{shorten_line(self.title, WIDTH)}\n" if self.title else ""
        lines = [fill(line, WIDTH) for line in content.splitlines()]
        return title + _highlighted("\n".join(lines), highlight)

    def html(self) -> str:
        """Returns the text with coloured marks, each followed by its label in small type."""
        colors = self.colors()
        pieces = []
        for text, mark in self.parts():
            if mark is None:
                pieces.append(escape(text))
                continue
            note = f' <small style="font-weight: bold">{escape(mark.note)}</small>' if mark.note else ""
            style = f"background: {colors[mark.label]}; padding: 0.15em 0.3em; border-radius: 0.3em"
            pieces.append(f'<mark style="{style}">{escape(text)}{note}</mark>')
        title = f'<p dir="auto"><b>{escape(self.title)}</b></p>' if self.title else ""
        return f'<div style="{PAGE}; white-space: pre-wrap" dir="auto">{title}{"".join(pieces)}</div>'

    def figure(self) -> Any:
        """Returns the text in lines of equal letters, with marks as coloured boxes."""
        lines, colors = self._lines(), self.colors()
        width, height = LETTER * LINE + 0.4, 0.3 * len(lines) + (0.75 if self.title else 0.4)
        figure = import_figure()(figsize=(width, height), facecolor="white")
        if self.title:
            title = shorten_line(self.title, LINE)
            place = (0.2 / width, 1 - 0.3 / height)
            figure.text(*place, title, fontsize=11, fontweight="bold", va="center", parse_math=False)
        for number, line in enumerate(lines):
            y = (height - (0.75 if self.title else 0.35) - 0.3 * number) / height
            for column, text, mark in line:
                box = {"facecolor": colors[mark.label], "edgecolor": "none", "pad": 1.5} if mark else None
                figure.text(
                    (0.2 + LETTER * column) / width,
                    y,
                    text,
                    family="monospace",
                    fontsize=10,
                    va="center",
                    parse_math=False,
                    bbox=box,
                )
        return figure

    def _lines(self) -> list[list[tuple[int, str, Mark | None]]]:
        """Returns the wrapped text by lines: column, text and mark of each part."""
        lines: list[list[tuple[int, str, Mark | None]]] = [[]]
        column, space = 0, False
        for text, mark in self.parts():
            note = f" ({mark.note})" if mark and mark.note else ""
            for word in re.findall(r"\s+|\S+", text + note):
                if word.isspace():
                    space = True
                    continue
                gap = int(space and bool(lines[-1]))
                if column + gap + columns_of(word) > LINE and lines[-1]:
                    lines.append([])
                    column, gap = 0, 0
                if lines[-1] and lines[-1][-1][2] is mark:
                    start, before, _ = lines[-1].pop()
                    lines[-1].append((start, before + " " * gap + word, mark))
                else:
                    lines[-1].append((column + gap, word, mark))
                column, space = column + gap + columns_of(word), False
        return lines


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

    def text(self, highlight: Highlight = str) -> str:
        """Returns the table; chosen cells are in brackets."""
        cells = [
            [f"[{cell}]" if (i, j) in self.chosen else cell for j, cell in enumerate(row)]
            for i, row in enumerate(self.rows)
        ]
        sizes = [max(map(columns_of, column)) for column in zip(self.header, *cells, strict=True)]
        while sum(sizes) + 2 * len(sizes) > WIDTH and max(sizes) > 4:
            sizes[sizes.index(max(sizes))] -= 1
        lines = [shorten_line(self.title, WIDTH)] if self.title else []
        for number, row in enumerate((self.header, *cells)):
            shown = []
            for column, (cell, size) in enumerate(zip(row, sizes, strict=True)):
                text = shorten_line(cell, size)
                padding = " " * (size - columns_of(text))
                shown.append((highlight(text) if (number - 1, column) in self.chosen else text) + padding)
            lines.append("  ".join(shown).rstrip())
        return "\n".join(lines)

    def html(self) -> str:
        """Returns a table with chosen cells in a colour."""
        cell = "border: 1px solid #cccccc; padding: 0.2em 0.6em"
        head = "".join(f'<th style="{cell}">{escape(name)}</th>' for name in self.header)
        body = ""
        for i, row in enumerate(self.rows):
            for j, text in enumerate(row):
                style = cell + f"; background: {COLORS[0]}" * ((i, j) in self.chosen)
                body += "<tr>" * (j == 0) + f'<td style="{style}" dir="auto">{escape(text)}</td>'
            body += "</tr>"
        title = f'<p dir="auto"><b>{escape(self.title)}</b></p>' if self.title else ""
        table = f'<table style="border-collapse: collapse"><tr>{head}</tr>{body}</table>'
        return f'<div style="{PAGE}">{title}{table}</div>'

    def figure(self) -> Any:
        """Returns the table with chosen cells in a colour."""
        table = [[shorten_line(cell, 30) for cell in row] for row in (self.header, *self.rows)]
        sizes = [0.3 + 0.095 * max(map(columns_of, column)) for column in zip(*table, strict=True)]
        width, height = sum(sizes) + 0.4, 0.32 * len(table) + (0.8 if self.title else 0.4)
        figure = import_figure()(figsize=(width, height), facecolor="white")
        axes = figure.add_axes((0.2 / width, 0.2 / height, sum(sizes) / width, 0.32 * len(table) / height))
        axes.set_axis_off()
        colors = [
            [COLORS[0] if (i - 1, j) in self.chosen else "white" for j in range(len(row))]
            for i, row in enumerate(table)
        ]
        drawn = axes.table(
            cellText=table,
            cellColours=colors,
            colWidths=[size / sum(sizes) for size in sizes],
            cellLoc="left",
            bbox=(0, 0, 1, 1),
        )
        drawn.auto_set_font_size(False)
        drawn.set_fontsize(9)
        for (row, _), cell in drawn.get_celld().items():
            cell.set_edgecolor("#cccccc")
            cell.get_text().set_parse_math(False)
            cell.get_text().set_fontweight("bold" if row == 0 else "normal")
        if self.title:
            title = shorten_line(self.title, max(int(width / 0.09), 20))
            figure.text(0.2 / width, 1 - 0.3 / height, title, fontsize=10, va="center", parse_math=False)
        return figure


def _highlighted(text: str, highlight: Highlight) -> str:
    """Applies `highlight` to the parts between OPEN and CLOSE."""
    pattern = f"{OPEN}(.*?){CLOSE}"
    return re.sub(pattern, lambda match: highlight(match[1]), text, flags=re.DOTALL)
