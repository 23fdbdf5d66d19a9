r"""Regular expressions: the subset of Python's `re` whose texts an automaton can recognise.

The texts are those of `re.fullmatch`: literals, `.`, sets, groups, `|`, `* + ? {m} {m,} {m,n}` (lazy forms
too, which match the same texts), `\d \w \s` and their negations as `re` has them for str, and the escapes
of single characters. Anchors are allowed where they change nothing: at the ends of the expression. Anything
else is refused by name.
"""

from __future__ import annotations

import re
from functools import cache

from minitx.decoding.grammar.nodes import (
    EMPTY,
    EVERY,
    LAST,
    Characters,
    Either,
    Node,
    Ranges,
    Repeat,
    Series,
    complement,
    union,
)
from minitx.validation import ArgumentValueError

MOST_REPEATS = 10_000  # a bounded repetition takes a place in the automaton for each
_SUPPORTED = "a regular expression of the subset that an automaton recognises"
_ESCAPES = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_HEX = {"x": 2, "u": 4, "U": 8}
_COUNT = re.compile(r"\{(\d*)(?:(,)(\d*))?\}", re.ASCII)
_ANCHORS = {"^": "start", "$": "end"}


def parse_regex(pattern: str, *, search: bool = False, parameter: str = "pattern") -> Node:
    """Returns the node of the texts that `re.fullmatch` finds.

    Args:
        pattern: the expression.
        search: the texts in which `re.search` finds it instead, as in a JSON schema.
        parameter: that errors name.

    Raises:
        ArgumentValueError: not a valid expression, or a part that no automaton recognises.
    """
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ArgumentValueError(parameter, pattern, "a regular expression", str(error)) from error
    try:
        return _Parser(pattern, search, parameter).whole()
    except RecursionError as error:
        raise ArgumentValueError(parameter, pattern, _SUPPORTED, "it is nested too deeply") from error


@cache
def escape_class(letter: str) -> Ranges:
    r"""Returns the characters of \d, \w, \s, \D, \W or \S in a str pattern."""
    every = "".join(map(chr, range(LAST + 1)))
    spans = (match.span() for match in re.finditer(rf"\{letter.lower()}+", every))
    ranges = union((start, end - 1) for start, end in spans)
    return ranges if letter.islower() else complement(ranges)


