r"""Grammars in a subset of Lark's syntax: rules in lower case, terminals in capitals.

    start: greeting "," NAME "!"
    greeting: "Hello" | "Good" ("morning" | "evening")
    NAME: /[A-Z][a-z]+/
    %ignore " "

The texts are those of the grammar as a context-free one, as Lark's Earley parser with
`lexer="dynamic_complete"` reads it: a terminal need not take as much text as it can, and priorities have no
effect. Supported are literals ("if", "if"i, "a".."z"), regular expressions (see `regex.py`) without flags,
`| ( ) [ ] * + ? ~ n ~ n..m`, aliases, `?rule`, `!rule`, `%ignore`, and `%import` of terminals of `common`.
Templates, `%declare`, `%override`, `%extend` and imports of other files are refused by name.
"""

from __future__ import annotations

import re

from minitx.decoding.grammar.nodes import (
    Call,
    Characters,
    Node,
    Repeat,
    Rules,
    Series,
    characters_of,
    literal,
    union,
)
from minitx.decoding.grammar.syntax.reader import Reader, Word, check_calls, in_order, one_of
from minitx.decoding.grammar.syntax.regex import parse_regex

_WORD = re.compile(
    r"""(?P<line>\n(?:\s|//[^\n]*|\#[^\n]*)*)
    |(?P<skip>[ \t\r\f]+|//[^\n]*|\#[^\n]*)
    |(?P<rule>[?!]{0,2}_?[a-z][_a-z0-9]*(?=(?:\.-?\d+)?[ \t]*:))
    |(?P<terminal>_?[A-Z][_A-Z0-9]*(?=(?:\.-?\d+)?[ \t]*:))
    |(?P<name>_?[A-Za-z][_A-Za-z0-9]*)
    |(?P<string>"(?:\\.|[^"\\\n])*"i?)
    |(?P<regex>/(?!/)(?:\\.|[^/\\\n])+/[a-z]*)
    |(?P<directive>%[a-z]+)
    |(?P<number>-?\d+)
    |(?P<sign>->|\.\.|[():|*+?\[\]~.,{}])""",
    re.VERBOSE | re.DOTALL,
)
_SIGNS = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_IGNORED = "%ignore"
# The terminals of Lark's common.lark that are of use in texts.
COMMON = {
    "DIGIT": "[0-9]",
    "HEXDIGIT": "[0-9A-Fa-f]",
    "INT": "[0-9]+",
    "SIGNED_INT": r"[+\-]?[0-9]+",
    "DECIMAL": r"[0-9]+\.[0-9]*|\.[0-9]+",
    "FLOAT": r"[0-9]+[eE][+\-]?[0-9]+|([0-9]+\.[0-9]*|\.[0-9]+)([eE][+\-]?[0-9]+)?",
    "NUMBER": r"[0-9]+([eE][+\-]?[0-9]+)?|([0-9]+\.[0-9]*|\.[0-9]+)([eE][+\-]?[0-9]+)?",
    "SIGNED_NUMBER": r"[+\-]?([0-9]+([eE][+\-]?[0-9]+)?|([0-9]+\.[0-9]*|\.[0-9]+)([eE][+\-]?[0-9]+)?)",
    "ESCAPED_STRING": r'"([^"\\\n]|\\[^\n])*"',
    "LCASE_LETTER": "[a-z]",
    "UCASE_LETTER": "[A-Z]",
    "LETTER": "[A-Za-z]",
    "WORD": "[A-Za-z]+",
    "CNAME": "[_A-Za-z][_A-Za-z0-9]*",
    "WS_INLINE": "[ \t]+",
    "WS": "[ \t\f\r\n]+",
    "CR": "\r",
    "LF": "\n",
    "NEWLINE": "(\r?\n)+",
}


def parse_lark(text: str) -> Rules:
    """Returns the rules of a grammar.

    Raises:
        ArgumentValueError: not a grammar, with the line; a part of Lark that is not supported; or a rule
            that there is not.
    """
    return _Lark(text).whole()


