"""Ids to text as they come, one token at a time.

Text cannot be made token by token: a token may hold half a character, WordPiece glues "##ing" to what is
before it, SentencePiece drops the space at the start of what it decodes. So a window of the last tokens
is decoded again with each new one, and what has grown behind the text already shown is the new text. The
window begins inside the prompt: the generated text continues it.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer

_HALF = "\ufffd"  # what a decoder shows for bytes that are no character, or not yet
_BYTES = 4  # of the longest character of UTF-8
_CONTEXT = 8  # tokens that are enough to see how the next one is joined to them
_WINDOW = 16  # a window longer than this is shortened to the context, where it can be
# Tidying (" n't" -> "n't") can still change so many characters at the end once more text comes.
_UNTIDY = 8


def text_of(token: int, tokenizer: Tokenizer | None, before: Sequence[int] = ()) -> str | None:
    """What a token adds to the text of the ids before it, special ones by their names.

    None where that is nothing that can be shown, as half a character. A token that adds nothing yet, as the
    space that SentencePiece drops at the start, is shown as the vocabulary writes it.
    """
    if tokenizer is None:
        return None
    special = frozenset(tokenizer.special_ids)
    context = [each for each in before[-_WINDOW:] if each not in special][-_CONTEXT:]
    start = tokenizer.decode(context)
    whole = tokenizer.decode([*context, token])
    joined = token not in special and whole.startswith(start)
    text = whole[len(start) :] if joined else tokenizer.decode([token])
    return None if _HALF in text else text or tokenizer.id_to_token(token)


class Detokenizer:
    """The text that one row's generated ids add to its prompt.

    The pieces, joined, are what `tokenizer.decode` of prompt and generated ids has behind the prompt's
    text, special tokens left out. A piece once given is never taken back: bytes of an unfinished
    character wait until it is finished, or until no character can come of them.

    Args:
        tokenizer: of the ids.
        prompt: the ids before; none for a text that stands alone.

    Attributes:
        rest: the text behind the pieces given so far that more tokens may still change.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._special = frozenset(tokenizer.special_ids)
        last = [*islice(filter(self._has_text, reversed(prompt)), _CONTEXT + _BYTES - 1)][::-1]
        # The window must not begin within a character.
        starts = range(max(0, len(last) - _CONTEXT), -1, -1)
        whole = (start for start in starts if not tokenizer.decode(last[start:]).startswith(_HALF))
        self._window = last[next(whole, 0) :]
        self._shown = len(self._text().rstrip(_HALF))
        self._waited = 0
        self.rest = ""

    def copy(self) -> Detokenizer:
        """The same text, to be continued in another way."""
        other = copy(self)
        other._window = list(self._window)
        return other

    def push(self, token: int) -> str:
        """Takes the next id; returns the text that is now certain, often one token's, sometimes none.

        An id without a token (models may have more of them than their tokenizer) adds nothing.
        """
        if not self._has_text(token):
            return ""
        self._window.append(token)
        text = self._text()
        settled = max(self._shown, self._settled(text))
        piece = text[self._shown : settled]
        self._shown = settled
        self.rest = text[settled:].rstrip(_HALF)
        if len(self._window) > (2 * _WINDOW if self._waited else _WINDOW):
            self._shorten(text)
        return piece

    def finish(self) -> str:
        """The text that was still uncertain; bytes that are no character show as U+FFFD."""
        text = self._text()
        piece = text[self._shown :]
        self._shown, self.rest = len(text), ""
        return piece

    def _has_text(self, token: int) -> bool:
        return token not in self._special and self._tokenizer.id_to_token(token) is not None

    def _text(self) -> str:
        return self._tokenizer.decode(self._window)

    def _settled(self, text: str) -> int:
        """How many characters of the window's text no further token can change."""
        if not text.endswith(_HALF):
            self._waited = 0
            return len(text) - (_UNTIDY if self._tokenizer.tidies_spaces else 0)
        self._waited += 1
        # Each token brings a byte at least. When there are enough of them for a whole character, those
        # before the last are known to be none.
        return len(text) - 1 if self._waited >= _BYTES else self._shown

    def _shorten(self, text: str) -> None:
        """Drops the oldest tokens, as far as what remains decodes to the same text without theirs."""
        newest = len(self._window) - _CONTEXT
        for start in range(newest, newest - _CONTEXT, -1):  # one of them begins a word, if words there are
            tail = self._tokenizer.decode(self._window[start:])
            dropped = len(text) - len(tail)
            if tail and text.endswith(tail) and dropped <= self._shown:
                self._window = self._window[start:]
                self._shown -= dropped
                return
