"""The tokens of each stack, for the strips and the inspector of the page."""

from __future__ import annotations

from typing import Any

from minitx.inspect.pictures.subject import Subject, token_names


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
    for token, name in zip(ids, token_names(ids, tokenizer), strict=True):
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
