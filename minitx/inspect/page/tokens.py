"""The tokens of each stack, for the strips and the inspector of the page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from minitx.inspect.pictures.subject import Subject, token_name
from minitx.tokenizer import Tokenizer


def tokens_of(subject: Subject, side: str) -> list[dict[str, Any]]:
    """Returns the tokens on a side of the model, each with what the inspector shows of it.

    Args:
        subject: the model and its text.
        side: "encoder" or "decoder".

    Returns:
        Per token: "id", "name" as pictures label it, "text" that it decodes to, "bytes" of that text in
        hexadecimal, "spelling" in the vocabulary, and whether it is "special".
    """
    tokenizer, ids = subject.tokenizer, subject.ids(side)
    tokens = []
    for token, name in zip(ids, names_of(ids, tokenizer), strict=True):
        text = None if tokenizer is None else tokenizer.decode([token], skip_special_tokens=False)
        tokens.append(
            {
                "id": token,
                "name": name,
                "text": text,
                "bytes": _bytes(text, name),
                "spelling": None if tokenizer is None else tokenizer.id_to_token(token),
                "special": tokenizer is not None and token in tokenizer.special_ids,
            }
        )
    return tokens


def names_of(ids: Sequence[int], tokenizer: Tokenizer | None) -> list[str]:
    """Returns tokens as the page shows them: `token_name`, with line breaks and the like as escapes."""
    return [visible(token_name(id_, tokenizer)) for id_ in ids]


def visible(text: str) -> str:
    """Returns a text with escapes in place of characters that cannot be printed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _bytes(text: str | None, name: str) -> str | None:
    """Returns the bytes of a token in hexadecimal; None where they are not known."""
    if byte := re.fullmatch(r"<0x([0-9A-F]{2})>", name):  # SentencePiece's name of a single byte
        return byte[1].lower()
    return None if text is None or "\ufffd" in text else text.encode("utf-8", "surrogatepass").hex(" ")
