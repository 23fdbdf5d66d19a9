"""Texts for a terminal, which would obey control characters in names and texts of a model's files."""

from __future__ import annotations

import re
from collections.abc import Sequence

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
