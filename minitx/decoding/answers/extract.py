"""The answer in a text: the last number, the last match of a pattern, or what a function finds."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from minitx.decoding.output import Result
from minitx.validation import ArgumentTypeError, ArgumentValueError

Extract = str | Callable[[str], Hashable] | None

_NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")


class Answer(NamedTuple):
    """An answer, and the characters of the text that state it; -1 if a function found it elsewhere."""

    value: Hashable
    start: int
    end: int


def check_extract(extract: Any) -> Extract:
    """Checks the way to find an answer.

    Raises:
        ArgumentTypeError, ArgumentValueError: not a function or a pattern, or one that is not valid.
    """
    if isinstance(extract, str):
        try:
            re.compile(extract)
        except re.error as error:
            raise ArgumentValueError("extract", extract, "a regular expression", str(error)) from None
    elif extract is not None and not callable(extract):
        expected = "a function from a text to its answer or None, a regular expression, or None"
        raise ArgumentTypeError("extract", extract, expected)
    checked: Extract = extract
    return checked


def find_answer(text: str, extract: Extract) -> Answer | None:
    """Returns the answer of a text, or None.

    Args:
        text: of a sample.
        extract: a regular expression, whose last match, or its first group if it has one, is the answer; a
            function from the text to an answer or None; None for the last number, without commas and zeros
            at its end.
    """
    if callable(extract):
        value = extract(text)
        if not isinstance(value, Hashable):
            raise ArgumentTypeError("extract", value, "a function that returns a hashable answer, or None")
        start = text.rfind(str(value))
        return None if value is None else Answer(value, start, start + len(str(value)) if start >= 0 else -1)
    pattern = re.compile(_NUMBER if extract is None else extract)
    group = 1 if pattern.groups else 0
    matches = [match for match in pattern.finditer(text) if match.group(group) is not None]
    if not matches:
        return None
    value, (start, end) = matches[-1].group(group), matches[-1].span(group)
    if extract is None:
        value = value.replace(",", "")
        value = value.rstrip("0").rstrip(".") if "." in value else value
    return Answer(value, start, end)


def texts_of(texts: Any) -> list[str]:
    """Returns the texts of a result, or a list of strings.

    Raises:
        ArgumentTypeError: anything else.
        ArgumentValueError: no texts, or a result without them.
    """
    if isinstance(texts, Result):
        if texts.texts is None:
            raise ArgumentValueError("texts", texts, "a result with texts", "pass tokenizer= to generate")
        texts = texts.texts
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise ArgumentTypeError("texts", texts, "a Result of generate, or a list of strings")
    if not texts:
        raise ArgumentValueError("texts", texts, "at least one text")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ArgumentTypeError(f"texts[{index}]", text, "a string")
    return list(texts)
