"""Text helpers of summaries, reports and pictures."""

from __future__ import annotations

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


def shorten_line(text: str, width: int) -> str:
    """Joins a text into one line and cuts it to `width` characters with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


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
