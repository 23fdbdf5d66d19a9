"""Drawings of results, each as text for a terminal, as HTML and as a figure: texts, bars, marked texts.

Those in rows and columns are in `grids.py`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from math import isfinite
from pathlib import Path
from typing import Any

from minitx.io import write_atomically
from minitx.pictures.figure import FORMATS, import_figure, save_figure
from minitx.pictures.layout import (
    SIZE,
    break_lines,
    is_right_to_left,
    place,
    shorten,
    width_of,
    wrap,
)
from minitx.pictures.text import WIDTH, columns_of, fill, shorten_line
from minitx.validation import check_output

OPEN, CLOSE, JOINED = "\ue000", "\ue001", "\ue002"  # around a marked part; a space within a note
Highlight = Callable[[str], str]
# Light backgrounds on which black text has a contrast of at least 10; after Okabe and Ito's palette, which
# differs with any colour vision.
COLORS = ("#f6d58f", "#a8d8f0", "#9fdcc4", "#f2b8a0", "#e3bfd4", "#f3ec9e", "#b9c9ec", "#d9d9d9")
BAR_COLOR = "#0072b2"
BAR_WIDTH = 30
MOST_BARS = 40  # of a long list; its HTML has all
NUMBER = 11  # columns of a number between its label and its bar
ROOM = 6.6  # inches of a line of a marked text
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
        """Writes an .html, .png or .svg file, all or nothing; its folder is created if it does not exist.

        Raises:
            ValueError: another kind of file, or a folder.
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
    """Returns the path of a drawing; errors are those of `check_output`."""
    return check_output("path", path, (".html", *FORMATS))


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
    """Labels with numbers, as bars.

    Attributes:
        title: above the bars, such as the text that was classified.
        values: label and number of each bar; a label without a number is the heading of those after it.
    """

    title: str
    values: Sequence[tuple[str, float | None]]

    def shown(self) -> tuple[list[tuple[str, float | None]], int]:
        """Returns the first bars, as many of each group, and the number of those that are left out."""
        groups: list[list[tuple[str, float | None]]] = [[]]
        for label, value in self.values:
            if value is None:
                groups.append([])
            groups[-1].append((label, value))
        groups = [group for group in groups if group]
        most = max(MOST_BARS // max(len(groups), 1), 1)
        bars = [row for group in groups[:MOST_BARS] for row in group[: most + (group[0][1] is None)]]
        number = sum(value is not None for _, value in self.values)
        return bars, number - sum(value is not None for _, value in bars)

    def text(self, highlight: Highlight = str) -> str:
        """Returns a line per label: its name, its number, its bar; the first of each group is highlighted."""
        values, more = self.shown()
        longest = max((columns_of(label) for label, value in values if value is not None), default=0)
        size = max(min(BAR_WIDTH, WIDTH - NUMBER - longest), BAR_WIDTH // 3)
        room = min(longest, WIDTH - NUMBER - size)
        lines, is_first = [shorten_line(self.title, WIDTH)] if self.title else [], True
        for label, value in values:
            if value is None:
                lines += ["", shorten_line(label, WIDTH)]
                is_first = True
                continue
            name = shorten_line(label, room)
            name += " " * (room - columns_of(name))
            line = f"{name}  {value:>7.4f}  {'█' * round(size * self._share(value))}".rstrip()
            lines.append(highlight(line) if is_first else line)
            is_first = False
        return "\n".join([*lines, *[f"… {more} more"] * bool(more)])

    def html(self) -> str:
        """Returns a table with a bar in each row."""
        rows = ""
        for label, value in self.values:
            name = f'style="padding-right: 1em; text-align: left" dir="auto">{escape(label)}'
            if value is None:
                rows += f'<tr><th colspan="3" {name}</th></tr>'
                continue
            bar = f"background: {BAR_COLOR}; height: 0.8em; width: {100 * self._share(value):.1f}%"
            cells = f'<td>{value:.4f}</td><td style="width: 20em"><div style="{bar}"></div></td>'
            rows += f"<tr><td {name}</td>{cells}</tr>"
        title = f'<p dir="auto">{escape(self.title)}</p>' if self.title else ""
        return f'<div style="{PAGE}">{title}<table>{rows}</table></div>'

    def figure(self) -> Any:
        """Returns horizontal bars with their numbers."""
        values, more = self.shown()
        values += [(f"… {more} more", None)] * bool(more)
        labels = [shorten(label, 3.2) for label, _ in values]
        numbers = [_finite(value) for _, value in values]
        margin = 0.4 + max(map(width_of, labels), default=0.0)
        width, size = margin + 5.2, 0.36 * max(len(labels), 1)
        title = wrap(self.title, width - 0.4, 11) if self.title else []
        figure = new_figure(width, size + 0.5, title, 11)
        height = figure.get_figheight()
        axes = figure.add_axes((margin / width, 0.3 / height, 4.4 / width, size / height))
        axes.barh(range(len(labels)), numbers, color=BAR_COLOR, height=0.7)
        axes.set_yticks(range(len(labels)), labels, parse_math=False)
        axes.set_ylim(max(len(labels), 1) - 0.5, -0.5)
        axes.set_xlim(min([0.0, *numbers]), max([1.0, *numbers]))
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9, length=0)
        for row, (_, value) in enumerate(values):
            if value is None:
                axes.get_yticklabels()[row].set_fontweight("bold")
            else:
                axes.text(max(numbers[row], 0.0), row, f" {value:.4f}", va="center", fontsize=8)
        return figure

    def _share(self, value: float) -> float:
        """Returns the length of a bar; 1 is that of the largest number, and at least of 1; NaN has none."""
        return max(_finite(value), 0.0) / self._largest

    @cached_property
    def _largest(self) -> float:
        return max([1.0, *(_finite(number) for _, number in self.values)])


def _finite(value: float | None) -> float:
    """Returns a number, or 0 if it is None, infinite or NaN."""
    return value if value is not None and isfinite(value) else 0.0


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

    def excerpt(self, margin: int, most: int | None = None) -> Marks:
        """Returns the text around the marks alone, with an ellipsis in the place of the rest.

        Args:
            margin: characters before and after a mark.
            most: number of marks; the number of further ones is noted at the end. None for all.
        """
        first = [mark for _, mark in self.parts() if mark is not None]
        if most is not None and len(first) > most:
            cropped = Marks(self.content[: first[most].start], first[:most], self.title).excerpt(margin)
            content = cropped.content.removesuffix("…").rstrip()
            return replace(cropped, content=f"{content} … {len(first) - most} more")
        content, marks, end = "", [], 0
        for text, mark in self.parts():
            start, end = end, end + len(text)
            if mark is not None:
                marks.append(replace(mark, start=len(content), end=len(content) + len(text)))
                content += text
                continue
            head = text[:margin] if start else ""  # after a mark
            tail = text[-margin:] if end < len(self.content) else ""  # before a mark
            if len(text) <= 2 * margin:
                content += text
            else:
                content += head.rsplit(" ", 1)[0] + " … " * bool(head)
                content += "… " * (not head) * bool(tail) + tail.split(" ", 1)[-1]
        content = content.rstrip() if content.endswith(" … ") else content
        return Marks(content if marks else shorten_line(self.content, 2 * margin), marks, self.title)

    def text(self, highlight: Highlight = str) -> str:
        """Returns the wrapped text; marked parts are in brackets with their labels."""
        pieces = []
        for text, mark in self.parts():
            note = f"({mark.note})".replace(" ", JOINED) if mark and mark.note else ""
            pieces.append(text if mark is None else f"{OPEN}[{text}]{note}{CLOSE}")
        lines = [fill(line, WIDTH).replace(JOINED, " ") for line in "".join(pieces).splitlines()]
        title = f"{fill(self.title, WIDTH)}\n" if self.title else ""
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
        """Returns the text in lines, with marks as coloured boxes; of a very long text the start."""
        parts = [
            (f"{text}\xa0({mark.note})".replace(" ", "\xa0") if mark and mark.note else text, mark)
            for text, mark in self.parts()
        ]
        lines, colors = break_lines(parts, ROOM), self.colors()
        title = wrap(self.title, ROOM, 11, "bold") if self.title else []
        size = 0.3 * len(lines)
        figure = new_figure(ROOM + 0.4, size + 0.4, title, 11, "bold")
        width, height = figure.get_size_inches()
        for number, line in enumerate(lines):
            y = (0.3 + size - 0.3 * (number + 1)) / height
            for x, piece in place(line, ROOM, right_to_left=is_right_to_left(self.content)):
                box = None
                if piece.mark:
                    box = {"facecolor": colors[piece.mark.label], "edgecolor": "white", "pad": 1.5}
                start = (0.2 + x) / width
                figure.text(start, y, piece.text, fontsize=SIZE, va="baseline", parse_math=False, bbox=box)
        return figure


def new_figure(
    width: float, height: float, title: Sequence[str], size: float = 10, weight: str = "normal"
) -> Any:
    """Returns a white figure with lines of a title at its top.

    Args:
        width, height: in inches, the title not included.
        title: lines.
        size, weight: of the title's font.
    """
    height += 0.24 * len(title) + 0.15 * bool(title)
    figure = import_figure()(figsize=(width, height), facecolor="white")
    for number, line in enumerate(title):
        y = 1 - (0.25 + 0.24 * number) / height
        figure.text(0.2 / width, y, line, fontsize=size, fontweight=weight, va="center", parse_math=False)
    return figure


def _highlighted(text: str, highlight: Highlight) -> str:
    """Applies `highlight` to the parts between OPEN and CLOSE."""
    pattern = f"{OPEN}(.*?){CLOSE}"
    return re.sub(pattern, lambda match: highlight(match[1]), text, flags=re.DOTALL)
