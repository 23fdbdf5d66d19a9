"""One part of the demonstration, and how its texts are laid out in 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from minitx.models import Model
from minitx.pictures.drawings import Highlight
from minitx.pictures.text import WIDTH, columns_of
from minitx.terminal import visible

KINDS = {
    "masked-lm": "an encoder",
    "question-answering": "an encoder",
    "causal-lm": "a decoder",
    "seq2seq-lm": "an encoder-decoder",
}


@dataclass(frozen=True)
class Part:
    """A part of the demonstration.

    Attributes:
        text: of at most 80 columns.
        record: its numbers, for JSON.
    """

    text: str
    record: dict[str, Any] = field(default_factory=dict)


def heading(name: str, model: Model, action: str, highlight: Highlight) -> str:
    """Returns the first lines of a part: the checkpoint, its kind and size, and its action."""
    size = sum(parameter.numel() for parameter in model.parameters())
    text = f"{name}, {KINDS[str(model.task)]} of {size / 1e6:.1f} million parameters, {action}:"
    return paragraph(text).replace(name, highlight(name), 1)


def paragraph(text: str, indent: str = "") -> str:
    """Returns a text in lines of at most 80 columns, each after the indent."""
    options: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.fill(text, WIDTH - 1, initial_indent=indent, subsequent_indent=indent, **options)


def listed(rows: Sequence[tuple[str, str]]) -> str:
    """Returns lines of a label and a text each; the text continues below itself."""
    room = max(columns_of(label) for label, _ in rows) + 4
    lines = []
    for label, text in rows:
        start = f"  {label}".ljust(room)
        joined = visible(" ".join(text.split())) or "(nothing)"
        lines.append(textwrap.fill(joined, WIDTH - 1, initial_indent=start, subsequent_indent=" " * room))
    return "\n".join(lines)
