"""Incremental detokenization: ids to text, one token at a time.

Tokens cannot be decoded one by one: a token may hold half a character, WordPiece joins "##ing" to the token
before it, SentencePiece drops the space at the start. So a window of the last tokens is decoded again with
each new one, and the text after the part already returned is new. The window begins inside the prompt, which
the generated text continues.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from itertools import islice

from minitx.tokenizer import Tokenizer

_HALF = "\ufffd"  # stands for bytes that are no character, or not yet
_BYTES = 4  # of the longest UTF-8 character
_CONTEXT = 8  # tokens that suffice to decide how the next one is joined
_WINDOW = 16  # a longer window is shortened to the context where possible
# Clean-up (" n't" -> "n't") can change this many characters at the end when more text follows.
_UNSETTLED = 8


def text_of(token: int, tokenizer: Tokenizer | None, before: Sequence[int] = ()) -> str | None:
    """Returns the text that a token adds to the ids before it; special tokens by their names.

    None where there is no such text, as for half a character; empty for an id without a token (models may
    have more ids than their tokenizer). A token that adds nothing yet, as the space that SentencePiece drops
    at the start, is spelled as in the vocabulary.
    """
    if tokenizer is None:
        return None
    special = frozenset(tokenizer.special_ids)
    context = [id_ for id_ in before[-_WINDOW:] if id_ not in special][-_CONTEXT:]
    start = tokenizer.decode(context)
    whole = tokenizer.decode([*context, token])
    joined = token not in special and whole.startswith(start)
    text = whole[len(start) :] if joined else tokenizer.decode([token])
    return None if _HALF in text else text or tokenizer.id_to_token(token) or ""


class Detokenizer:
    """The text that one row's generated ids add to its prompt.

    The joined pieces equal the text of `tokenizer.decode` of prompt and generated ids after the prompt's
    text, without special tokens. No piece is ever taken back: bytes of an unfinished character wait until it
    is complete, or until they cannot become one.

    Args:
        tokenizer: of the ids.
        prompt: the ids before; empty for a text on its own.
        repeated: the number of characters of the following text that are not returned.

    Attributes:
        rest: the text after the returned pieces that more tokens may still change.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = (), repeated: int = 0) -> None:
        self._tokenizer = tokenizer
        self._special = frozenset(tokenizer.special_ids)
        last = [*islice(filter(self._has_text, reversed(prompt)), _CONTEXT + _BYTES - 1)][::-1]
        # The window must not begin within a character.
        starts = range(max(0, len(last) - _CONTEXT), -1, -1)
        whole = (start for start in starts if not tokenizer.decode(last[start:]).startswith(_HALF))
        self._window = last[next(whole, 0) :]
        self._shown = len(self._text().rstrip(_HALF)) + repeated
        self._waited = 0
        self.rest = ""

    def copy(self) -> Detokenizer:
        """Returns a copy that can be continued independently."""
        other = copy(self)
        other._window = list(self._window)
        return other

    def push(self, token: int) -> str:
        """Appends an id; returns the text that is now certain, often the token's, sometimes none.

        An id without a token (models may have more ids than their tokenizer) adds nothing.
        """
        if not self._has_text(token):
            return ""
        self._window.append(token)
        text = self._text()
        start, self._shown = self._shown, max(self._shown, self._settled(text))
        self.rest = text[self._shown :].rstrip(_HALF)
        piece = text[start : self._shown]
        if len(self._window) > (2 * _WINDOW if self._waited else _WINDOW):
            self._shorten(text)
        return piece

    def finish(self) -> str:
        """Returns the text that was still uncertain; bytes that are no character become U+FFFD."""
        text, start = self._text(), self._shown
        self._shown, self.rest = len(text), ""
        return text[start:]

    def _has_text(self, token: int) -> bool:
        return token not in self._special and self._tokenizer.id_to_token(token) is not None

    def _text(self) -> str:
        return self._tokenizer.decode(self._window)

    def _settled(self, text: str) -> int:
        """Returns the number of characters of the window's text that no further token can change."""
        if not text.endswith(_HALF):
            self._waited = 0
            return len(text) - (_UNSETTLED if self._tokenizer.tidies_spaces else 0)
        self._waited += 1
        # Each token adds at least a byte. Once there are enough for a character, those before the last are
        # known to be none.
        return len(text) - 1 if self._waited >= _BYTES else self._shown

    def _shorten(self, text: str) -> None:
        """Drops the oldest tokens, if the rest decodes to the same text without theirs."""
        newest = len(self._window) - _CONTEXT
        for start in range(newest, newest - _CONTEXT, -1):  # one of them begins a word, if there are words
            tail = self._tokenizer.decode(self._window[start:])
            dropped = len(text) - len(tail)
            if tail and text.endswith(tail) and dropped <= self._shown:
                self._window = self._window[start:]
                self._shown -= dropped
                return
