"""Parameters of decoding strategies, each declared once, by one field.

    min_p: Numbers = parameter(MinP, "drop tokens below P times the highest probability; 0: off", "P")

The chain of processors, `repr`, `help()`, the per-row checks and the command-line options follow from these
fields.

The second half checks values. A numeric parameter is one number, or one per row. It is kept as a float (int)
or a tuple of them, so that processors and strategies can be compared and printed. The number of rows is known
before the first forward pass, and is checked then (`NumericProcessor.check_rows`).
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from minitx.validation import ArgumentTypeError, ArgumentValueError, Interval, check_integer, check_number

Numbers = float | Sequence[float] | Tensor
Integers = int | Sequence[int] | Tensor

LARGEST_INTEGER = 2**63 - 1  # of torch.long
POSITIVE = Interval(0, torch.inf, open_low=True, open_high=True)
NON_NEGATIVE = Interval(0, torch.inf, open_high=True)

_KEY = "parameter"
_Factory = Callable[..., Any] | None

# --- declarations ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parameter:
    """The declaration of a parameter, from the metadata of its dataclass field.

    Attributes:
        processor: makes the processor from the value, from nothing where the value is True; `tuple` where the
            value is several processors; None where the strategy itself uses the value.
        off: the default, at which the parameter changes nothing.
        per_row: the value may be a list with one number per row.
        help: one or two sentences for `help()` and `--help`.
        metavar: name of the value in `--help`; None for a flag or a parameter without an option.
        needs: a field whose value, unless it is None, is the second argument of `processor`; "" for no field.
        then: the argument of `Strategy.build` whose processor follows this one; "" for no argument.
    """

    processor: _Factory
    off: Any
    per_row: bool
    help: str
    metavar: str | None
    needs: str = ""
    then: str = ""


def parameter(
    processor: _Factory, help: str, metavar: str | None = None, *, off: Any = None, **place: Any
) -> Any:
    """Returns the dataclass field of a parameter; the arguments are the attributes of `Parameter`.

    The `Rule` of a numeric processor defines `off`, `per_row` and a metavar: N for integers, X otherwise. A
    processor class may define `needs`.
    """
    rule: Rule | None = getattr(processor, "rule", None)
    if rule is not None:
        off, metavar = rule.off, metavar or ("N" if rule.interval is None else "X")
    # A class method has the attributes of its class.
    place = {"needs": getattr(getattr(processor, "__self__", processor), "needs", ""), **place}
    declared = Parameter(processor, off, rule is not None, help, metavar, **place)
    return field(default=off, metadata={_KEY: declared})


def parameters_of(strategy: Any) -> dict[str, Parameter]:
    """Returns the declared parameters of a strategy or its class by name, in the order of the fields."""
    return {field.name: field.metadata[_KEY] for field in fields(strategy) if _KEY in field.metadata}


def document(cls: type) -> None:
    """Appends an "Attributes:" section with the parameters that a class itself declares to its docstring.

    Works before and after the `dataclass` decorator.
    """
    declared: Mapping[str, Any] = vars(cls).get("__dataclass_fields__", vars(cls))
    texts = [
        textwrap.fill(
            f"{name}: {value.metadata[_KEY].help}.", 108, initial_indent=" " * 8, subsequent_indent=" " * 12
        )
        for name, value in declared.items()
        if isinstance(value, Field) and _KEY in value.metadata
    ]
    if texts:
        cls.__doc__ = "\n".join([f"{(cls.__doc__ or '').rstrip()}\n\n    Attributes:", *texts, "    "])


def set_frozen(instance: Any, **values: Any) -> None:
    """Sets fields of a frozen dataclass to their checked values, in its `__post_init__`."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)


