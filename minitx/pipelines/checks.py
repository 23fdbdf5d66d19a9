"""Checks of texts and of tokenizers that tasks share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from minitx.habits import ARGUMENTS, argument_hint
from minitx.validation import ArgumentTypeError, ArgumentValueError, warn

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
_SURROGATE = re.compile("[\ud800-\udfff]")
STRIDES = ("stride", "doc_stride")  # options for the overlap of windows
_ADDED = 16  # tokens that users add to a tokenizer, such as one for padding
_UNUSED = 1000  # embeddings without a token that a small vocabulary may have
_ADVICE = "without tokenizer= it is that of the model's folder"


def config_value(config: Mapping[str, Any], key: str, kind: type[Any], expected: str) -> Any:
    """Returns the value of a key of config.json, or None without any.

    Raises:
        ValueError: another kind of value.
    """
    value = config.get(key)
    if value is not None and not isinstance(value, kind):
        raise ValueError(f"config.json: {key}={value!r:.80} must be {expected}.")
    return value


def check_iterable(values: Any, hint: str) -> None:
    """Checks that the inputs of a call are an iterable with an order.

    Raises:
        ArgumentTypeError: not an iterable; bytes, a set, or a DataFrame.
    """
    expected = "a request, a list of requests, or an iterable"
    if isinstance(values, set | frozenset):
        hint = "a set has no order; make a list of it"
    elif isinstance(values, bytes | bytearray):
        hint = "text is a string: bytes.decode() returns one"
    elif hasattr(values, "columns") and hasattr(values, "itertuples"):  # of pandas
        hint = f"a DataFrame yields the names of its columns; pass list(df['text']); {hint}"
    elif isinstance(values, Iterable):
        return
    raise ArgumentTypeError("inputs", values, expected, hint)


def check_unicode(name: str, value: Any) -> None:
    """Checks that a text is valid Unicode, or all texts of nested lists and dicts.

    Raises:
        ArgumentValueError: half of a surrogate pair.
    """
    if isinstance(value, str):
        if not value.isascii() and (half := _SURROGATE.search(value)):
            expected = f"valid Unicode; it has a lone surrogate at character {half.start()}"
            hint = "text.encode('utf-8', 'replace').decode() replaces it"
            raise ArgumentValueError(name, half[0], expected, hint)
        return
    if isinstance(value, Mapping):
        parts: Iterable[tuple[Any, Any]] = value.items()
    else:
        parts = enumerate(value) if isinstance(value, list | tuple) else ()
    for key, part in parts:
        check_unicode(f"{name}[{key!r}]", part)


def check_windows(options: Any) -> None:
    """Checks that an overlap of windows is stated for windows only.

    Raises:
        ArgumentValueError: a stride that has no effect.
    """
    for name in STRIDES:
        value = getattr(options, name, None)
        if value is not None and options.overflow != "window":
            expected = f"left out with overflow={options.overflow!r}"
            raise ArgumentValueError(name, value, expected, 'it is the overlap of windows, overflow="window"')


def check_max_length(options: Any, limit: int | None) -> None:
    """Checks that a limit of the user is not above that of the model.

    Raises:
        ArgumentValueError: it is, and would have no effect.
    """
    for name in ("max_length", "max_seq_len"):
        value = getattr(options, name, None)
        if value is not None and limit is not None and value > limit:
            hint = "the model takes no more tokens; leave it out to use all of them"
            raise ArgumentValueError(name, value, f"at most {limit}", hint)


def check_stride(name: str, stride: int, room: int) -> None:
    """Checks that windows of `room` tokens, special ones not included, advance.

    Raises:
        ArgumentValueError: a stride of all of a window.
    """
    if stride >= room > 0:
        hint = f"a window has room for {room} tokens of text; max_length= states another limit"
        raise ArgumentValueError(name, stride, f"less than {room}", hint)


def note_truncation(
    task: Any, groups: Sequence[Sequence[Any]], start: int = 0, total: int | None = 1
) -> bool:
    """Warns about requests that were truncated; returns whether it did.

    Args:
        task: of the pipeline.
        groups: inputs of the model for each request.
        start: index of the first request among all inputs of the call.
        total: number of these inputs; None if it is not known.
    """
    long = [index for index, items in enumerate(groups) if any(item.truncated for item in items)]
    if long:
        is_part = len(groups) != total
        inputs = f"inputs {start} to {start + len(groups) - 1}" if is_part else f"{len(groups)} inputs"
        count, first = f"{len(long)} of {inputs} of {task.spec.name}", start + long[0]
        later = " Later inputs have no note." * is_part
        warn(f"{count} were too long and were truncated, the first at index {first}; {task.remedy}.{later}")
    return bool(long)


def note_windows(task: Any, groups: Sequence[Sequence[Any]], options: Any) -> bool:
    """Warns about a stride of more than half of a window, which multiplies the work.

    Returns:
        Whether it warned.
    """
    name = "stride" if getattr(options, "doc_stride", None) is None else "doc_stride"
    stride, limit = getattr(options, name, None), task.limit(options)
    if stride is None or limit is None or options.overflow != "window":
        return False
    divided = [
        items for items in groups if any(item.encoding and item.encoding.overflowing for item in items)
    ]
    count = sum(map(len, divided))
    is_slow = count > 0 and 2 * stride > limit
    if is_slow:
        warn(
            f"{name}={stride} is more than half of a window of {limit} tokens: {count} windows for "
            f"{len(groups)} inputs of {task.spec.name}; a lower {name} is faster."
        )
    return is_slow


def option_hint(name: str, known: Sequence[str]) -> str:
    """Returns the hint about an unknown option of a task."""
    if name in _CONSTRUCTION and name not in ARGUMENTS["pipeline"]:
        return f"Give it to pipeline(): pipeline(..., {name}=...)."
    return argument_hint("pipeline", name, known)


def check_tokenizer(model: Any, tokenizer: Any) -> None:
    """Checks that a tokenizer is not clearly that of another model.

    Checkpoints may lack special ids, a few tokens may be added to a tokenizer, and embeddings are often more
    than tokens: only a contradiction of all the special ids that both state, two at least, many tokens
    without an embedding, or embeddings of which most are without a token are an error.

    Raises:
        ArgumentValueError: a tokenizer of another model.
    """
    size, count = model.config.text_inputs.vocab_size, len(tokenizer)
    if count > size + max(_ADDED, size // 10) or size > max(2 * count, count + _UNUSED):
        hint = f"the model has {size} tokens, the tokenizer {count}; {_ADVICE}"
        raise ArgumentValueError("tokenizer", tokenizer, "that of the model", hint)
    config = {} if model.checkpoint is None else model.checkpoint.config
    stated, own = {}, {}
    for role in _ROLES:
        ids, token_id = _ids(config.get(f"{role}_token_id")), getattr(tokenizer, f"{role}_token_id")
        if ids and token_id is not None:
            stated[f"{role}_token_id"], own[f"{role}_token_id"] = ids, token_id
    if len(stated) > 1 and not any(own[name] in ids for name, ids in stated.items()):
        listed = ", ".join(f"{name} is {own[name]}, of the model {stated[name][0]}" for name in stated)
        hint = f"its special tokens are others: {listed}; {_ADVICE}"
        raise ArgumentValueError("tokenizer", tokenizer, "that of the model", hint)


def _ids(value: Any) -> Sequence[int]:
    values = value if isinstance(value, list | tuple) else [value]
    return [index for index in values if type(index) is int]
