"""Examples to rows of ids, and rows to padded tensors; the first and the last step of every objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any

from minitx.tokenizer.batch import collate as pad_rows
from minitx.training.objectives.base import IGNORED, Batch, Example
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    Interval,
    check_integer,
    check_number,
    check_strings,
    check_type,
)

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer

Row = dict[str, list[int]]
_REAL = Interval(-inf, inf, open_low=True, open_high=True)


def as_row(name: str, values: Any) -> list[int]:
    """Returns the ids of one example, from a list, an array or a tensor (T,).

    Args:
        name: of the entry, for messages.
        values: at least one integer.

    Raises:
        ArgumentTypeError: something other than integers.
        ArgumentValueError: no ids.
    """
    row = as_plain(values)
    if not isinstance(row, list | tuple) or not all(type(index) is int for index in row):
        raise ArgumentTypeError(name, values, "a list of ids")
    if not row:
        raise ArgumentValueError(name, values, "at least one id", "leave empty examples out")
    return list(row)


def as_plain(value: Any) -> Any:
    """Returns an array or a tensor as a list or a number, any other value as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def check_real(name: str, value: Any, hint: str = "") -> float:
    """Returns a finite number: the value, also as a tensor, or that of a text such as "-3.5" in a table.

    Raises:
        ArgumentTypeError, ArgumentValueError: anything else.
    """
    number = as_plain(value)
    if isinstance(number, str):
        with suppress(ValueError):
            number = float(number)
    return check_number(name, number, _REAL, hint)


def entry(example: Example, name: str, index: int, hint: str = "") -> Any:
    """Returns an entry of an example.

    Args:
        example: a mapping.
        name: of the entry.
        index: of the example in the batch, for messages.
        hint: what else it may have.

    Raises:
        ArgumentValueError: the example does not have it.
    """
    check_type(f"examples[{index}]", example, Mapping, "a mapping, such as a dict")
    if name not in example:
        raise ArgumentValueError(f"examples[{index}]", sorted(example), f"an example with {name!r}", hint)
    return example[name]


def encode(example: Example, index: int, tokenizer: Tokenizer | None, max_length: int | None = None) -> Row:
    """Returns the inputs of one example: its ids, or those of its text.

    Args:
        example: with `input_ids` and, where the model has them, `token_type_ids`; or with `text`, and `pair`
            for a second text.
        index: of the example in the batch, for messages.
        tokenizer: of the texts; None: the examples have ids.
        max_length: maximum number of tokens of a text; None: all of them.

    Raises:
        ArgumentTypeError, ArgumentValueError: neither ids nor a text, or no tokens.
    """
    check_type(f"examples[{index}]", example, Mapping, "a mapping, such as a dict")
    if tokenizer is not None and "input_ids" not in example:
        text = entry(example, "text", index, "or with 'input_ids'")
        return encode_text(f"examples[{index}]['text']", text, tokenizer, max_length, example.get("pair"))
    names = [name for name in ("input_ids", "token_type_ids") if name in example] or ["input_ids"]
    return {name: as_row(f"examples[{index}][{name!r}]", entry(example, name, index)) for name in names}


def encode_text(
    name: str,
    text: str,
    tokenizer: Tokenizer,
    max_length: int | None,
    pair: str | None = None,
    *,
    as_target: bool = False,
) -> Row:
    """Returns the inputs of one text or pair.

    Args:
        name: of the text, for messages.
        text: with at least one token.
        tokenizer: of the model.
        max_length: maximum number of tokens; None: all of them.
        pair: the second text.
        as_target: the text is a target, as for a call of the tokenizer.

    Raises:
        ArgumentTypeError, ArgumentValueError: not a text, or no tokens.
    """
    check_strings(**{name: text})
    encoded = tokenizer(
        [text],
        pairs=None if pair is None else [pair],
        truncation=max_length is not None,
        max_length=max_length,
        as_target=as_target,
        as_tensors=False,
    )
    row = row_of(encoded)
    if not row["input_ids"]:
        raise ArgumentValueError(name, text, "a text with at least one token", "leave empty examples out")
    return row


def row_of(batch: Mapping[str, Sequence[Any]], index: int = 0) -> Row:
    """Returns a row of a tokenizer's batch of lists, without the mask, which `collate` adds."""
    return {name: list(rows[index]) for name, rows in batch.items() if name != "attention_mask"}


def check_same_length(name: str, values: Sequence[Any], others: Sequence[Any], other: str) -> None:
    """Checks that there is a value for each entry of `other`, else raises ArgumentValueError."""
    if len(values) != len(others):
        expected = f"one for each of {other}, {len(others)} and not {len(values)}"
        raise ArgumentValueError(name, values, expected)


def check_optional_integers(minimum: int, **values: Any) -> None:
    """Checks that each value is None or an integer of at least `minimum`, else raises an argument's error."""
    for name, value in values.items():
        if value is not None:
            check_integer(name, value, minimum)


def collate(rows: Sequence[Row], pad_token_id: int) -> Batch:
    """Pads rows to one length, on the right, and adds `attention_mask`: B rows -> (B, T) each.

    Args:
        rows: with `input_ids`, and where they have them `token_type_ids` or `labels`.
        pad_token_id: id of padding; labels are padded with -100.

    Raises:
        ArgumentValueError: no rows, or rows with different entries.
    """
    check_rows(rows)
    return pad_rows(rows, input_ids=pad_token_id, labels=IGNORED)


def check_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Checks that there are rows and that all have the same entries, else raises ArgumentValueError."""
    if not rows:
        raise ArgumentValueError("examples", rows, "at least one example")
    for index, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            expected = f"an example with {', '.join(rows[0])}, like the first"
            raise ArgumentValueError(f"examples[{index}]", sorted(row), expected)


def padding_id(tokenizer: Tokenizer | None) -> int:
    """Returns the id of padding. A tokenizer without a padding token has none, and the mask hides any id."""
    index = None if tokenizer is None else tokenizer.pad_token_id
    return 0 if index is None else index
