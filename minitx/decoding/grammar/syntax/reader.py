"""What the readers of grammar files share: words with their lines, errors that name them, and escapes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from minitx.decoding.grammar.nodes import Call, Either, Node, Ranges, Series, complement, union
from minitx.validation import ArgumentValueError

MOST_REPEATS = 10_000
_CODES = {"x": 2, "u": 4, "U": 8}
_LETTERS = {"n": 10, "r": 13, "t": 9, "f": 12, "v": 11, "0": 0}


@dataclass(frozen=True)
class Word:
    """A word of a grammar file.

    Attributes:
        kind: the name of the pattern that it matches; its text for signs.
        text: as it is written.
        line: from 1.
    """

    kind: str
    text: str
    line: int


class Reader:
    """The words of a grammar file, read from left to right.

    Args:
        text: of the file.
        pattern: matches one word; the name of the group is its kind. White space and comments are "skip".
        syntax: its name in errors.
    """

    def __init__(self, text: str, pattern: re.Pattern[str], syntax: str) -> None:
        self.text, self.syntax, self.place = text, syntax, 0
        self.words: list[Word] = []
        position, line = 0, 1
        while position < len(text):
            match = pattern.match(text, position)
            if match is None or match.lastgroup is None:
                raise self.error(f"line {line} has {text[position : position + 12]!r}, which is no {syntax}")
            kind, word = match.lastgroup, match.group()
            if kind != "skip":
                self.words.append(Word(word if kind == "sign" else kind, word, line))
            line += word.count("\n")
            position = match.end()
        self.words.append(Word("end", "", line))

    def error(self, reason: str) -> ArgumentValueError:
        """Returns the error of a grammar that cannot be read."""
        return ArgumentValueError("Grammar(text)", self.text, f"a grammar in {self.syntax} syntax", reason)

    def refuse(self, word: Word, what: str = "") -> ArgumentValueError:
        """Returns the error about a word that is not expected, or not supported."""
        problem = f"{what}, which is not supported" if what else f"{word.text!r}, which is not expected"
        return self.error(f"line {word.line} has {problem if word.kind != 'end' else 'an end too early'}")

    def peek(self, ahead: int = 0) -> Word:
        """Returns a word without moving."""
        return self.words[min(self.place + ahead, len(self.words) - 1)]

    def take(self, *kinds: str) -> Word | None:
        """Moves past the next word if it is of one of these kinds, and returns it."""
        word = self.peek()
        if word.kind not in kinds:
            return None
        self.place += 1
        return word

    def need(self, *kinds: str) -> Word:
        """Moves past the next word, which must be of one of these kinds."""
        word = self.take(*kinds)
        if word is None:
            raise self.refuse(self.peek())
        return word

    def count(self, word: Word, text: str) -> int:
        """Returns a number of repetitions."""
        number = int(text)
        if number > MOST_REPEATS:
            raise self.refuse(word, f"a repetition of more than {MOST_REPEATS}")
        return number

    def unescaped(self, word: Word, text: str) -> str:
        """Returns a text with its backslash escapes replaced; `text` is a part of the word."""
        characters, position = [], 0
        while position < len(text):
            character, size = text[position], 1
            if character == "\\":
                character, size = self._escape(word, text[position + 1 :])
            characters.append(character)
            position += size
        return "".join(characters)

    def _escape(self, word: Word, rest: str) -> tuple[str, int]:
        letter = rest[:1]
        if letter in _CODES and letter:
            digits = rest[1 : 1 + _CODES[letter]]
            try:
                return chr(int(digits, 16)), len(digits) + 2
            except (ValueError, OverflowError):
                raise self.refuse(word, f"the escape \\{letter}{digits}") from None
        if letter in _LETTERS and letter:
            return chr(_LETTERS[letter]), 2
        if not letter or letter.isalnum():
            raise self.refuse(word, f"the escape \\{letter}")
        return letter, 2


def set_of(reader: Reader, word: Word) -> Ranges:
    """Returns the characters of a set in brackets, with ranges and escapes."""
    inside = word.text[1:-1]
    negated = inside.startswith("^")
    members = re.findall(r"(?s)\\x..|\\u.{4}|\\U.{8}|\\.|.", inside[negated:])
    codes, ranges, place = [ord(reader.unescaped(word, member)) for member in members], [], 0
    while place < len(members):
        last = place
        if place + 2 < len(members) and members[place + 1] == "-":
            last = place + 2
        if codes[last] < codes[place]:
            raise reader.refuse(word, "a range from a later character to an earlier one")
        ranges.append((codes[place], codes[last]))
        place = last + 1
    joined = union(ranges)
    return complement(joined) if negated else joined


def one_of(options: list[Node]) -> Node:
    """Returns the node of one of several."""
    return options[0] if len(options) == 1 else Either(tuple(options))


def in_order(parts: list[Node]) -> Node:
    """Returns the node of parts one after the other."""
    return parts[0] if len(parts) == 1 else Series(tuple(parts))


def check_calls(reader: Reader, rules: dict[str, Node], start: str) -> None:
    """Checks that there are all rules that are called."""
    if start not in rules:
        raise reader.error(f"it has no rule {start!r}, with which texts begin")
    waiting = list(rules.items())
    while waiting:
        name, node = waiting.pop()
        if isinstance(node, Call) and node.rule not in rules:
            raise reader.error(f"rule {name!r} calls {node.rule!r}, which there is not")
        for part in (*getattr(node, "parts", ()), *getattr(node, "options", ())):
            waiting.append((name, part))
        if inner := getattr(node, "node", None):
            waiting.append((name, inner))
