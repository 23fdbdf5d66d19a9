"""Text helpers of summaries, reports and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

WIDTH = 80
UNITS = ("B", "KB", "MB", "GB", "TB")


def human(size: int) -> str:
    """Format a number of bytes: 1,500,000 -> "1.5 MB"."""
    value, unit = float(size), 0
    while value >= 999.95 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{size} B" if unit == 0 else f"{value:.1f} {UNITS[unit]}"


def shorten_line(text: str, width: int) -> str:
    """Join a text into one line and cut it to `width` characters with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


def columns(names: Sequence[str], values: Sequence[str]) -> Iterator[str]:
    """Yield pairs of lines of at most 80 columns: names above their values."""
    top = bottom = ""
    for name, value in zip(names, values, strict=True):
        width = max(len(name), len(value)) + 1
        if len(top) + width > WIDTH and top:
            yield f"{top.rstrip()}\n{bottom.rstrip()}"
            top = bottom = ""
        top, bottom = f"{top}{name:<{width}}", f"{bottom}{value:<{width}}"
    yield f"{top.rstrip()}\n{bottom.rstrip()}"
