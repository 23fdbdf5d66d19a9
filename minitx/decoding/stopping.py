"""When a row ends before its number of tokens is reached: end tokens, stop tokens, stop strings.

Stop strings are looked for in the text of the generated tokens, never in the prompt, and wherever the
borders between tokens fall. The text ends before the match; `Result.sequences` keeps every token up to the
one that completed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minitx.decoding.parameters import check_ids, check_vocabulary, set_frozen

if TYPE_CHECKING:
    from minitx.decoding.detokenize import Detokenizer
    from minitx.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Stop:
    """What ends a row, besides the number of its tokens.

    Args:
        eos: the end tokens; None takes the checkpoint's, () never ends a row. The row's finish reason is
            "eos". Processors that forbid or force the end (`min_new_tokens`, ...) mean these tokens.
        tokens: further ids that end a row, with the reason "stop".
        strings: texts that end a row, with the reason "stop". Needs a tokenizer.
        include_stop: keeps in the text what stopped it, a stop string or the text of a stop token; end
            tokens and other special tokens are never part of the text.

    Raises:
        TypeError: values of another kind.
        ValueError: negative ids, an empty string.
    """

    eos: int | Sequence[int] | None = None
    tokens: int | Sequence[int] = ()
    strings: str | Sequence[str] = ()
    include_stop: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.include_stop, bool):
            raise TypeError(f"include_stop={self.include_stop!r} must be True or False.")
        eos = None if self.eos is None else _ids("eos", self.eos)
        set_frozen(self, eos=eos, tokens=_ids("tokens", self.tokens), strings=_strings(self.strings))

    def resolved(
        self, end_tokens: Sequence[int], vocab_size: int, tokenizer: Tokenizer | None
    ) -> ResolvedStop:
        """What this means for one model.

        Args:
            end_tokens: those of the checkpoint; some configs name ids that their model lacks, which are
                passed over.
            vocab_size: how many ids the model can generate.
            tokenizer: of the call.

        Raises:
            ValueError: an id outside the vocabulary; strings without a tokenizer.
        """
        named = None if self.eos is None else _ids("eos", self.eos)
        tokens, strings = set(_ids("tokens", self.tokens)), _strings(self.strings)
        check_vocabulary("Stop(eos=...)", named or (), vocab_size)
        check_vocabulary("Stop(tokens=...)", tokens, vocab_size)
        if strings and tokenizer is None:
            raise ValueError(
                f"Stop(strings={strings!r}) is looked for in text, which needs tokenizer=; or give the ids "
                "of single tokens as Stop(tokens=...)."
            )
        eos = [token for token in end_tokens if token < vocab_size] if named is None else named
        # Special tokens do not show in the text; asked for by their name they stop all the same.
        for string in strings:
            token = None if tokenizer is None else tokenizer.token_to_id(string)
            if tokenizer is not None and token in tokenizer.special_ids:
                tokens.add(token)
        return ResolvedStop(
            eos=tuple(eos),
            tokens=frozenset(tokens).difference(eos),
            strings=strings,
            include_stop=self.include_stop,
        )


@dataclass(frozen=True, kw_only=True)
class ResolvedStop:
    """`Stop`, with nothing left open: what `Stop.resolved` makes of it for one model."""

    eos: tuple[int, ...]
    tokens: frozenset[int]
    strings: tuple[str, ...]
    include_stop: bool


class RowText:
    """The text of one row as it grows, up to a stop string.

    Text is given out as soon as no stop string can begin in it any more.

    Args:
        detokenizer: of the row.
        strings: the stop strings.
        include_stop: whether the text keeps the one that ends it.
    """

    def __init__(
        self, detokenizer: Detokenizer, strings: Sequence[str] = (), include_stop: bool = False
    ) -> None:
        self._detokenizer = detokenizer
        self._strings = strings
        self._include_stop = include_stop
        self._held = ""  # certain, but perhaps the beginning of a stop string
        self._ignored = 0  # characters, from the start of `_held`, in which a match does not count

    def copy(self) -> RowText:
        """The same text, to be continued in another way."""
        other = RowText(self._detokenizer.copy(), self._strings, self._include_stop)
        other._held, other._ignored = self._held, self._ignored
        return other

    def push(self, token: int, *, may_stop: bool = True) -> tuple[str, bool]:
        """Takes the row's next token.

        Args:
            token: its id.
            may_stop: whether a stop string counts that this token completes.

        Returns:
            The text to give out, and whether it ends here, at a stop string.
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
        given = len(certain) - _could_become(certain, self._strings)
        self._held = certain[given:]
        self._ignored = max(0, self._ignored - given)
        return certain[:given], False

    def finish(self) -> str:
        """The text that was held back; the row has ended without a stop string."""
        return self._held + self._detokenizer.finish()


def _first_match(text: str, strings: Sequence[str], ignored: int) -> tuple[int, int] | None:
    """Start and end of the stop string that is complete first, with its end behind what is ignored.

    Complete first, of several the longest: so it does not matter which characters came in one token.
    """
    found = []
    for string in strings:
        start = text.find(string, max(0, ignored - len(string) + 1))
        if start >= 0:
            found.append((start + len(string), start))
    if not found:
        return None
    end, start = min(found)
    return start, end


def _could_become(text: str, strings: Sequence[str]) -> int:
    """How many characters at the end of the text are the beginning of a stop string; the most that are."""
    longest = max(map(len, strings)) - 1
    for size in range(min(longest, len(text)), 0, -1):
        if any(string.startswith(text[-size:]) for string in strings):
            return size
    return 0


def _ids(name: str, value: Any) -> tuple[int, ...]:
    """One id or any number of them."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    return check_ids(f"Stop({name}=...)", [plain] if isinstance(plain, int) else plain, empty=True)


def _strings(value: Any) -> tuple[str, ...]:
    strings = (value,) if isinstance(value, str) else value
    if not isinstance(strings, Sequence) or not all(isinstance(string, str) for string in strings):
        raise TypeError(f"Stop(strings={value!r:.60}) must be a string or a list of strings.")
    if "" in strings:
        raise ValueError('Stop(strings=...) holds "", which every text ends with; leave it out.')
    return tuple(strings)
