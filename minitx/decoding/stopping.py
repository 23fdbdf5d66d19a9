"""Conditions that end a row before its maximal number of tokens: end tokens, stop tokens, stop strings.

Stop strings are searched in the text of the generated tokens, never in the prompt, and across token
boundaries. The text ends before the match; `Result.sequences` keeps every token up to the one that completed
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from minitx.decoding.detokenize import Detokenizer
from minitx.decoding.parameters import check_ids, check_vocabulary, set_frozen
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_type


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Conditions that end a row, besides the number of its tokens.

    Args:
        eos: the end tokens; None for the checkpoint's, () to never end a row. The finish reason is "eos".
            Processors that forbid or force the end (`min_new_tokens`, ...) refer to these tokens.
        tokens: further ids that end a row, with the reason "stop".
        strings: strings that end a row, with the reason "stop". They need a tokenizer.
        include_stop: keep the stop string, or the text of the stop token, in the text; end tokens and other
            special tokens are never part of it.

    Raises:
        TypeError: values of the wrong type.
        ValueError: negative ids, an empty string.
    """

    eos: int | Sequence[int] | None = None
    tokens: int | Sequence[int] = ()
    strings: str | Sequence[str] = ()
    include_stop: bool = False

    def __post_init__(self) -> None:
        check_type("include_stop", self.include_stop, bool, "True or False")
        eos = None if self.eos is None else _ids("eos", self.eos)
        set_frozen(self, eos=eos, tokens=_ids("tokens", self.tokens), strings=_strings(self.strings))

    def resolved(
        self, end_tokens: Sequence[int], vocab_size: int, tokenizer: Tokenizer | None
    ) -> ResolvedStop:
        """Resolves the conditions for one model.

        Args:
            end_tokens: of the checkpoint; ids that the model lacks, as in some configs, are ignored.
            vocab_size: the number of ids that the model can generate.
            tokenizer: of the request.

        Raises:
            ValueError: an id outside the vocabulary; strings without a tokenizer.
        """
        stop: Any = self  # whose fields are tuples since `__post_init__`
        tokens, strings = set(stop.tokens), stop.strings
        check_vocabulary("Stop(eos=...)", stop.eos or (), vocab_size)
        check_vocabulary("Stop(tokens=...)", tokens, vocab_size)
        if strings and tokenizer is None:
            raise ValueError(
                f"Stop(strings={strings!r}) is searched in text, which needs tokenizer=; or use "
                "Stop(tokens=...) for single tokens."
            )
        eos = tuple(token for token in end_tokens if token < vocab_size) if stop.eos is None else stop.eos
        # Special tokens are not part of the text, but their names are valid stop strings.
        if tokenizer is not None:
            tokens.update({*map(tokenizer.token_to_id, strings)} & {*tokenizer.special_ids})
        return ResolvedStop(eos, frozenset(tokens).difference(eos), strings, self.include_stop)


@dataclass(frozen=True)
class ResolvedStop:
    """The conditions of a `Stop` for one model, as `Stop.resolved` returns them."""

    eos: tuple[int, ...]
    tokens: frozenset[int]
    strings: tuple[str, ...]
    include_stop: bool


class RowText:
    """The growing text of one row, up to a stop string.

    Text is released as soon as no stop string can begin in it.

    Args:
        detokenizer: of the row.
        strings: the stop strings.
        include_stop: keep the stop string in the text.
    """

    def __init__(
        self, detokenizer: Detokenizer, strings: Sequence[str] = (), include_stop: bool = False
    ) -> None:
        self._detokenizer, self._strings, self._include_stop = detokenizer, strings, include_stop
        self._held = ""  # certain, but possibly the beginning of a stop string
        self._ignored = 0  # characters at the start of `_held` in which a match is ignored

    def copy(self) -> RowText:
        """Returns a copy that can be continued independently."""
        other = copy(self)
        other._detokenizer = self._detokenizer.copy()
        return other

    def push(self, token: int, *, may_stop: bool = True) -> tuple[str, bool]:
        """Appends the row's next token.

        Args:
            token: its id.
            may_stop: a stop string that this token completes ends the text.

        Returns:
            The text to release, and whether it ends here, at a stop string.
        """
        certain = self._held + self._detokenizer.push(token)
        if not self._strings:
            return certain, False
        text = certain + self._detokenizer.rest
        if not may_stop:
            self._ignored = len(text)
        match = _first_match(text, self._strings, self._ignored)
        if match is not None:
            start, end = match
            return text[: end if self._include_stop else start], True
        released = len(certain) - _possible_start(certain, self._strings)
        self._held = certain[released:]
        self._ignored = max(0, self._ignored - released)
        return certain[:released], False

    def finish(self) -> str:
        """Returns the text that was held back; the row has ended without a stop string."""
        return self._held + self._detokenizer.finish()


def _first_match(text: str, strings: Sequence[str], ignored: int) -> tuple[int, int] | None:
    """Returns start and end of the stop string that is completed first, after the ignored characters.

    Of several that end there the longest: so the boundaries of tokens do not matter.
    """
    starts = {string: text.find(string, max(0, ignored - len(string) + 1)) for string in strings}
    matches = [(start + len(string), start) for string, start in starts.items() if start >= 0]
    return min(matches)[::-1] if matches else None


def _possible_start(text: str, strings: Sequence[str]) -> int:
    """Returns the largest number of characters at the end of the text that begin a stop string."""
    sizes = range(min(max(map(len, strings)) - 1, len(text)), 0, -1)
    return next((size for size in sizes if any(s.startswith(text[-size:]) for s in strings)), 0)


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
