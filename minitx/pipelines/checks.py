"""Checks of texts and of tokenizers that tasks share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minitx.habits import ARGUMENTS, argument_hint
from minitx.validation import ArgumentValueError, warn

_ROLES = ("pad", "bos", "eos", "cls", "sep")
_CONSTRUCTION = (
    "model",
    "tokenizer",
    "dtype",
    "device",
    "batch_size",
    "revision",
    "token",
    "offline",
    "progress",
    "details",
)
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


def check_stride(name: str, stride: int, room: int) -> None:
    """Checks that windows of `room` tokens, special ones not included, advance.

    Raises:
        ArgumentValueError: a stride of all of a window.
    """
    if stride >= room > 0:
        hint = f"a window has room for {room} tokens of text; max_length= states another limit"
        raise ArgumentValueError(name, stride, f"less than {room}", hint)


def note_truncation(task: Any, groups: Sequence[Sequence[Any]], options: Any) -> None:
    """Warns about requests that were truncated."""
    long = [index for index, items in enumerate(groups) if any(item.truncated for item in items)]
    if long:
        count = f"{len(long)} of {len(groups)} inputs of {task.spec.name}"
        warn(f"{count} were too long and were truncated, the first at index {long[0]}; {task.remedy}.")


def note_windows(task: Any, groups: Sequence[Sequence[Any]], options: Any) -> None:
    """Warns about a stride of more than half of a window, which multiplies the work."""
    name = "stride" if getattr(options, "doc_stride", None) is None else "doc_stride"
    stride, limit = getattr(options, name, None), task.limit(options)
    if stride is None or limit is None or options.overflow != "window":
        return
    divided = [
        items for items in groups if any(item.encoding and item.encoding.overflowing for item in items)
    ]
    count = sum(map(len, divided))
    if count and 2 * stride > limit:
        warn(
            f"{name}={stride} is more than half of a window of {limit} tokens: {count} windows for "
            f"{len(groups)} inputs of {task.spec.name}; a lower {name} is faster."
        )


def option_hint(name: str, known: Sequence[str]) -> str:
    """Returns the hint about an unknown option of a task."""
    if name in _CONSTRUCTION and name not in ARGUMENTS["pipeline"]:
        return f"Give it to pipeline(): pipeline(..., {name}=...)."
    return argument_hint("pipeline", name, known)


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
