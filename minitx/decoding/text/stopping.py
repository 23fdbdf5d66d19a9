"""Conditions that end a row before its maximal number of tokens: tokens, text, repetition, functions, time.

Stop strings and the regex are searched in the text of the generated tokens, never in the prompt, and across
token boundaries. The text ends before the match; `Result.sequences` keeps every token up to the one that
completed it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from minitx.decoding.parameters import (
    POSITIVE,
    check_ids,
    check_size,
    check_vocabulary,
    set_frozen,
    to_comparable,
    to_plain,
)
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_callable, check_number, check_type

clock = time.monotonic  # in seconds
StopFunction = Callable[[int, list[int]], bool]


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Conditions that end a row, besides the number of its tokens.

    Before `min_new_tokens` none of them ends a row, `seconds` included.

    Args:
        eos: the end tokens; None for the checkpoint's, () to never end a row. The finish reason is "eos".
            Processors that forbid or force the end (`min_new_tokens`, ...) refer to these tokens.
        tokens: further ids that end a row, with the reason "stop".
        strings: strings that end a row, with the reason "stop". They need a tokenizer.
        include_stop: keep the stop string, the match of the regex, or the text of the stop token, in the
            text; end tokens and other special tokens are never part of it.
        regex: a regular expression of `re`, a string or compiled. The row ends, with the reason "stop", where
            `re.search` first finds a match in its text as that grows by characters. A match begins at most 64
            characters before the end of that text; so many wait in `stream`. It needs a tokenizer.
        function: (row, its generated ids) -> whether the row ends here, with the reason "stop". It is called
            after each token that has not ended the row by itself. Rows are numbered as in the result; in a
            search they are the prompts, and the function is called for every candidate.
        repetition: (length, times): the row ends, with the reason "stop", when its generated tokens end with
            a pattern of at most `length` tokens, `times` times in a row.
        seconds: of the call, the prefill included; looked at after each step. Every row that has not ended
            then does, with the reason "time".

    Raises:
        TypeError: values of the wrong type.
        ValueError: negative ids, an empty string, a regex that is none or that matches the empty text,
            numbers out of range.
    """

    eos: int | Sequence[int] | None = None
    tokens: int | Sequence[int] = ()
    strings: str | Sequence[str] = ()
    include_stop: bool = False
    regex: str | re.Pattern[str] | None = None
    function: StopFunction | None = None
    repetition: tuple[int, int] | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        check_type("include_stop", self.include_stop, bool, "True or False")
        eos = None if self.eos is None else _ids("eos", self.eos)
        set_frozen(self, eos=eos, tokens=_ids("tokens", self.tokens), strings=_strings(self.strings))
        set_frozen(self, regex=_regex(self.regex), repetition=_repetition(self.repetition))
        if self.function is not None:
            check_callable("Stop(function=...)", self.function, "it is called with a row and its tokens")
        if self.seconds is not None:
            hint = "the time that the call may take"
            seconds = check_number("Stop(seconds=...)", to_plain(self.seconds), POSITIVE, hint)
            set_frozen(self, seconds=seconds)

    def resolved(
        self, end_tokens: Sequence[int], vocab_size: int, tokenizer: Tokenizer | None
    ) -> ResolvedStop:
        """Resolves the conditions for one call, whose time begins.

        Args:
            end_tokens: of the checkpoint; ids that the model lacks, as in some configs, are ignored.
            vocab_size: the number of ids that the model can generate.
            tokenizer: of the request.

        Raises:
            ValueError: an id outside the vocabulary; strings or a regex without a tokenizer.
        """
        stop: Any = self  # whose fields are tuples since `__post_init__`
        tokens, strings = set(stop.tokens), stop.strings
        check_vocabulary("Stop(eos=...)", stop.eos or (), vocab_size)
        check_vocabulary("Stop(tokens=...)", tokens, vocab_size)
        searched = f"strings={strings!r}" if strings else f"regex={stop.regex and stop.regex.pattern!r}"
        if (strings or stop.regex is not None) and tokenizer is None:
            raise ValueError(
                f"Stop({searched}) is searched in text, which needs tokenizer=; or use "
                "Stop(tokens=...) for single tokens."
            )
        eos = tuple(token for token in end_tokens if token < vocab_size) if stop.eos is None else stop.eos
        # Special tokens are not part of the text, but their names are valid stop strings.
        if tokenizer is not None:
            tokens.update({*map(tokenizer.token_to_id, strings)} & {*tokenizer.special_ids})
        ids = (eos, frozenset(tokens).difference(eos), strings, self.include_stop)
        deadline = None if self.seconds is None else clock() + self.seconds
        return ResolvedStop(*ids, stop.regex, self.function, self.repetition, deadline)


