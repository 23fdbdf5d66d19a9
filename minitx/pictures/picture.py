"""`Picture`: a figure that a notebook shows; `Sheet`: the page that pictures are drawn on.

A sheet is 8 inches wide, 800 pixels at 100 per inch: letters of 8 points have 11 pixels there. Its parts are
placed in inches from the top left corner, by measured widths, so that no text covers another one.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from functools import cached_property
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from minitx.pictures.drawings import Drawing, Highlight, check_drawing_path
from minitx.pictures.figure import characters, families, import_figure, render_figure, save_figure
from minitx.pictures.layout import shorten, wrap
from minitx.validation import check_integer

PAGE_WIDTH = 8.0  # inches
PIXELS = 800  # of the width at which a picture is meant to be seen
SIZE, SMALL, TINY = 9.0, 8.0, 6.5  # points
INK, FAINT, LINE = "#1a1a1a", "#595959", "#b3b3b3"
# Okabe and Ito's palette, which differs with any colour vision; without its yellow, which is faint on white.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#1a1a1a")
BLUE, ORANGE = PALETTE[:2]
MARGIN = 0.2


class Picture(Drawing):
    """A figure with its title; a notebook shows it, and `save` writes it.

    Args:
        figure: of matplotlib.
        title: a line that describes it.
    """

    def __init__(self, figure: Any, title: str) -> None:
        self.title, self._figure = title, figure

    def figure(self) -> Any:
        """Returns the figure of matplotlib."""
        return self._figure

    def text(self, highlight: Highlight = str) -> str:
        """Returns the title and the size."""
        width, height = (round(PIXELS * inches / PAGE_WIDTH) for inches in self._figure.get_size_inches())
        return f"{self.title} ({width} x {height} pixels; .save(path) writes a .png, .svg or .html file)"

    def html(self) -> str:
        """Returns an image of 800 pixels, or of the width of the page, with the title as its text."""
        data = b64encode(self._png).decode("ascii")
        style = "max-width: 100%; height: auto; background: white"
        width = round(PIXELS * self._figure.get_figwidth() / PAGE_WIDTH)
        image = f'src="data:image/png;base64,{data}" alt="{escape(self.title)}" width="{width}"'
        return f'<img {image} style="{style}">'

    def save(self, path: str | Path, *, width: int = 2 * PIXELS) -> Path:
        """Writes a .png, .svg or .html file, all or nothing; its folder is created if it does not exist.

        Args:
            path: of the file.
            width: pixels of a .png; letters are legible from 800 on.

        Raises:
            ArgumentTypeError, ArgumentValueError: another kind of file, a folder, or not a width.
        """
        width, checked = check_integer("width", width, 100), check_drawing_path(path)
        if checked.suffix.lower() == ".html":
            return super().save(checked)
        return save_figure(self._figure, checked, width / self._figure.get_figwidth())

    def __repr__(self) -> str:
        return f"<Picture: {self.text()}>"

    def _repr_png_(self) -> bytes:
        return self._png

    @cached_property
    def _png(self) -> bytes:
        stream = BytesIO()
        render_figure(self._figure, stream, "png", 2 * PIXELS / PAGE_WIDTH)
        return stream.getvalue()


class Sheet:
    """A white figure whose parts are placed in inches from its top left corner.

    Args:
        title: at the top.
        height: of the part below the title.
        note: a second, smaller text below the title.

    Attributes:
        figure: of matplotlib.
        title: as passed.
        top: the end of the title.
    """

    def __init__(self, title: str, height: float, note: str = "") -> None:
        room = PAGE_WIDTH - 2 * MARGIN
        lines = wrap(printable(title), room, 11, "bold") if title else []
        notes = wrap(printable(note), room, SMALL, most=4) if note else []
        self.title = title
        self.top = MARGIN + 0.22 * len(lines) + 0.17 * len(notes) + 0.1 * bool(lines or notes)
        self.height = self.top + height
        self.figure = import_figure()(figsize=(PAGE_WIDTH, self.height), facecolor="white")
        for number, line in enumerate(lines):
            self.write(MARGIN, MARGIN + 0.22 * number + 0.06, line, size=11, weight="bold")
        for number, line in enumerate(notes):
            y = MARGIN + 0.22 * len(lines) + 0.17 * number + 0.07
            self.write(MARGIN, y, line, size=SMALL, color=FAINT)

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        """Adds axes without ticks at a place below the title; the last two are their size."""
        bottom = self.height - self.top - top - height
        place = (left / PAGE_WIDTH, bottom / self.height, width / PAGE_WIDTH, height / self.height)
        axes = self.figure.add_axes(place)
        axes.tick_params(length=0, labelsize=SMALL, colors=INK, pad=2)
        axes.spines[:].set_color(LINE)
        return axes

    def note(self, x: float, y: float, text: str, **style: Any) -> Any:
        """Writes a line of text at a place below the title, as `write` does."""
        return self.write(x, self.top + y, text, **style)

    def write(self, x: float, y: float, text: str, **style: Any) -> Any:
        """Writes a line of text whose left end, and middle of its height, are at a place of the sheet."""
        style = {"size": SIZE, "color": INK, "va": "center", "ha": "left"} | style
        place = (x / PAGE_WIDTH, 1 - y / self.height)
        return self.figure.text(*place, text, family=families(), parse_math=False, **style)


class Block(Protocol):
    """A part of a picture, as wide as the sheet."""

    @property
    def height(self) -> float:
        """The height in inches."""

    def draw(self, sheet: Sheet, top: float) -> None:
        """Draws it on a sheet, from `top` inches below the title on."""


def compose(title: str, blocks: Sequence[Block], note: str = "") -> Picture:
    """Draws blocks below one another.

    Args:
        title: of the picture.
        blocks: from top to bottom.
        note: below the title.
    """
    space = 0.12
    sheet = Sheet(title, sum(block.height + space for block in blocks), note)
    top = 0.0
    for block in blocks:
        block.draw(sheet, top)
        top += block.height + space
    return Picture(sheet.figure, title)


def printable(text: str) -> str:
    """Returns a text with escapes in place of characters that are not printable or that no font has."""
    known = characters()
    shown = (c if c.isprintable() and ord(c) in known else _escape(c) for c in text)
    return "".join(shown)


def _escape(character: str) -> str:
    return " " if character == "\xa0" else character.encode("unicode_escape").decode("ascii")


def label(text: str, room: float, size: float = SMALL, weight: str = "normal") -> str:
    """Returns a text that can be drawn, cut to `room` inches with an ellipsis; "·" if it is empty."""
    return shorten(printable(text), room, size, weight) or "·"