# --- numbers, for all rows or per row --------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """The values of a numeric parameter: one number, or one per row.

    Attributes:
        parameter: its name in strategies and errors.
        hint: ends the message of an error, e.g. "0.0 keeps every token".
        interval: the allowed real numbers; None for the integers of at least 0.
        off: the value at which the parameter changes nothing; None if there is no such value.
    """

    parameter: str
    hint: str
    interval: Interval | None = None
    off: float | None = None

    def check(self, value: Any) -> Any:
        """Returns a number, or a tuple of one per row.

        Raises:
            ArgumentTypeError: not numbers; a bool is not accepted either.
            ArgumentValueError: a number out of range, NaN, an empty list, more than one dimension.
        """
        plain = to_plain(value)
        if not isinstance(plain, list | tuple):
            return self._number(self.parameter, plain)
        items = [to_plain(item) for item in plain]
        if not items or any(isinstance(item, list | tuple) for item in items):
            raise ArgumentValueError(self.parameter, value, "one number, or a list of one per row")
        return tuple(self._number(f"{self.parameter}[{row}]", item) for row, item in enumerate(items))

    def _number(self, name: str, value: Any) -> float:
        if self.interval is not None:
            return check_number(name, value, self.interval, self.hint)
        return check_size(name, value, hint=self.hint)


def check_size(parameter: str, value: Any, minimum: int = 0, hint: str = "") -> int:
    """Returns an integer that torch.long can hold.

    Raises:
        ArgumentTypeError: not an integer.
        ArgumentValueError: below `minimum` or above LARGEST_INTEGER.
    """
    size = check_integer(parameter, value, minimum, hint=hint)
    return check_integer(parameter, size, minimum, LARGEST_INTEGER, hint)


# --- token ids -------------------------------------------------------------------------------------


def check_id(parameter: str, value: Any) -> int:
    """Returns one token id.

    Raises:
        ArgumentTypeError: not an integer.
        ArgumentValueError: negative, or more than torch.long can hold.
    """
    return check_size(parameter, to_plain(value), hint="it is a token id")


def check_ids(parameter: str, value: Any, *, empty: bool = False) -> tuple[int, ...]:
    """Returns token ids from any collection of them, in its order.

    Raises:
        ArgumentTypeError: not a collection, or an element that is not an integer.
        ArgumentValueError: a negative id; no ids, unless `empty` allows that.
    """
    value = to_plain(value)
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise ArgumentTypeError(parameter, value, "a list of token ids")
    ids = tuple(check_id(f"{parameter}[{index}]", token) for index, token in enumerate(value))
    if not ids and not empty:
        raise ArgumentValueError(parameter, ids, "at least one token id", "leave it out for none")
    return ids


def check_sequences(parameter: str, sequences: Sequence[Any]) -> None:
    """Checks that each sequence is a list of token ids, or a list of such lists.

    Raises:
        ArgumentTypeError: text in place of token ids, or an id in place of a list.
    """
    for index, sequence in enumerate(sequences):
        name = f"{parameter}[{index}]"
        parts = sequence if isinstance(sequence, Sequence) and not isinstance(sequence, str) else [sequence]
        text = next((part for part in parts if isinstance(part, str)), None)
        if text is not None:
            encoded = f"tokenizer.encode({text!r:.40}, add_special_tokens=False)"
            raise ArgumentTypeError(name, sequence, "a list of token ids, not text", f"use {encoded}")
        if isinstance(sequence, Integral):
            single = all(isinstance(token, Integral) for token in sequences)
            hint = f"write {[[int(token) for token in sequences]]!r:.60}" if single else ""
            raise ArgumentTypeError(name, sequence, "a list of token ids", hint)


def check_vocabulary(parameter: str, ids: Iterable[int], vocab_size: int) -> None:
    """Checks that all token ids are in the vocabulary, else raises ArgumentValueError."""
    largest = max(ids, default=-1)
    if largest >= vocab_size:
        hint = "these are the ids of the model's vocabulary"
        raise ArgumentValueError(parameter, largest, f"from 0 to {vocab_size - 1}", hint)


# --- other values ----------------------------------------------------------------------------------


def to_plain(value: Any) -> Any:
    """Returns tensors and arrays as Python numbers and lists, anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def freeze(instance: Any) -> None:
    """Replaces the fields of a frozen dataclass by copies that can be compared."""
    set_frozen(instance, **{name: to_comparable(value) for name, value in vars(instance).items()})


def to_comparable(value: Any) -> Any:
    """Returns a copy that can be compared: tuples for lists, tensors and arrays, at any depth."""
    plain = to_plain(value)
    if isinstance(plain, Mapping):
        return dict(plain)
    return tuple(map(to_comparable, plain)) if isinstance(plain, list | tuple) else plain
