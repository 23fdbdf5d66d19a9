"""`minitx strategies`: the catalogue of decoding."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING

from minitx.cli.options import Argument, command
from minitx.cli.render import colored, emit, show
from minitx.cli.source import Source
from minitx.terminal import WIDTH

if TYPE_CHECKING:
    from minitx.decoding.catalogue import Entry


@command(Argument("words", "[WORD ...]", "only lines with all of these words"))
def strategies(source: Source, words: tuple[str, ...], json: bool) -> None:
    """Lists the strategies; those that match WORD in detail."""
    from minitx.decoding.catalogue import SECTIONS, entries

    wanted = [word.lower() for word in words]
    matching = [entry for entry in entries() if all(word in _text(entry) for word in wanted)]
    if not matching:
        raise ValueError(f"no strategy has {' and '.join(words)!r:.60}; minitx strategies lists all.")
    for number, (section, members) in enumerate(groupby(matching, lambda entry: entry.section)):
        if not json:
            show("\n" * (number > 0) + colored(SECTIONS[section]))
        for entry in members:
            emit(json, asdict(entry), _details(entry) if words else _line(entry), indent=None)


def _text(entry: Entry) -> str:
    return " ".join(str(value) for value in asdict(entry).values()).lower()


def _place(entry: Entry) -> str:
    """Returns how to use it, or where it is described."""
    if entry.recipe:
        return f"recipe: docs/decoding/{entry.recipe}"
    return f"not here: {entry.absent}" if entry.absent else entry.code


def _line(entry: Entry) -> str:
    """Returns number, name and summary, and below them the call."""
    first = f"{entry.row:>4}  {entry.name}: {entry.summary}"
    return f"{_wrapped(first)}\n      {_place(entry):.73}"


def _details(entry: Entry) -> str:
    """Returns all cells, one below the other."""
    cells = {"does": entry.summary, "use it": entry.use, "costs": entry.cost, "also in": entry.libraries}
    lines = [f"      {f'{title}:':<9}{text}" for title, text in (cells | {"here": _place(entry)}).items()]
    return "\n".join([f"{entry.row:>4}  {colored(entry.name)}", *map(_wrapped, lines)])


def _wrapped(line: str) -> str:
    indent = " " * (15 if line.startswith("      ") else 6)
    return textwrap.fill(
        line, WIDTH - 1, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
