r"""Grammars in llama.cpp's GBNF: rules of literals, character sets, groups and repetitions.

    root   ::= greeting ", " name "!"
    greeting ::= "Hello" | "Good " ("morning" | "evening")
    name   ::= [A-Z] [a-z]{1,12}

Texts begin with the rule `root`. `#` begins a comment; `.` is any character. A rule ends where the next one
begins. Matching of tokens (`<[5]>`, `<think>`) is not supported. Rules may be recursive in any way.
"""

from __future__ import annotations

import re

from minitx.decoding.grammar.nodes import EVERY, Call, Characters, Node, Repeat, Rules, literal
from minitx.decoding.grammar.syntax.reader import Reader, check_calls, in_order, one_of, set_of

_WORD = re.compile(
    r"""(?P<skip>\s+|\#[^\n]*)
    |(?P<name>[A-Za-z0-9_-]+)
    |(?P<string>"(?:\\.|[^"\\\n])*")
    |(?P<set>\[(?:\\.|[^\]\\])*\])
    |(?P<count>\{\s*\d*\s*(?:,\s*\d*\s*)?\})
    |(?P<token>!?<[^>\n]*>)
    |(?P<sign>::=|[().|*+?])""",
    re.VERBOSE | re.DOTALL,
)
_SIGNS = {"*": (0, None), "+": (1, None), "?": (0, 1)}


def parse_gbnf(text: str) -> Rules:
    """Returns the rules of a grammar.

    Raises:
        ArgumentValueError: not a grammar, with the line; or a rule that there is not.
    """
    reader, rules = Reader(text, _WORD, "GBNF"), dict[str, Node]()
    while reader.peek().kind != "end":
        name = reader.need("name")
        reader.need("::=")
        if name.text in rules:
            raise reader.error(f"line {name.line} defines {name.text!r} again")
        rules[name.text] = _options(reader)
    check_calls(reader, rules, "root")
    return Rules("root", rules)


def _options(reader: Reader) -> Node:
    options = [_parts(reader)]
    while reader.take("|"):
        options.append(_parts(reader))
    return one_of(options)


def _parts(reader: Reader) -> Node:
    parts: list[Node] = []
    while (word := reader.peek()).kind not in ("|", ")", "end"):
        if word.kind == "name" and reader.peek(1).kind == "::=":
            break
        node = _item(reader)
        while (sign := reader.take("*", "+", "?", "count")) is not None:
            if sign.kind == "count":
                low, comma, high = sign.text.strip("{} ").partition(",")
                if not low.strip():
                    raise reader.refuse(sign)
                least = reader.count(sign, low)
                most = reader.count(sign, high) if high.strip() else None if comma else least
                if most is not None and most < least:
                    raise reader.refuse(sign)
            else:
                least, most = _SIGNS[sign.text]
            node = Repeat(node, least, most)
        parts.append(node)
    return in_order(parts)


def _item(reader: Reader) -> Node:
    if word := reader.take("token"):
        raise reader.refuse(word, "matching of tokens")
    word = reader.need("name", "string", "set", ".", "(")
    if word.kind == "name":
        return Call(word.text)
    if word.kind == "string":
        return literal(reader.unescaped(word, word.text[1:-1]))
    if word.kind == "set":
        return Characters(set_of(reader, word))
    if word.kind == ".":
        return Characters(EVERY)
    node = _options(reader)
    reader.need(")")
    return node
