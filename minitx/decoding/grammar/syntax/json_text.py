"""How JSON writes strings and numbers (RFC 8259), as nodes of a grammar."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from minitx.decoding.grammar.nodes import (
    EMPTY,
    Call,
    Characters,
    Either,
    Node,
    Ranges,
    Repeat,
    Series,
    complement,
    either,
    intersection,
    literal,
    optional,
    series,
    union,
)
from minitx.decoding.grammar.syntax.regex import parse_regex

ESCAPED: Ranges = ((0x00, 0x1F), (0x22, 0x22), (0x5C, 0x5C))  # what a string cannot hold as it is
_PLAIN = complement(ESCAPED)
_HEX = "[0-9a-fA-F]"
_UNIT = rf"\\[\"\\/bfnrt]|\\u(?:[0-9a-ce-fA-CE-F]{_HEX}{{3}}|[dD][0-7]{_HEX}{{2}})"
_PAIR = rf"\\u[dD][89abAB]{_HEX}{{2}}\\u[dD][c-fC-F]{_HEX}{{2}}"

DIGIT = Characters(((0x30, 0x39),))
_NONZERO = Characters(((0x31, 0x39),))
# Longer fractions could be rounded to a bound.
_FRACTION = series(".", Repeat(DIGIT, 1, 6))
_SOME_FRACTION = series(".", Repeat(DIGIT, 0, 3), _NONZERO, Repeat(DIGIT, 0, 3))  # not .0
_ZERO_FRACTION = series(".", Repeat(literal("0"), 1, 6))
NUMBER = parse_regex(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+\-]?[0-9]{1,3})?")

_YEAR, _LEAP = "[1-9][0-9]{3}", "(?:0[48]|[2468][048]|[13579][26])"
_DAYS = "(?:0[1-9]|1[0-9]|2[0-8])"
_DATE = (
    f"(?:{_YEAR}-(?:(?:0[1-9]|1[0-2])-{_DAYS}|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    f"|(?:[1-9][0-9]{_LEAP}|(?:[2468][048]|[13579][26])00)-02-29)"
)
_CLOCK = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_CLOCK}:[0-5][0-9](?:\.[0-9]{{1,6}})?(?:Z|[+\-]{_CLOCK})"
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9\\-]{0,61}[A-Za-z0-9])?"
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "uuid": "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "email": rf"[A-Za-z0-9_+\-]+(?:\.[A-Za-z0-9_+\-]+)*@{_LABEL}(?:\.{_LABEL})+",
    "ipv4": rf"{_BYTE}(?:\.{_BYTE}){{3}}",
    "hostname": rf"{_LABEL}(?:\.{_LABEL})*",
}


def character() -> Node:
    """Returns one character of a string, as it is or escaped."""
    return Either((Characters(_PLAIN), parse_regex(_UNIT), parse_regex(_PAIR)))


def spelled(node: Node) -> Node:
    """Returns a node for the inside of a string: characters that must be escaped are, the others are not."""
    if isinstance(node, Characters):
        inside = [code for low, high in intersection(node.ranges, ESCAPED) for code in range(low, high + 1)]
        escapes = [literal(json.dumps(chr(code))[1:-1]) for code in inside]
        return either(Characters(intersection(node.ranges, _PLAIN)), *escapes)
    if isinstance(node, Series):
        return Series(tuple(map(spelled, node.parts)))
    if isinstance(node, Either):
        return Either(tuple(map(spelled, node.options)))
    return Repeat(spelled(node.node), node.least, node.most) if isinstance(node, Repeat) else node


def quoted(text: str) -> Node:
    """Returns a string with this content."""
    return literal(json.dumps(text, ensure_ascii=False))


def other_strings(texts: Iterable[str], character: Node, any_string: Node) -> Node:
    """Returns the strings without escapes of code points whose content is none of these texts.

    Args:
        texts: the contents to exclude.
        character: one character of a string.
        any_string: the characters of a string, any number of them.
    """
    texts, units = {*texts}, dict[str, set[str]]()
    for text in texts:
        if text:
            units.setdefault(text[0], set()).add(text[1:])
    branches: list[Node] = [] if "" in texts else [literal('"')]
    for unit, rests in sorted(units.items()):
        first = literal(json.dumps(unit, ensure_ascii=False)[1:-1])
        branches.append(Series((first, other_strings(rests, character, any_string))))
    others = complement(union((ord(unit), ord(unit)) for unit in units))
    branches.append(series(spelled(Characters(others)), any_string, '"'))
    return either(*branches)


def value_of(value: Any, between: Callable[[str], Node]) -> Node:
    """Returns the node of one JSON value; `between` gives a sign with the space that may be around it.

    A number such as 1.0 is also written 1.
    """
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, Mapping):
        pairs = [Series((quoted(str(key)), between(":"), value_of(v, between))) for key, v in value.items()]
        return Series((between("{"), *_joined(pairs, between(",")), between("}")))
    if isinstance(value, list | tuple):
        items = [value_of(item, between) for item in value]
        return Series((between("["), *_joined(items, between(",")), between("]")))
    text = json.dumps(value, allow_nan=False)
    return either(*dict.fromkeys((text, text.removesuffix(".0"))))


def _joined(nodes: Sequence[Node], comma: Node) -> list[Node]:
    return [part for node in nodes for part in (comma, node)][1:]


def integers(least: int | None, most: int | None) -> Node:
    """Returns the integers within bounds; None for no bound."""
    options: list[Node] = []
    if least is None or least < 0:
        low = 1 if most is None or most >= -1 else -most
        options.append(series("-", naturals(low, None if least is None else -least)))
    if most is None or most >= 0:
        options.append(naturals(max(least or 0, 0), most))
    return either(*options) if options else Either(())


def naturals(least: int, most: int | None) -> Node:
    """Returns the integers from `least`, at least 0, to `most`; nothing matches if `most` is smaller."""
    if most is None:
        digits = len(str(least))
        longer = Series((_NONZERO, Repeat(DIGIT, digits)))
        return either(naturals(least, 10**digits - 1), longer)
    options: list[Node] = []
    while least <= most:
        last = min(most, 10 ** len(str(least)) - 1)
        options.append(_same_length(str(least), str(last)))
        least = last + 1
    return Either(tuple(options))


def _same_length(low: str, high: str) -> Node:
    """Returns the numbers from one to another with the same number of digits."""
    if not low:
        return EMPTY
    if low[0] == high[0]:
        return series(low[0], _same_length(low[1:], high[1:]))
    rest = len(low) - 1
    first, last = int(low[0]), int(high[0])
    options: list[Node] = []
    if low[1:].strip("0"):
        options.append(series(low[0], _same_length(low[1:], "9" * rest)))
        first += 1
    if high[1:].strip("9"):
        options.append(series(high[0], _same_length("0" * rest, high[1:])))
        last -= 1
    if first <= last:
        options.append(Series((Characters(((48 + first, 48 + last),)), Repeat(DIGIT, rest, rest))))
    return either(*options)


def numbers(least: int | None, most: int | None, open_low: bool, open_high: bool) -> Node:
    """Returns the numbers without exponent between integers; `open_...` excludes a bound itself."""
    options: list[Node] = []
    if least is None or least < 0:
        high, open_zero = (0, True) if most is None or most >= 0 else (-most, open_high)
        options.append(series("-", _magnitudes(high, None if least is None else -least, open_zero, open_low)))
    if most is None or most >= 0:
        low, open_bound = (0, False) if least is None or least < 0 else (least, open_low)
        options.append(_magnitudes(low, most, open_bound, open_high))
    return either(*options) if options else Either(())


def _magnitudes(least: int, most: int | None, open_low: bool, open_high: bool) -> Node:
    """Returns the numbers from `least`, at least 0, to `most`."""
    if most is not None and (most < least or (most == least and (open_low or open_high))):
        return Either(())
    if most == least:
        return series(literal(str(least)), optional(_ZERO_FRACTION))
    lowest = series(literal(str(least)), _SOME_FRACTION if open_low else optional(_FRACTION))
    between = naturals(least + 1, None if most is None else most - 1)
    options = [lowest, Series((between, optional(_FRACTION)))]
    if most is not None and not open_high:
        options.append(series(literal(str(most)), optional(_ZERO_FRACTION)))
    return either(*options)


def any_value(space: Callable[[str], Node]) -> dict[str, Node]:
    """Returns the rules of any JSON value: "any", and its parts.

    Args:
        space: gives a sign with the space that may be around it.
    """
    string = series('"', Call("characters"), '"')
    pair = Series((string, space(":"), Call("any")))
    array = Series((Call("any"), Repeat(Series((space(","), Call("any"))))))
    object_ = Series((pair, Repeat(Series((space(","), pair)))))
    return {
        "character": character(),
        "characters": Repeat(Call("character")),
        "array": Series((space("["), optional(array), space("]"))),
        "object": Series((space("{"), optional(object_), space("}"))),
        "any": either(Call("object"), Call("array"), string, NUMBER, "true", "false", "null"),
    }
