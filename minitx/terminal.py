"""Texts, errors, streams and progress bars of a terminal.

It would obey control characters in names and texts of a model's files.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

WIDTH = 80
# Control characters but tab and newline, and characters that reorder text or end a line unseen.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]"
)


def visible(text: str, kept: Sequence[str] = ()) -> str:
    """Returns a text with escapes in place of control characters.

    Args:
        text: any text.
        kept: sequences that stay as they are, such as those of colours.
    """
    parts = re.split(f"({'|'.join(map(re.escape, kept))})", text) if kept else [text]
    parts[::2] = [_CONTROLS.sub(_escape, part) for part in parts[::2]]
    return "".join(parts)


def escaped(content: str) -> str:
    """Returns JSON with its own escapes in place of control characters; tabs and newlines stay."""
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", content)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def mend_streams() -> None:
    """Opens streams that the shell closed (`>&-`), and escapes characters that their encodings lack."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, for good
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def readable(error: Exception) -> str:
    """Returns the message of an error on one line; of others also the class, and how to see more."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    if text and isinstance(error, ValueError | TypeError | ImportError | OSError):
        return text
    return f"{type(error).__name__}{text and ': '}{text} (--traceback shows where)"


@contextmanager
def progress_bar(total: int, title: str, unit: str, *, quiet: bool) -> Iterator[Callable[[int], Any]]:
    """Shows a progress bar on stderr, at a terminal only; yields the function that advances it."""
    if quiet or not sys.stderr.isatty():
        yield lambda advance: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=title, unit=unit, unit_scale=unit == "B", ncols=WIDTH, leave=False) as bar:
        yield bar.update
