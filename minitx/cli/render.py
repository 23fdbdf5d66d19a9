"""Output of the commands: JSON, notes, colours, progress bars, in 80 columns."""

from __future__ import annotations

import codecs
import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

WIDTH = 80
GREEN, RED = "1;32", "1;31"
VERDICTS = r"\b(?:(OK|EQUAL)|DIFF|DIFFERENT|NOT FINITE)\b"


def emit(as_json: bool, value: Any, text: str, *, indent: int | None = 2) -> None:
    """Prints a result: as JSON, without indent on one line, or as text, where there is some.

    JSON has escapes where the encoding of stdout lacks characters.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    escape = codecs.lookup(encoding).name != "utf-8"
    if as_json:
        text = json.dumps(value, indent=indent, ensure_ascii=escape, allow_nan=False)
    if text:
        print(text, flush=True)


def note(text: str, command: str = "minitx") -> None:
    """Prints a line on stderr, beside the output, wrapped at the width of a terminal."""
    line = f"{command}: {text}"
    if sys.stderr.isatty():
        width = shutil.get_terminal_size((WIDTH, 24)).columns
        line = textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
    print(line, file=sys.stderr)


def paragraph(text: str) -> str:
    """A paragraph of at most 80 columns."""
    return textwrap.fill(text, WIDTH - 1, break_long_words=False, break_on_hyphens=False)


def colored(text: str, color: str = GREEN) -> str:
    """The text in a colour, at a terminal; NO_COLOR switches colours off."""
    plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR")
    return text if plain else f"\033[{color}m{text}\033[0m"


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
