"""What the parameters of processors must satisfy, and how they meet a batch.

A numeric parameter is one number, or one per row. It is kept as a float (int) or a tuple of them, so
that processors and strategies can be compared and printed; it becomes a tensor when it meets
the logits. How many rows there are is known earlier, so that is checked before any work (`check_rows`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from typing import Any, TypeVar

import torch
from torch import Tensor

from minitx.decoding.processors.context import Scope

Numbers = float | Sequence[float] | Tensor
Item = TypeVar("Item", int, float)
Integers = int | Sequence[int] | Tensor

LARGEST = 2**63 - 1  # that a tensor of whole numbers can hold


class PerRow(tuple[Any, ...]):
    """One value of a parameter for each row.

    Attributes:
        name: what an error calls them.
    """

    name: str


def number(name: str, value: Any, interval: str, meaning: str) -> float | tuple[float, ...]:
    """One real number or one per row, all of them in the interval.

    Args:
        name: of the parameter, for the error.
        value: a number, or a list, tuple, array or tensor of one dimension.
        interval: as in mathematics: "(0, 1]" leaves out 0 and has 1 in it; inf stands for no limit.
        meaning: what the error adds, so that the reader knows which value to choose.

    Raises:
        TypeError: something else than numbers; a bool.
        ValueError: a number outside the interval, NaN, an empty list, more than one dimension.
    """
    expected = f"a number in {interval}; {meaning}."

    def checked(item: Any) -> float:
        if isinstance(item, bool) or not isinstance(item, Real):
            raise TypeError(f"{name}={_short(value)} holds {_kind(item)}; expected {expected}")
        try:
            found = float(item)
        except OverflowError:  # a whole number too large for a float
            found = -math.inf if item < 0 else math.inf
        if not _inside(found, interval):
            raise ValueError(f"{name}={_short(value)} must be in {interval}; {meaning}.")
        return found

    return _one_or_rows(name, value, checked)


def integer(name: str, value: Any, minimum: int, meaning: str) -> int | tuple[int, ...]:
    """One whole number or one per row, each at least `minimum`; raises as `number` does."""

    def checked(item: Any) -> int:
        if isinstance(item, bool) or not isinstance(item, Integral):
            raise TypeError(
                f"{name}={_short(value)} holds {_kind(item)}; expected a whole number of at least {minimum}; "
                f"{meaning}."
            )
        if item < minimum:
            raise ValueError(f"{name}={_short(value)} must be at least {minimum}; {meaning}.")
        if int(item) > LARGEST:
            raise ValueError(f"{name}={_short(value)} is more than {LARGEST}, the largest whole number.")
        return int(item)

    return _one_or_rows(name, value, checked)


def check_sequences(name: str, words: Sequence[Any]) -> None:
    """
    Args:
        name: of the parameter.
        words: each a list of ids, or a list of such lists.

    Raises:
        TypeError: a text in the place of its ids, or an id in the place of a list.
    """
    for number, word in enumerate(words):
        several = word if isinstance(word, Sequence) and not isinstance(word, str) else [word]
        text = next((each for each in several if isinstance(each, str)), None)
        if text is not None:
            raise TypeError(
                f"{name}[{number}] is given as text; expected its ids: "
                f"tokenizer.encode({text!r:.40}, add_special_tokens=False)."
            )
        if isinstance(word, Integral):
            single = all(isinstance(each, Integral) for each in words)
            hint = f"; did you mean {[[int(each) for each in words]]!r:.60}?" if single else "."
            raise TypeError(f"{name}[{number}] is {word!r}; expected a list of token ids for each word{hint}")


def token_ids(name: str, value: Any, *, empty: bool = False) -> tuple[int, ...]:
    """Token ids from any collection of them, in its order.

    Raises:
        TypeError: no collection, or something in it that is no whole number.
        ValueError: a negative id; no ids, unless `empty` allows that.
    """
    value = _plain(value)
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name}={_short(value)} is {_kind(value)}; expected a list of token ids.")
    ids = tuple(value)
    for token in ids:
        token_id(name, token)
    if not ids and not empty:
        raise ValueError(f"{name} holds no token ids; leave it out if there are none.")
    return tuple(int(token) for token in ids)


def token_id(name: str, value: Any) -> int:
    """One token id; raises as `token_ids` does."""
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} holds {_short(value)}, {_kind(value)}; a token id is a whole number.")
    if value < 0:
        raise ValueError(f"{name} holds {value}; a token id is at least 0.")
    return int(value)


def scope(name: str, value: Any) -> Scope:
    """Which part of the history counts: "all", "output", or a whole number n for the last n tokens.

    Raises:
        ValueError: anything else.
    """
    value = _plain(value)
    if value in ("all", "output"):
        return "all" if value == "all" else "output"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ValueError(
        f'{name}={_short(value)} must be "all" (prompt and output), "output", or a whole number n of at '
        "least 1 (the last n tokens)."
    )


def within_vocabulary(name: str, ids: Iterable[int], vocab_size: int) -> None:
    """Raises ValueError unless all ids are below the size of the vocabulary."""
    largest = max(ids, default=-1)
    if largest >= vocab_size:
        raise ValueError(
            f"{name} holds token {largest}, but the model's vocabulary has the ids 0 to {vocab_size - 1}."
        )


def per_row(name: str, value: Numbers, like: Tensor, dtype: torch.dtype | None = None) -> Any:
    """A parameter as it meets a batch: a number, or a tensor (B,) on the device of `like`, with its dtype.

    Raises:
        ValueError: another number of values than rows, which are the first dimension of `like`.
    """
    if isinstance(value, int | float):
        return value
    check_rows(name, value, like.shape[0])
    return torch.as_tensor(value, dtype=dtype or like.dtype, device=like.device)


def check_rows(name: str, values: Sequence[float] | Tensor, rows: int, per_prompt: int = 1) -> None:
    """
    Args:
        name: of the parameter.
        values: one per row.
        rows: how many there are.
        per_prompt: how many of them a prompt has: samples, or beams.

    Raises:
        ValueError: another number of values than rows.
    """
    if len(values) != rows:
        product = f" ({rows // per_prompt} prompts x {per_prompt} rows)" if per_prompt > 1 else ""
        raise ValueError(
            f"{name} has {len(values)} values, one per row, but there are {rows} rows{product}; give one "
            "number or one per row."
        )


def column(name: str, value: Numbers, logits: Tensor) -> Any:
    """`per_row` for logits (B, V): a number, or a tensor (B, 1)."""
    rows = per_row(name, value, logits)
    return rows[:, None] if isinstance(rows, Tensor) else rows


def set_frozen(instance: Any, **values: Any) -> None:
    """Sets fields of a frozen dataclass to what was checked, in its __post_init__."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)


def _one_or_rows(name: str, value: Any, checked: Callable[[Any], Item]) -> Item | tuple[Item, ...]:
    plain = _plain(value)
    if not isinstance(plain, list | tuple):
        return checked(plain)
    if not plain or any(isinstance(_plain(item), list | tuple) for item in plain):
        raise ValueError(f"{name}={_short(value)} must be one number, or a list of one per row.")
    values = PerRow(checked(_plain(item)) for item in plain)
    values.name = name
    return values


def _plain(value: Any) -> Any:
    """Tensors and arrays as Python numbers and lists."""
    return value.tolist() if hasattr(value, "tolist") else value


def _inside(value: float, interval: str) -> bool:
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = value > low if interval[0] == "(" else value >= low
    below = value < high if interval[-1] == ")" else value <= high
    return above and below  # NaN is neither


def _short(value: Any) -> str:
    text = repr(_plain(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _kind(value: Any) -> str:
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
