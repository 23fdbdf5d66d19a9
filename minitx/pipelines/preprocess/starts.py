"""The start of a long text that is truncated, so that the rest of it is not tokenized in vain."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer

_CHARACTERS = 32  # per token of the start
_MARGIN = 64  # tokens after the limit, among which those at the cut can differ from the text's


def start_of(text: str, tokenizer: Tokenizer, limit: int) -> str:
    """Returns the start of a text, with the same first `limit` tokens and more; a short text as it is.

    It ends before a space or line break. If it has too few tokens, as a text of white space has, the whole
    text is returned.

    Args:
        text: a string.
        tokenizer: of the text.
        limit: number of tokens.
    """
    most = _CHARACTERS * (limit + _MARGIN)
    if len(text) < 2 * most:
        return text
    start = text[: max(text.rfind(" ", 0, most), text.rfind("\n", 0, most), 0)]
    (encoding,) = tokenizer([start], add_special_tokens=False, as_tensors=False).encodings
    return start if len(encoding) > limit + _MARGIN else text
