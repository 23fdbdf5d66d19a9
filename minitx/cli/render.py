"""Output of the commands: JSON, tables, colours, progress bars, in 80 columns."""

from __future__ import annotations

import codecs
import json
import math
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

WIDTH = 80
MOST_COLUMNS = 10  # texts whose similarities fit beside a readable part of each text
GREEN, RED = "1;32", "1;31"
VERDICTS = r"\b(?:(OK|EQUAL)|DIFF|DIFFERENT|NOT FINITE)\b"


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Prints JSON, with escapes where the encoding of stdout lacks characters; without indent on one line."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    escape = codecs.lookup(encoding).name != "utf-8"
    print(json.dumps(value, indent=indent, ensure_ascii=escape, allow_nan=False), flush=True)


def finite(value: float) -> float | None:
    """None for infinity and NaN, which JSON lacks."""
    return value if math.isfinite(value) else None


def note(text: str) -> None:
    """Prints a line on stderr, beside the output."""
    print(f"minitx: {text}", file=sys.stderr)


def say(text: str) -> None:
    """Prints a paragraph of at most 80 columns."""
    print(textwrap.fill(text, WIDTH - 1, break_long_words=False, break_on_hyphens=False))


def colored(text: str, color: str) -> str:
    """The text in a colour, at a terminal; NO_COLOR switches colours off."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\033[{color}m{text}\033[0m"


def colored_verdicts(text: str) -> str:
    """A report with OK in green and DIFFERENT in red."""
    return re.sub(VERDICTS, lambda match: colored(match[0], GREEN if match[1] else RED), text)


@contextmanager
def progress_bar(total: int, title: str, unit: str, *, quiet: bool) -> Iterator[Callable[[int], Any]]:
    """Shows a progress bar on stderr, at a terminal only; yields the function that advances it."""
    if quiet or not sys.stderr.isatty():
        yield lambda advance: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=title, unit=unit, unit_scale=unit == "B", ncols=WIDTH, leave=False) as bar:
        yield bar.update


def similarity_table(texts: Sequence[str], similarity: Tensor) -> str:
    """(N, N) similarities in 80 columns: a numbered text and a number per column, the nearest in green."""
    size = len(texts)
    room = min(WIDTH - 5 - 5 * size, max(len(shorten(text, WIDTH)) for text in texts))
    best = nearest(similarity)
    lines = [" " * (room + 5) + "".join(f"{i:>5}" for i in range(1, size + 1))]
    for i, text in enumerate(texts):
        values = similarity[i].tolist()
        cells = "".join(similarity_cell(value, i == j, best[i] == j) for j, value in enumerate(values))
        lines.append(f"{i + 1:>3}  {shorten(text, room):<{room}}{cells}".rstrip())
    return "\n".join(lines)


def similarity_cell(value: float, same: bool, best: bool) -> str:
    """Five columns: " .60", "-.04"; a dot for a text with itself."""
    if same:
        return "    ·"
    text = f"{round(value, 2) + 0.0:.2f}".replace("0.", ".", 1).rjust(5)  # + 0.0: no "-.00"
    return colored(text, GREEN) if best else text


def nearest(similarity: Tensor) -> list[int]:
    """Returns the index of the most similar other text for each; of a single text, itself."""
    indices: list[int] = similarity.clone().fill_diagonal_(float("-inf")).argmax(dim=1).tolist()
    return indices


def shorten(text: str, room: int) -> str:
    """The text on one line, cut to `room` columns."""
    line = " ".join(text.split())
    return line if len(line) <= room else line[: room - 1].rstrip() + "…"


def columns(names: Sequence[str], values: Sequence[str]) -> Iterator[str]:
    """Yields pairs of lines of at most 80 columns: names above their values."""
    top = bottom = ""
    for name, value in zip(names, values, strict=True):
        width = max(len(name), len(value)) + 1
        if len(top) + width > WIDTH and top:
            yield f"{top.rstrip()}\n{bottom.rstrip()}"
            top = bottom = ""
        top, bottom = f"{top}{name:<{width}}", f"{bottom}{value:<{width}}"
    yield f"{top.rstrip()}\n{bottom.rstrip()}"