@dataclass(frozen=True)
class ResolvedStop:
    """The conditions of a `Stop` for one call, as `Stop.resolved` returns them.

    Attributes:
        deadline: what the clock shows when the time of the call is over; None for no limit.
    """

    eos: tuple[int, ...]
    tokens: frozenset[int]
    strings: tuple[str, ...]
    include_stop: bool
    regex: re.Pattern[str] | None = None
    function: StopFunction | None = None
    repetition: tuple[int, int] | None = None
    deadline: float | None = None

    @property
    def is_late(self) -> bool:
        """Whether the time of the call is over."""
        return self.deadline is not None and clock() >= self.deadline

    @property
    def has_text(self) -> bool:
        """Whether text is searched."""
        return bool(self.strings) or self.regex is not None

    @property
    def needs_rows(self) -> list[str]:
        """The conditions that depend on more than the last token of a row, by name."""
        return [name for name in ("strings", "regex", "function", "repetition") if getattr(self, name)]

    def ends(self, row: int, tokens: list[int]) -> bool:
        """Whether the repetition or the function ends a row after these generated tokens.

        Raises:
            ArgumentTypeError: the function returns something other than True or False.
        """
        if self.repetition is not None and repeats(tokens, *self.repetition):
            return True
        if self.function is None:
            return False
        answer = to_plain(self.function(row, list(tokens)))
        check_type("Stop(function=...)", answer, bool, "a function that returns True or False")
        return bool(answer)


def repeats(tokens: Sequence[int], length: int, times: int) -> bool:
    """Returns whether the tokens end with a pattern of at most `length` tokens, `times` times in a row."""
    for size in range(1, min(length, len(tokens) // times) + 1):
        tail = tokens[-size * times :]
        if tail[-1] == tail[-1 - size] and tail[size:] == tail[:-size]:
            return True
    return False


def _ids(name: str, value: Any) -> tuple[int, ...]:
    """Returns one id or a list of them as a tuple."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    return check_ids(f"Stop({name}=...)", [plain] if isinstance(plain, int) else plain, empty=True)


def _strings(value: Any) -> tuple[str, ...]:
    strings = (value,) if isinstance(value, str) else value
    if not isinstance(strings, Sequence) or not all(isinstance(string, str) for string in strings):
        raise ArgumentTypeError("Stop(strings=...)", value, "a string or a list of strings")
    if "" in strings:
        hint = "every text ends with an empty one"
        raise ArgumentValueError("Stop(strings=...)", value, "non-empty strings", hint)
    if any("\ud800" <= character <= "\udfff" for string in strings for character in string):
        hint = "a lone surrogate is half of a character"
        raise ArgumentValueError("Stop(strings=...)", value, "text that UTF-8 can encode", hint)
    return tuple(strings)


def _regex(value: Any) -> re.Pattern[str] | None:
    """Returns a compiled regular expression."""
    if value is None:
        return None
    if not isinstance(value, str) and not (isinstance(value, re.Pattern) and isinstance(value.pattern, str)):
        hint = "several are one: a|b"
        raise ArgumentTypeError("Stop(regex=...)", value, "a string or a compiled pattern", hint)
    try:
        regex = re.compile(value)
    except re.error as error:
        expected = "a regular expression of Python's re"
        raise ArgumentValueError("Stop(regex=...)", value, expected, str(error)) from None
    if regex.search("") is not None:
        expected, hint = "a regular expression that does not match the empty text", "every row begins with it"
        raise ArgumentValueError("Stop(regex=...)", regex.pattern, expected, hint)
    return regex


def _repetition(value: Any) -> tuple[int, int] | None:
    """Returns (length, times)."""
    if value is None:
        return None
    pair = to_comparable(value)
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise ArgumentTypeError("Stop(repetition=...)", value, "two integers, (length, times)")
    length = check_size("Stop(repetition=...)[0]", pair[0], 1, "the longest pattern, in tokens")
    return length, check_size("Stop(repetition=...)[1]", pair[1], 2, "how often it occurs in a row")
