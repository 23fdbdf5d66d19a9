"""The catalogue of decoding: every strategy, filter, penalty and constraint, one line each.

The Markdown tables beside this file are the catalogue; the documentation includes them, and
`minitx strategies` prints them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

# The tables, in the order of a reader: from one token to trees.
SECTIONS = {
    "selectors": "How one token is taken",
    "truncation": "Which tokens stay possible",
    "reshaping": "The shape of the distribution",
    "penalties": "Penalties, biases and lengths",
    "structured": "Structured output",
    "structured_text": "Prompts, prefixes and ends",
    "guidance": "Guidance by other distributions",
    "watermarks": "Watermarks",
    "search": "Searches",
    "answers": "Many samples, one answer",
    "speculative": "Speculative decoding",
    "trees": "Trees and parallel guesses",
    "parallel": "Not left to right",
}
HEADER = ("Row", "Strategy", "What it does", "When to use it", "Cost", "Also in", "In minitx")


@dataclass(frozen=True)
class Entry:
    """One line of the catalogue.

    Attributes:
        row: its number.
        name: what the literature calls it.
        summary: what it does.
        use: when to use it.
        cost: of a step, or of the whole.
        libraries: other libraries that have it.
        code: how to use it in minitx, such as "Sample(top_k=50)"; empty without code of its own.
        recipe: the page of the documentation that builds it from other parts; empty for none.
        absent: why it is not in minitx; empty where it is.
        section: a key of `SECTIONS`.
    """

    row: int
    name: str
    summary: str
    use: str
    cost: str
    libraries: str
    code: str
    recipe: str
    absent: str
    section: str


@cache
def entries() -> tuple[Entry, ...]:
    """Returns all lines, in the order of the sections.

    Raises:
        ValueError: a table that is not of the form that this module expects.
    """
    folder = files("minitx.decoding.catalogue")
    tables = {name: folder.joinpath(f"{name}.md") for name in SECTIONS}
    return tuple(
        entry for name, path in tables.items() if path.is_file() for entry in _entries(name, path.read_text())
    )


def _entries(section: str, table: str) -> list[Entry]:
    """Returns the lines of one table."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    rows = [[_plain(cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    if not rows or tuple(rows[0]) != HEADER or any(len(row) != len(HEADER) for row in rows):
        raise ValueError(f"catalogue/{section}.md must be a table with the columns {', '.join(HEADER)}.")
    return [_entry(section, *row) for row in rows[2:]]


def _plain(cell: str) -> str:
    return cell.strip().replace("\\|", "|")


def _entry(
    section: str, row: str, name: str, summary: str, use: str, cost: str, libraries: str, place: str
) -> Entry:
    code, recipe, absent = "", "", ""
    if match := re.search(r"`(.+?)`", place):
        code = match[1]
    elif match := re.match(r"\[recipe\]\((.+?)\)", place):
        recipe = match[1]
    elif match := re.match(r"not here: (.+)", place):
        absent = match[1]
    else:
        raise ValueError(f"catalogue/{section}.md, row {row}: {place!r} is no code, recipe or reason.")
    return Entry(int(row), name, summary, use, cost, libraries, code, recipe, absent, section)
