"""A bound on the time that a regular expression of adapter_config.json takes.

Python matches by trying all ways to divide a text. `is_fast` bounds their number from the pattern alone:
repetitions and alternatives in a row multiply, and a repetition of either is refused.
"""

from __future__ import annotations

import math
import re
from collections import Counter

_TOKEN = re.compile(
    r"(?P<escape>\\.)|(?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])|(?P<open>\((?:\?(?:P<\w+>|[:=!>]|<[=!]|[aiLmsu-]+[:)]))?)"
    r"|(?P<close>\))|(?P<bar>\|)|(?P<repeat>(?:[*+?]|\{\d*,?\d*\})[?+]?)|(?P<character>.)",
    re.DOTALL,
)
_WAYS, _OPTIONAL = 50, 2.8  # of one repetition in a path, and of an item that may be left out
_MOST_WAYS = 3 * 10**8  # four repetitions, and some alternatives


class _Group:
    """A group while it is read: the ways to match its alternatives so far, and their first tokens."""

    def __init__(self) -> None:
        self.ways: list[float] = [1]
        self.first = [""]

    def add(self, ways: float, token: str) -> None:
        """Appends an item to the last alternative."""
        self.ways[-1] *= ways
        self.first[-1] = self.first[-1] or token

    def total(self) -> float:
        """Returns the ways to match the group; alternatives that begin differently exclude each other."""
        literals = Counter(token for token in self.first if len(token) == 1 and token not in ".^$")
        others = len(self.first) - literals.total()
        alike = float(max(1, others + max(literals.values(), default=0)))
        return max(self.ways) * alike * math.sqrt(alike)


def is_fast(pattern: str) -> bool:
    """Whether a valid pattern matches a module's path in a short time."""
    groups, last = [_Group()], 1.0
    for match in _TOKEN.finditer(pattern):
        kind, token = match.lastgroup, match[0]
        if kind == "open" and not token.endswith(")"):
            if token == "(" and pattern[match.end() :][:1] == "?":
                return False  # a comment, a condition or another mode
            groups.append(_Group())
        elif kind == "close":
            if len(groups) == 1:
                return False
            last = groups.pop().total()
            groups[-1].add(last, "(...)")
        elif kind == "bar":
            groups[-1].ways.append(1)
            groups[-1].first.append("")
        elif kind == "repeat":
            groups[-1].ways[-1] *= _OPTIONAL if token[0] == "?" else _WAYS if last == 1 else math.inf
            groups[-1].first[-1] = "(...)"  # it may be left out
        elif kind != "open":
            last = 1.0
            groups[-1].add(1, token.lower())
    return len(groups) == 1 and sum(groups[0].ways) <= _MOST_WAYS
