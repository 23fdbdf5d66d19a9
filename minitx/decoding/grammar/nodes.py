"""Grammars as trees: sets of characters, sequences, choices, repetitions and references to rules.

Every syntax (regular expressions, GBNF, Lark, JSON schemas) is read into these nodes; `network.py` makes an
automaton of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

# Inclusive ranges of code points: ascending, disjoint, not adjacent.
Ranges = tuple[tuple[int, int], ...]

LAST = 0x10FFFF
EVERY: Ranges = ((0, 0xD7FF), (0xE000, LAST))  # surrogates are no characters


class Node:
    """A part of a grammar; stands for a set of texts."""


@dataclass(frozen=True)
class Characters(Node):
    """One character of a set."""

    ranges: Ranges


@dataclass(frozen=True)
class Series(Node):
    """One part after the other; without parts the empty text."""

    parts: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Either(Node):
    """One of several."""

    options: tuple[Node, ...]


@dataclass(frozen=True)
class Repeat(Node):
    """A node several times, from `least` to `most`; None for any number."""

    node: Node
    least: int = 0
    most: int | None = None


@dataclass(frozen=True)
class Call(Node):
    """The texts of a rule."""

    rule: str


@dataclass(frozen=True)
class Rules:
    """The rules of a grammar.

    Attributes:
        start: the name of the rule whose texts are those of the grammar.
        rules: name -> node.
        trigger: the text that the grammar waits for, as `Lazy` has it; "" for a grammar that always applies.
    """

    start: str
    rules: Mapping[str, Node] = field(default_factory=dict)
    trigger: str = ""


EMPTY = Series()


def matches_some(rules: Rules) -> bool:
    """Returns whether some text matches the grammar."""
    matched: set[str] = set()

    def _some(node: Node) -> bool:
        if isinstance(node, Characters):
            return bool(intersection(node.ranges, EVERY))
        if isinstance(node, Call):
            return node.rule in matched
        if isinstance(node, Repeat):
            return node.least == 0 or _some(node.node)
        if isinstance(node, Either):
            return any(map(_some, node.options))
        return isinstance(node, Series) and all(map(_some, node.parts))

    before = -1
    while len(matched) > before:
        before = len(matched)
        matched.update(name for name, node in rules.rules.items() if _some(node))
    return rules.start in matched


def union(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Returns any ranges as ascending, disjoint ones without surrogates."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(high, joined[-1][1])
        else:
            joined.append((low, high))
    return intersection(tuple(joined), EVERY)


def complement(ranges: Ranges) -> Ranges:
    """Returns all characters but these."""
    start, gaps = 0, []
    for low, high in ranges:
        if start < low:
            gaps.append((start, low - 1))
        start = high + 1
    if start <= LAST:
        gaps.append((start, LAST))
    return intersection(tuple(gaps), EVERY)


def intersection(first: Ranges, second: Ranges) -> Ranges:
    """Returns the characters of both."""
    shared, one, two = [], 0, 0
    while one < len(first) and two < len(second):
        low, high = max(first[one][0], second[two][0]), min(first[one][1], second[two][1])
        if low <= high:
            shared.append((low, high))
        if first[one][1] < second[two][1]:
            one += 1
        else:
            two += 1
    return tuple(shared)


def characters_of(text: str) -> Ranges:
    """Returns the set of the characters of a text."""
    return union((ord(character), ord(character)) for character in text)


def literal(text: str) -> Node:
    """Returns the node of one text."""
    return Series(tuple(Characters(((ord(character), ord(character)),)) for character in text))


def series(*parts: Node | str) -> Node:
    """Returns parts one after the other; strings stand for themselves."""
    nodes = tuple(literal(part) if isinstance(part, str) else part for part in parts)
    return nodes[0] if len(nodes) == 1 else Series(nodes)


def either(*options: Node | str) -> Node:
    """Returns one of several; strings stand for themselves."""
    nodes = tuple(literal(option) if isinstance(option, str) else option for option in options)
    return nodes[0] if len(nodes) == 1 else Either(nodes)


def optional(*parts: Node | str) -> Node:
    """Returns a part that may be left out."""
    return Repeat(series(*parts), 0, 1)


@cache
def utf8(ranges: Ranges) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Returns the UTF-8 spellings of a set of characters, as sequences of inclusive ranges of bytes."""
    sequences: list[tuple[tuple[int, int], ...]] = []
    limits = ((0, 0x7F), (0x80, 0x7FF), (0x800, 0xFFFF), (0x10000, LAST))
    for length in limits:
        for low, high in intersection(ranges, intersection((length,), EVERY)):
            sequences += _between(chr(low).encode(), chr(high).encode())
    return tuple(sequences)


def _between(low: bytes, high: bytes) -> list[tuple[tuple[int, int], ...]]:
    """Returns the spellings from one to another of the same number of bytes."""
    if len(low) == 1:
        return [((low[0], high[0]),)]
    if low[0] == high[0]:
        return [((low[0], low[0]), *rest) for rest in _between(low[1:], high[1:])]
    rest = len(low) - 1
    least, most = b"\x80" * rest, b"\xbf" * rest
    first, last = low[0], high[0]
    before, after = [], []
    if low[1:] != least:
        before = [((first, first), *part) for part in _between(low[1:], most)]
        first += 1
    if high[1:] != most:
        after = [((last, last), *part) for part in _between(least, high[1:])]
        last -= 1
    middle = [((first, last), *[(0x80, 0xBF)] * rest)] if first <= last else []
    return [*before, *middle, *after]
