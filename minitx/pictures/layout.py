"""Texts in figures: the fonts that they need, their widths, and their lines with marked parts.

Widths are measured, so that text of any script fits; matplotlib is imported only when something is measured.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

from minitx.pictures.figure import families, import_figure

SIZE = 10.0  # points
MOST_LINES = 150  # of a text in a figure
# Scripts that break between any two letters: the CJK ones and their punctuation.
_WIDE = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef"
_TOKEN = re.compile(rf"\n|[^\S\n\xa0]+|[{_WIDE}]|(?:[^\s{_WIDE}]|\xa0)+")  # \xa0 does not break


class Piece(NamedTuple):
    """A part of a line.

    Attributes:
        text: without spaces around.
        mark: of the part; None for unmarked text.
        gap: whether a space is before it.
    """

    text: str
    mark: Any
    gap: bool


@cache
def _renderer() -> Any:
    figure = import_figure()(figsize=(0.1, 0.1), dpi=720)  # first, since its error names the extra
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    return canvas.get_renderer()


@lru_cache(maxsize=10_000)
def width_of(text: str, size: float = SIZE, weight: str = "normal") -> float:
    """Measures a line of text in inches.

    Raises:
        ImportError: as `import_figure`.
    """
    renderer = _renderer()
    from matplotlib.font_manager import FontProperties

    font = FontProperties(family=families(), size=size, weight=weight)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # missing: measured as a box
        width: float = renderer.get_text_width_height_descent(text, font, False)[0]
    return width / 720


def shorten(text: str, room: float, size: float = SIZE, weight: str = "normal") -> str:
    """Joins a text into one line and cuts it to `room` inches with an ellipsis."""
    line = " ".join(text[:1000].split())
    if len(text) <= 1000 and width_of(line, size, weight) <= room:
        return line
    return line[: _fitting(line, "…", room, size, weight)].rstrip() + "…"


def wrap(text: str, room: float, size: float = SIZE, weight: str = "normal", most: int = 3) -> list[str]:
    """Returns a text in lines of at most `room` inches; the last of `most` lines is cut."""
    rows = break_lines([(" ".join(text.split()), None)], room, size, weight)
    lines = ["".join(" " * piece.gap + piece.text for piece in row) for row in rows]
    if len(lines) > most:
        lines[most - 1 :] = [shorten(" ".join(lines[most - 1 : most + 1]) + " …", room, size, weight)]
    return lines


def break_lines(
    parts: Sequence[tuple[str, Any]], room: float, size: float = SIZE, weight: str = "normal"
) -> list[list[Piece]]:
    """Breaks a text of several parts into lines of at most `room` inches, at spaces or between CJK letters.

    After `MOST_LINES` lines there is an ellipsis.

    Args:
        parts: text and mark of each part.
        room: width of a line.
        size, weight: of the font.
    """
    space = width_of("a a", size, weight) - width_of("aa", size, weight)
    lines: list[list[Piece]] = [[]]
    used, gap = 0.0, False
    for text, mark in parts:
        for token in _tokens(text, room, size, weight):
            if token.isspace() and token != "\xa0":
                gap = token != "\n"
                if not gap:
                    lines.append([])
                    used = 0.0
                continue
            if len(lines) > MOST_LINES:
                return [*lines[:MOST_LINES], [Piece("…", None, gap=False)]]
            width, gap = width_of(token, size, weight), gap and bool(lines[-1])
            if lines[-1] and used + gap * space + width > room:
                lines.append([])
                used, gap = 0.0, False
            if lines[-1] and lines[-1][-1].mark is mark:
                before = lines[-1].pop()
                token, first = before.text + " " * gap + token, before.gap
            else:
                first = gap
            used, gap = used + gap * space + width, False
            lines[-1].append(Piece(token, mark, first))
    return lines


def _tokens(text: str, room: float, size: float, weight: str) -> Iterator[str]:
    """Yields words, spaces, line breaks and CJK letters; words that are longer than a line in parts."""
    for token in _TOKEN.findall(text):
        while not token.isspace() and len(token) > 1 and width_of(token[:1000], size, weight) > room:
            end = max(_fitting(token[:1000], "", room, size, weight), 1)
            yield token[:end]
            token = token[end:]
        yield token


def _fitting(text: str, ending: str, room: float, size: float, weight: str) -> int:
    """Returns how many letters of a text fit into `room` inches together with an ending."""

    def _width(end: int) -> float:
        return width_of(text[:end] + ending, size, weight)

    return bisect_right(range(1, len(text) + 1), room, key=_width)


def place(line: Sequence[Piece], room: float, *, right_to_left: bool) -> list[tuple[float, Piece]]:
    """Returns the pieces of a line with the places of their left ends, in inches, as they are seen.

    Pieces of the other direction that follow one another are in its order; the renderer orders the letters
    of a piece.

    Args:
        line: one of `break_lines`.
        room: width of a line.
        right_to_left: the direction of the text.
    """
    ordered: list[Piece] = []
    start = 0
    for piece in line:
        own = is_right_to_left(piece.text, default=right_to_left)
        start = len(ordered) if own == right_to_left else start
        ordered.insert(start, piece)
        start = len(ordered) if own == right_to_left else start
    space = width_of("a a") - width_of("aa")
    places, x = [], 0.0
    for number, piece in enumerate(ordered):
        x += space * (piece.gap and number > 0)
        width = width_of(piece.text)
        places.append((room - x - width if right_to_left else x, piece))
        x += width
    return places


def is_right_to_left(text: str, *, default: bool = False) -> bool:
    """Whether the first letter that has a direction is Hebrew, Arabic or the like."""
    for character in text:
        kind = unicodedata.bidirectional(character)
        if kind in ("L", "R", "AL"):
            return kind != "L"
    return default
