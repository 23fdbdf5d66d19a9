"""Checks of texts and of tokenizers that tasks share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minitx.validation import ArgumentValueError

_ROLES = ("pad", "bos", "eos", "cls", "sep")
_ADDED = 16  # tokens that users add to a tokenizer, such as one for padding


def check_unicode(name: str, text: str) -> None:
    """Checks that a text is valid Unicode.

    Raises:
        ArgumentValueError: half of a surrogate pair.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        expected = f"valid Unicode; it has a lone surrogate at character {error.start}"
        hint = "text.encode('utf-8', 'replace').decode() replaces it"
        raise ArgumentValueError(name, ascii(text[error.start]), expected, hint) from None


def check_tokenizer(model: Any, tokenizer: Any) -> None:
    """Checks that a tokenizer is not clearly that of another model.

    Checkpoints may lack special ids, and a few tokens may be added to a tokenizer: only a contradiction of
    all the special ids that both state, two at least, or many tokens without an embedding are an error.

    Raises:
        ArgumentValueError: a tokenizer of another model.
    """
    size, count = model.config.text_inputs.vocab_size, len(tokenizer)
    if count > size + max(_ADDED, size // 10):
        hint = f"the model has {size} tokens, the tokenizer {count}"
        raise ArgumentValueError("tokenizer", tokenizer, "that of the model", hint)
    config = {} if model.checkpoint is None else model.checkpoint.config
    stated, own = {}, {}
    for role in _ROLES:
        ids, token_id = _ids(config.get(f"{role}_token_id")), getattr(tokenizer, f"{role}_token_id")
        if ids and token_id is not None:
            stated[f"{role}_token_id"], own[f"{role}_token_id"] = ids, token_id
    if len(stated) > 1 and not any(own[name] in ids for name, ids in stated.items()):
        name = next(iter(stated))
        hint = (
            f"none of {', '.join(stated)} agrees: {name} is {stated[name][0]} of the model, {own[name]} here"
        )
        raise ArgumentValueError("tokenizer", tokenizer, "that of the model", hint)


def _ids(value: Any) -> Sequence[int]:
    values = value if isinstance(value, list | tuple) else [value]
    return [index for index in values if type(index) is int]
