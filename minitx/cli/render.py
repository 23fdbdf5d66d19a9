"""Output of the commands: JSON, notes and colours, in 80 columns."""

from __future__ import annotations

import codecs
import json
import os
import re
import shutil
import sys
import textwrap
from typing import Any, TextIO

from minitx.terminal import WIDTH, escaped, visible

GREEN, RED = "1;32", "1;31"
VERDICTS = r"\b(?:(OK|EQUAL)|DIFF|DIFFERENT|NOT FINITE)\b"


def show(text: str, end: str = "\n", file: TextIO | None = None) -> None:
    """Prints text on stdout, or on another stream, with control characters made visible."""
    print(visible(text, () if "\033" not in text else colors()), end=end, file=file, flush=True)


def emit(as_json: bool, value: Any, text: str, *, indent: int | None = 2) -> None:
    """Prints a result: as JSON, without indent on one line, or as text, where there is some.

    JSON has escapes in place of control characters, and of those that the encoding of stdout lacks.
    """
    escape = codecs.lookup(getattr(sys.stdout, "encoding", None) or "utf-8").name != "utf-8"
    if as_json:
        print(escaped(json.dumps(value, indent=indent, ensure_ascii=escape, allow_nan=False)), flush=True)
    elif text:
        show(text)


def note(text: str, command: str = "minitx") -> None:
    """Prints a line on stderr, beside the output, wrapped at the width of a terminal."""
    line = visible(f"{command}: {text}")
    if sys.stderr.isatty():
        width = shutil.get_terminal_size((WIDTH, 24)).columns
        line = textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
    print(line, file=sys.stderr)


def paragraph(text: str) -> str:
    """A paragraph of at most 80 columns."""
    return textwrap.fill(text, WIDTH - 1, break_long_words=False, break_on_hyphens=False)


def colored(text: str, color: str = GREEN) -> str:
    """The text in a colour, at a terminal; NO_COLOR switches colours off."""
    return f"\033[{color}m{text}\033[0m" if colors() else text


def colors() -> tuple[str, ...]:
    """The sequences of our colours, at a terminal; none with NO_COLOR."""
    plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR")
    return () if plain else tuple(f"\033[{color}m" for color in (GREEN, RED, "0"))


def colored_verdicts(text: str) -> str:
    """A report with OK in green and DIFFERENT in red."""
    return re.sub(VERDICTS, lambda match: colored(match[0], GREEN if match[1] else RED), text)
