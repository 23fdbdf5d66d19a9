"""Text helpers of summaries, reports and pictures."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer

WIDTH = 80
UNITS = ("B", "KB", "MB", "GB", "TB")


def human(size: int) -> str:
    """Formats a number of bytes: 1,500,000 -> "1.5 MB"."""
    value, unit = float(size), 0
    while value >= 999.95 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{size} B" if unit == 0 else f"{value:.1f} {UNITS[unit]}"


def columns_of(text: str) -> int:
    """Returns the number of columns of a text in a terminal: two for a wide character, none for a mark."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.category(character) in ("Mn", "Me", "Cf") for character in text)


def cut_columns(text: str, width: int) -> str:
    """Returns as much of the start of a text as fits into `width` columns."""
    text, used = text[: 2 * width], 0
    for index, character in enumerate(text):
        used += columns_of(character)
        if used > width:
            return text[:index]
    return text


def shorten_line(text: str, width: int) -> str:
    """Joins a text into one line and cuts it to `width` columns with an ellipsis."""
    line = " ".join(text.split())
    return line if columns_of(line) <= width else cut_columns(line, width - 1).rstrip() + "…"


def fill(text: str, width: int) -> str:
    """Wraps a line of text at spaces into lines of at most `width` columns; longer words are cut."""
    lines = [""]
    for word in text.split(" "):
        size, start = columns_of(word), 0
        if lines[-1] and columns_of(lines[-1]) + 1 + size > width:
            lines.append("")
        while size > width:
            part = cut_columns(word[start : start + 2 * width], width)
            lines[-1:] = [part, ""]
            size, start = size - columns_of(part), start + len(part)
        lines[-1] += " " * bool(lines[-1]) + word[start:]
    return "\n".join(lines)


def names_of(tokenizer: Tokenizer, ids: Iterable[int]) -> list[str]:
    """Returns the tokens as the vocabulary spells them; "?" for ids that it lacks."""
    return [tokenizer.id_to_token(token) or "?" for token in ids]


def columns(names: Sequence[str], values: Sequence[str]) -> str:
    """Formats pairs of lines of at most 80 columns: names above their values."""
    lines, top, bottom = [], "", ""
    for name, value in zip(names, values, strict=True):
        width = max(len(name), len(value)) + 1
        if len(top) + width > WIDTH and top:
            lines += [top.rstrip(), bottom.rstrip()]
            top = bottom = ""
        top, bottom = f"{top}{name:<{width}}", f"{bottom}{value:<{width}}"
    return "\n".join([*lines, top.rstrip(), bottom.rstrip()])
