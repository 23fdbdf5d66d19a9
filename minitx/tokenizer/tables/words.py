"""Words of a text as BERT's original code splits it, which the checkpoints for tables were trained with.

Differs from `tokenizers` in rare characters: lower case depends on the whole word, and the classes of
characters are Python's. A special token is one where spaces surround it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass

_IDEOGRAPHS = re.compile(
    "([\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002ceaf\U0002f800-\U0002fa1f])"
)


@dataclass(frozen=True, kw_only=True)
class Words:
    """Splits texts into words and marks of punctuation.

    Attributes:
        lower: lower-case the words.
        strip_accents: None: as `lower`.
        ideographs: each is a word.
        never_split: words that stay as they are, the special tokens among them.
    """

    lower: bool
    strip_accents: bool | None
    ideographs: bool
    never_split: Collection[str]

    def __call__(self, text: str) -> list[str]:
        """Returns the words of a text."""
        text = "".join(map(_plain, text))
        if self.ideographs:
            text = _IDEOGRAPHS.sub(r" \1 ", text)
        parts = [part for word in unicodedata.normalize("NFC", text).split() for part in self._parts(word)]
        return " ".join(parts).split()

    def _parts(self, word: str) -> list[str]:
        if word in self.never_split:
            return [word]
        word = word.lower() if self.lower else word
        if self.strip_accents or (self.lower and self.strip_accents is None):
            word = "".join(c for c in unicodedata.normalize("NFD", word) if unicodedata.category(c) != "Mn")
        if word in self.never_split:
            return [word]
        return "".join(f" {c} " if _is_punctuation(c) else c for c in word).split(" ")


def _plain(character: str) -> str:
    """Returns a character; a space for white space, and nothing for controls."""
    if character in "\t\n\r" or unicodedata.category(character) == "Zs":
        return " "
    return "" if character == "\ufffd" or unicodedata.category(character)[0] == "C" else character


def _is_punctuation(character: str) -> bool:
    """Whether a character is punctuation, or a mark of ASCII."""
    marks = "!" <= character <= "~" and not character.isalnum()
    return marks or unicodedata.category(character)[0] == "P"