class _Lark:
    """Reads a grammar.

    Attributes:
        rules: by name; terminals too.
    """

    def __init__(self, text: str) -> None:
        self._reader = Reader(text, _WORD, "Lark")
        self.rules: dict[str, Node] = {}
        self._ignored: list[Node] = []
        self._in_terminal = False
        self._ignores = "%ignore" in (word.text for word in self._reader.words)

    def whole(self) -> Rules:
        """Returns the rules."""
        reader = self._reader
        while reader.peek().kind != "end":
            if reader.take("line"):
                continue
            word = reader.need("rule", "terminal", "directive", "name")
            if word.kind == "directive":
                self._directive(word)
            elif word.kind == "name":
                raise reader.refuse(word, "a template") if reader.take("{") else reader.refuse(word)
            else:
                self._rule(word)
        start = "start"
        if self._ignored:
            self.rules[_IGNORED] = Repeat(one_of(self._ignored))
            self.rules["%start"] = Series((Call(_IGNORED), Call("start")))
            start = "%start"
        check_calls(reader, self.rules, "start")
        return Rules(start, self.rules)

    def _rule(self, word: Word) -> None:
        reader, name = self._reader, word.text.lstrip("?!")
        if reader.take("."):
            reader.need("number")
        reader.need(":")
        self._define(word, name, self._options_of(word.kind == "terminal"))

    def _define(self, word: Word, name: str, node: Node) -> None:
        if name in self.rules:
            raise self._reader.error(f"line {word.line} defines {name!r} again")
        self.rules[name] = node

    def _options_of(self, in_terminal: bool) -> Node:
        """Reads the options of a rule or terminal, up to the end of its last line."""
        self._in_terminal = in_terminal
        node = self._options(nested=False)
        if not self._reader.take("line"):
            self._reader.need("end")
            self._reader.place -= 1
        return node

    def _directive(self, word: Word) -> None:
        reader = self._reader
        if word.text == "%ignore":
            self._ignored.append(self._options_of(in_terminal=True))
        elif word.text == "%import":
            library = reader.need("name", ".")
            if library.text != "common":
                raise reader.refuse(word, "%import of another file than common")
            reader.need(".")
            names = [reader.need("name")] if not reader.take("(") else self._names()
            shown = reader.need("name").text if reader.take("->") else None
            for name in names:
                if name.text not in COMMON:
                    raise reader.refuse(name, f"common.{name.text}")
                self._define(name, shown or name.text, parse_regex(COMMON[name.text]))
        else:
            raise reader.refuse(word, word.text)

    def _names(self) -> list[Word]:
        names = [self._reader.need("name")]
        while self._reader.take(","):
            names.append(self._reader.need("name"))
        self._reader.need(")")
        return names

    def _options(self, nested: bool) -> Node:
        options = [self._parts(nested)]
        while self._continues(nested) and self._reader.take("|"):
            options.append(self._parts(nested))
        return one_of(options)

    def _continues(self, nested: bool) -> bool:
        """Moves past line ends that do not end the rule; returns True."""
        if self._reader.peek().kind == "line" and (nested or self._reader.peek(1).kind == "|"):
            self._reader.need("line")
        return True

    def _parts(self, nested: bool) -> Node:
        reader, parts = self._reader, list[Node]()
        while self._continues(nested) and reader.peek().kind not in ("|", ")", "]", "line", "end"):
            if reader.take("->"):
                reader.need("name")
                continue
            parts.append(self._repeated())
        return in_order(parts)

    def _repeated(self) -> Node:
        reader, node = self._reader, self._item()
        while (sign := reader.take("*", "+", "?", "~")) is not None:
            if sign.kind != "~":
                node = Repeat(node, *_SIGNS[sign.text])
                continue
            low = reader.need("number")
            high = reader.need("number") if reader.take("..") else low
            least, most = reader.count(low, low.text), reader.count(high, high.text)
            if not 0 <= least <= most:
                raise reader.refuse(high)
            node = Repeat(node, least, most)
        return node

    def _item(self) -> Node:
        reader = self._reader
        word = reader.need("name", "string", "regex", "(", "[")
        if word.kind == "name":
            if reader.take("{"):
                raise reader.refuse(word, "a template")
            terminal = word.text.lstrip("_")[:1].isupper()
            return self._spaced(Call(word.text)) if terminal else Call(word.text)
        if word.kind in ("(", "["):
            node = self._options(nested=True)
            reader.need(")" if word.kind == "(" else "]")
            return node if word.kind == "(" else Repeat(node, 0, 1)
        if word.kind == "regex":
            pattern, _, flags = word.text[1:].rpartition("/")
            if flags:
                raise reader.refuse(word, f"the flags {flags!r} of an expression")
            return self._spaced(parse_regex(pattern.replace(r"\/", "/"), parameter="Grammar(text)"))
        return self._spaced(self._string(word))

    def _string(self, word: Word) -> Node:
        """Reads a literal, or a range of characters."""
        reader = self._reader
        body, _, flag = word.text[1:].rpartition('"')
        text = reader.unescaped(word, body)
        if reader.take(".."):
            last = reader.need("string")
            end = reader.unescaped(last, last.text[1:-1])
            if len(text) != 1 or len(end) != 1 or end < text:
                raise reader.refuse(last)
            return Characters(union([(ord(text), ord(end))]))
        if not flag:
            return literal(text)
        return in_order([Characters(characters_of(_cases(character))) for character in text])

    def _spaced(self, node: Node) -> Node:
        """Allows what `%ignore` names after a terminal of a rule."""
        return Series((node, Call(_IGNORED))) if self._ignores and not self._in_terminal else node


def _cases(character: str) -> str:
    """Returns a character in lower and upper case, where each is one character."""
    cases = (character.lower(), character.upper(), character)
    return "".join(case for case in cases if len(case) == 1)
