"""Grammars as values: `Choices` and `Regex`; `generate(..., grammar=...)` takes them.

Each is frozen, compares by its content, prints as the call that makes it, and is read once, when it is made.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from typing import Any, Literal, get_args

from minitx.decoding.grammar.nodes import Either, Node, Rules, Series, literal
from minitx.decoding.grammar.syntax.gbnf import parse_gbnf
from minitx.decoding.grammar.syntax.lark import parse_lark
from minitx.decoding.grammar.syntax.regex import parse_regex
from minitx.decoding.grammar.syntax.schema import Whitespace, schema_rules
from minitx.decoding.parameters import set_frozen
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_choice, check_strings, check_type

Syntax = Literal["gbnf", "lark"]


class TextGrammar:
    """A set of texts; the output of `generate(..., grammar=...)` is one of them.

    The text of a row is what its new tokens add to the prompt. If a row reaches max_new_tokens first, it is
    the beginning of such a text.
    """

    @property
    @abstractmethod
    def rules(self) -> Rules:
        """The rules of the grammar."""


@dataclass(frozen=True)
class Choices(TextGrammar):
    """One of several texts.

    Every way to split a text into tokens is allowed.

    Args:
        texts: at least one; none of them empty.

    Raises:
        TypeError: not strings.
        ValueError: no text, an empty one, or one that UTF-8 cannot encode.
    """

    texts: Sequence[str]

    def __post_init__(self) -> None:
        texts: Any = self.texts
        if isinstance(texts, str | bytes | Mapping) or not isinstance(texts, Iterable):
            raise ArgumentTypeError(
                "Choices(texts)", texts, "a list of strings", 'e.g. Choices(["yes", "no"])'
            )
        texts = tuple(texts)
        for number, text in enumerate(texts):
            check_strings(**{f"Choices(texts)[{number}]": text})
            check_text(f"Choices(texts)[{number}]", text)
        if not texts:
            raise ArgumentValueError("Choices(texts)", texts, "at least one text")
        set_frozen(self, texts=texts)

    def __repr__(self) -> str:
        return f"Choices({list(self.texts)!r})"

    @cached_property
    def rules(self) -> Rules:
        """The rules of the grammar."""
        return Rules("choices", {"choices": _prefix_tree({*self.texts})})


@dataclass(frozen=True)
class Regex(TextGrammar):
    r"""The texts of a regular expression, as `re.fullmatch` finds them.

    An automaton cannot recognise backreferences, lookahead, lookbehind, atomic groups and possessive
    repetitions, which are errors, as are flags, `\b`, and anchors anywhere but at the ends. Lazy repetitions
    match the same texts as greedy ones.

    Args:
        pattern: in the syntax of Python's `re`; `\d`, `\w` and `\s` include all of Unicode, as there.

    Raises:
        TypeError: not a string.
        ValueError: an invalid expression, or one with a part that is not supported.
    """

    pattern: str

    def __post_init__(self) -> None:
        check_strings(**{"Regex(pattern)": self.pattern})
        _ = self.rules

    def __repr__(self) -> str:
        return f"Regex({self.pattern!r})"

    @cached_property
    def rules(self) -> Rules:
        """The rules of the grammar."""
        return Rules("regex", {"regex": parse_regex(self.pattern, parameter="Regex(pattern)")})


@dataclass(frozen=True)
class Grammar(TextGrammar):
    """The texts of a context-free grammar, which may be recursive in any way, and ambiguous.

    Args:
        text: of the grammar: llama.cpp's GBNF, whose texts begin with the rule `root`, or a subset of Lark's
            syntax, whose texts begin with the rule `start`. `gbnf.py` and `lark.py` describe both.
        syntax: "gbnf" or "lark".

    Raises:
        TypeError: not a string.
        ValueError: not a grammar, with the line; or a part that is not supported.
    """

    text: str
    syntax: Syntax = "gbnf"

    def __post_init__(self) -> None:
        check_strings(**{"Grammar(text)": self.text})
        check_choice("Grammar(syntax)", self.syntax, get_args(Syntax))
        _ = self.rules

    def __repr__(self) -> str:
        return f"Grammar({self.text!r}, syntax={self.syntax!r})"

    @cached_property
    def rules(self) -> Rules:
        """The rules of the grammar."""
        try:
            return parse_gbnf(self.text) if self.syntax == "gbnf" else parse_lark(self.text)
        except RecursionError as error:
            hint = "it is nested too deeply"
            raise ArgumentValueError("Grammar(text)", self.text, "a grammar", hint) from error


@dataclass(frozen=True)
class JsonSchema(TextGrammar):
    """The JSON texts of a schema (2020-12).

    Properties come in the order of the schema. Where it lists some, there are no others unless it states
    `additionalProperties`. Strings with a pattern, a format or listed values contain no escapes that are not
    needed. Numbers have no exponent if they have bounds, and at most six digits after the point.

    Args:
        schema: a dict, JSON text, or a class of pydantic, whose `model_json_schema()` it is. Kept as text.
        whitespace: "none", as in {"a":[1,2]}; "one" for an optional space after each comma and colon; or
            "any" for up to 20 white space characters wherever JSON allows them.

    Raises:
        TypeError: something else than a schema.
        ValueError: no JSON; or a keyword, value or combination that is not supported, or a schema that no
            value matches, with the place in the schema.
    """

    schema: Any
    whitespace: Whitespace = "one"

    def __post_init__(self) -> None:
        check_choice("JsonSchema(whitespace)", self.whitespace, get_args(Whitespace))
        set_frozen(self, schema=_schema_text(self.schema))
        _ = self.rules

    @cached_property
    def rules(self) -> Rules:
        """The rules of the grammar."""
        try:
            return schema_rules(json.loads(self.schema), self.whitespace)
        except RecursionError as error:
            hint = "it is nested too deeply, or leads to itself"
            raise ArgumentValueError("JsonSchema(schema)", self.schema, "a JSON schema", hint) from error


@dataclass(frozen=True)
class Lazy(TextGrammar):
    """A grammar that begins to apply after a trigger, as for calls of tools amid free text.

    Any text without the trigger is allowed, and may end anywhere. After the first trigger in the output comes
    a text of the grammar, and then the end. If the tokenizer has a special token of the trigger's name, that
    token is a trigger too; other special tokens are allowed before it, and interrupt it.

    Args:
        grammar: of the text after the trigger, not including it.
        trigger: e.g. "<tool>".

    Raises:
        TypeError: no grammar, or no string.
        ValueError: a lazy grammar, or an empty trigger.
    """

    grammar: TextGrammar
    trigger: str

    def __post_init__(self) -> None:
        check_type("Lazy(grammar)", self.grammar, TextGrammar, "a grammar such as Regex(...)")
        check_strings(**{"Lazy(trigger)": self.trigger})
        check_text("Lazy(trigger)", self.trigger)
        if isinstance(self.grammar, Lazy):
            raise ArgumentValueError("Lazy(grammar)", self.grammar, "a grammar that applies at once")

    def __repr__(self) -> str:
        return f"Lazy({self.grammar!r}, trigger={self.trigger!r})"

    @cached_property
    def rules(self) -> Rules:
        """The rules of the grammar."""
        return replace(self.grammar.rules, trigger=self.trigger)


def _prefix_tree(texts: set[str]) -> Node:
    """Returns the node of one of several texts, common beginnings once."""
    first, last = min(texts), max(texts)
    size = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    common, rests = first[:size], {text[size:] for text in texts}
    if rests == {""}:
        return literal(common)
    groups: dict[str, set[str]] = {}
    for rest in sorted(rests):
        groups.setdefault(rest[:1], set()).add(rest)
    return Series((literal(common), Either(tuple(map(_prefix_tree, groups.values())))))


def _schema_text(schema: Any) -> str:
    """Returns a schema as JSON text."""
    parameter = "JsonSchema(schema)"
    if isinstance(schema, type) and hasattr(schema, "model_json_schema"):
        schema = schema.model_json_schema()
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise ArgumentValueError(parameter, schema, "a JSON schema", f"it is no JSON: {error}") from error
    if not isinstance(schema, Mapping | bool):
        raise ArgumentTypeError(parameter, schema, "a JSON schema: a dict, JSON text, or a pydantic model")
    try:
        return json.dumps(schema, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentValueError(parameter, schema, "a JSON schema", f"it is no JSON: {error}") from error


def check_text(parameter: str, text: str) -> None:
    """Checks that a text is not empty and can be encoded, else raises ArgumentValueError."""
    if not text:
        raise ArgumentValueError(parameter, text, "a text of at least one character")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ArgumentValueError(parameter, text, "text that UTF-8 can encode", "a surrogate is half of one")