class _Parser:
    """Reads an expression that `re.compile` accepts, from left to right."""

    def __init__(self, pattern: str, search: bool, parameter: str) -> None:
        self._pattern, self._search, self._parameter = pattern, search, parameter
        self._place, self._depth = 0, 0

    def whole(self) -> Node:
        """Returns the node of the expression."""
        return self._choice()

    def _refuse(self, what: str) -> ArgumentValueError:
        hint = f"{what} at position {self._place} is not supported"
        return ArgumentValueError(self._parameter, self._pattern, _SUPPORTED, hint)

    def _peek(self, text: str) -> bool:
        return self._pattern.startswith(text, self._place)

    def _take(self, text: str) -> bool:
        """Moves past a text if it comes next; returns whether it does."""
        if not self._peek(text):
            return False
        self._place += len(text)
        return True

    def _next(self) -> str:
        self._place += 1
        return self._pattern[self._place - 1]

    @property
    def _ended(self) -> bool:
        return self._place >= len(self._pattern)

    def _choice(self) -> Node:
        options = [self._series()]
        while self._take("|"):
            options.append(self._series())
        return options[0] if len(options) == 1 else Either(tuple(options))

    def _series(self) -> Node:
        """Reads one alternative; at the top, anchors are allowed at its ends."""
        parts: list[Node] = []
        outer = self._depth == 0
        starts = outer and self._anchors("^", r"\A")
        ends = False
        while not self._ended and not self._peek("|") and not self._peek(")"):
            if outer and self._anchors("$", r"\Z"):
                if not self._ended and not self._peek("|"):
                    raise self._refuse("an anchor within the expression")
                ends = True
                break
            parts.append(self._repeated())
        if self._search and outer:
            anything = Repeat(Characters(EVERY))
            parts = [*([] if starts else [anything]), *parts, *([] if ends else [anything])]
        return parts[0] if len(parts) == 1 else Series(tuple(parts))

    def _anchors(self, *names: str) -> bool:
        """Moves past anchors; returns whether there were any."""
        before = self._place
        while any(self._take(name) for name in names):
            pass
        return self._place > before

    def _repeated(self) -> Node:
        """Reads an item and the repetitions after it."""
        node = self._item()
        while not self._ended:
            bounds = self._bounds()
            if bounds is None:
                return node
            if self._peek("+"):
                raise self._refuse("a possessive repetition")
            self._take("?")  # a lazy one matches the same texts
            for bound in bounds:
                if bound is not None and bound > MOST_REPEATS:
                    raise self._refuse(f"a repetition of more than {MOST_REPEATS}")
            node = Repeat(node, *bounds)
        return node

    def _bounds(self) -> tuple[int, int | None] | None:
        """Reads `*`, `+`, `?` or a count in braces; None if none comes next."""
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(sign):
                return bounds
        match = _COUNT.match(self._pattern, self._place)
        if match is None or match.group() == "{}":
            return None  # a brace that stands for itself
        self._place = match.end()
        low, comma, high = match.groups()
        least = int(low or 0)
        return least, (int(high) if high else None) if comma else least

    def _item(self) -> Node:
        character = self._next()
        if character == "(":
            return self._group()
        if character == "[":
            return Characters(self._set())
        if character == ".":
            return Characters(complement(((10, 10),)))
        if character == "\\":
            return Characters(union(self._escape()))
        if character in _ANCHORS:
            self._place -= 1
            raise self._refuse(f"an anchor ({_ANCHORS[character]}) within the expression")
        return Characters(union([(ord(character), ord(character))]))

    def _group(self) -> Node:
        if self._take("?"):
            if self._take("P<"):
                self._place = self._pattern.index(">", self._place) + 1
            elif self._take("#"):
                self._place = self._pattern.index(")", self._place) + 1
                return EMPTY
            elif not self._take(":"):
                names = {"=": "lookahead", "!": "lookahead", "<": "lookbehind", ">": "an atomic group"}
                names |= {"P": "a backreference", "(": "a conditional group"}
                raise self._refuse(names.get(self._next(), "a group with flags"))
        self._depth += 1
        node = self._choice()
        self._depth -= 1
        self._take(")")
        return node

    def _escape(self, in_set: bool = False) -> Ranges:
        """Reads what follows a backslash."""
        letter = self._next()
        if letter in "dwsDWS":
            return escape_class(letter)
        if letter in _HEX:
            digits = self._pattern[self._place : self._place + _HEX[letter]]
            self._place += len(digits)
            code = int(digits, 16)
        elif letter.isdigit() and letter.isascii():
            code = self._octal(letter, in_set)
        elif letter in _ESCAPES:
            code = ord(_ESCAPES[letter])
        elif in_set and letter == "b":
            code = 8
        elif letter.isascii() and letter.isalpha():
            raise self._refuse(f"\\{letter}")
        else:
            code = ord(letter)
        return ((code, code),)

    def _octal(self, first: str, in_set: bool) -> int:
        r"""Reads an octal code: `\0` and up to two digits, or three digits; anything else is a reference."""
        digits = re.compile("[0-7]{0,2}").match(self._pattern, self._place)
        assert digits is not None, "matches the empty text too"
        text = first + digits.group()
        if first != "0" and not (len(text) == 3 and first < "4") and not (in_set and first < "8"):
            raise self._refuse(f"the backreference \\{first}")
        self._place = digits.end()
        return int(text, 8)

    def _set(self) -> Ranges:
        """Reads a set after its opening bracket."""
        parts: list[tuple[int, int]] = []
        negated, first = self._take("^"), True
        while first or not self._peek("]"):
            first = False
            low = self._member()
            if self._peek("-") and not self._pattern.startswith("-]", self._place):
                self._take("-")
                high = self._member()
                low = ((low[0][0], high[0][1]),)
            parts += low
        self._take("]")
        ranges = union(parts)
        return complement(ranges) if negated else ranges

    def _member(self) -> Ranges:
        character = self._next()
        return self._escape(in_set=True) if character == "\\" else ((ord(character), ord(character)),)
