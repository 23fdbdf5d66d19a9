"""The tokens of each stack, for the strips and the inspector of the page."""

from __future__ import annotations

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
                "bytes": None if text is None or "\ufffd" in text else text.encode().hex(" "),
                "spelling": None if tokenizer is None else tokenizer.id_to_token(token),
                "special": tokenizer is not None and token in tokenizer.special_ids,
            }
        )
    return tokens


def names_of(ids: Sequence[int], tokenizer: Tokenizer | None) -> list[str]:
    """Returns tokens as the page shows them: `token_name`, with line breaks and the like as escapes."""
    return ["".join(map(_visible, token_name(id_, tokenizer))) for id_ in ids]


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
