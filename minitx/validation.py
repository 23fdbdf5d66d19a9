"""Argument checks shared by the whole library, and the errors that they raise.

Every error names the parameter, the value and what was expected, both in its message and as attributes, so
that callers such as the command line can show them under another name.
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._C import _get_tracing_state as _tracing
from torch.autograd import forward_ad
from torch.compiler import is_compiling

_KNOWN: ContextVar[bool] = ContextVar("trusted", default=False)  # see `trusted_values`
WEIGHT_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class ArgumentError(Exception):
    """An argument that cannot be used. Raised as `ArgumentValueError` or `ArgumentTypeError`.

    Args:
        parameter: name of the parameter.
        value: the value that was passed.
        expected: completes "must be ...", e.g. "in (0, 1]" or "an integer of at least 1".
        hint: what to do about it; empty for none.
    """

    def __init__(self, parameter: str, value: Any, expected: str, hint: str = "") -> None:
        self.parameter, self.value, self.expected, self.hint = parameter, value, expected, hint

    def __str__(self) -> str:
        return f"{self.parameter}={shorten(self.value)} must be {self.requirement}"

    @property
    def requirement(self) -> str:
        """The part of the message after "must be", without the parameter's name."""
        text = f"{self.expected}; {self.hint}" if self.hint else self.expected
        return text if text.endswith(("?", ".")) else f"{text}."


class ArgumentValueError(ArgumentError, ValueError):
    """An argument of the right type with a value that cannot be used."""


class ArgumentTypeError(ArgumentError, TypeError):
    """An argument of the wrong type."""


def shorten(value: Any, width: int = 60) -> str:
    """Returns the `repr` of a value, cut to `width` characters.

    Of a tensor with several dimensions returns shape and dtype, of a module with parts its class.
    """
    if isinstance(value, Tensor) and (value.dim() > 1 or value.is_meta):
        return f"<tensor of shape {tuple(value.shape)}, {value.dtype}>"
    if isinstance(value, torch.nn.Module) and any(True for _ in value.children()):
        return f"{type(value).__name__}(...)"
    text = repr(value.tolist() if hasattr(value, "tolist") and not isinstance(value, type) else value)
    return text if len(text) <= width else f"{text[: width - 3]}..."


# --- types -----------------------------------------------------------------------------------------


def warn(message: str) -> None:
    """Warns about the line that called the library, however deep in it the cause is."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "minitx":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def check_flags(**flags: Any) -> None:
    """Checks that each value is a bool, else raises ArgumentTypeError."""
    for parameter, flag in flags.items():
        check_type(parameter, flag, bool, "True or False")


def check_strings(**strings: Any) -> None:
    """Checks that each value is a string, else raises ArgumentTypeError."""
    for parameter, string in strings.items():
        check_type(parameter, string, str, "a string")


def check_optional_strings(**strings: Any) -> None:
    """Checks that each value is a string or None, else raises ArgumentTypeError."""
    for parameter, string in strings.items():
        check_type(parameter, string, str | None, "a string or None")


def check_callable(parameter: str, value: Any, hint: str = "") -> None:
    """Checks that the value can be called, else raises ArgumentTypeError."""
    if not callable(value):
        raise ArgumentTypeError(parameter, value, "a function", hint)


def check_path(parameter: str, value: Any) -> Path:
    """Returns the path of a string or Path.

    Raises:
        ArgumentTypeError: anything else.
        ArgumentValueError: a name that no file can have: empty, or with a null character.
    """
    check_type(parameter, value, str | Path, "a string or Path")
    if not str(value) or "\0" in str(value):
        raise ArgumentValueError(parameter, value, "the path of a file or folder")
    return Path(value)


def check_output(parameter: str, value: Any, formats: tuple[str, ...]) -> Path:
    """Returns the path of a file to write, whose folder need not exist yet; to be called before any work.

    Raises:
        ArgumentTypeError, ArgumentValueError: as `check_path`, another kind of file, or a folder.
        NotADirectoryError, PermissionError: a folder that cannot be created or written into.
    """
    path = check_path(parameter, value)
    if path.suffix.lower() not in formats:
        raise ArgumentValueError(parameter, str(path), f"the name of a {' or '.join(formats)} file")
    if path.is_dir():
        raise ArgumentValueError(parameter, str(path), "the name of a file", f"{path.name} is a folder")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise NotADirectoryError(f"{path}: {folder} is a file, not a folder.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{path}: nothing can be written into {folder}.")
    return path


# --- scalars ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """An interval of real numbers; prints as in mathematics, e.g. "(0, 1]"."""

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below  # NaN is neither

    def __str__(self) -> str:
        left, right = "(" if self.open_low else "[", ")" if self.open_high else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"


def check_integer(
    parameter: str, value: Any, minimum: int = 0, maximum: int | None = None, hint: str = ""
) -> int:
    """Returns the value as an int.

    Raises:
        ArgumentTypeError: not an integer; a bool is not accepted either.
        ArgumentValueError: below `minimum` or above `maximum`.
    """
    limits = f"at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        kind = "an integer of" if maximum is None else "an integer"
        raise ArgumentTypeError(parameter, value, f"{kind} {limits}", hint)
    number = int(value)
    if number < minimum or (maximum is not None and number > maximum):
        raise ArgumentValueError(parameter, number, limits, hint)
    return number


def check_number(parameter: str, value: Any, interval: Interval, hint: str = "") -> float:
    """Returns the value as a float.

    Raises:
        ArgumentTypeError: not a real number; a bool is not accepted either.
        ArgumentValueError: outside of the interval, or NaN.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ArgumentTypeError(parameter, value, f"a number in {interval}", hint)
    try:
        number = float(value)
    except OverflowError:  # an int too large for a float
        number = -torch.inf if value < 0 else torch.inf
    if number not in interval:
        raise ArgumentValueError(parameter, value, f"in {interval}", hint)
    return number


def check_type(parameter: str, value: Any, kind: Any, expected: str, hint: str = "") -> Any:
    """Returns the value if it is an instance of `kind`, a class or a union.

    Raises:
        ArgumentTypeError: anything else.
    """
    if not isinstance(value, kind):
        raise ArgumentTypeError(parameter, value, expected, hint)
    return value


def check_choice(parameter: str, value: Any, choices: Iterable[Any], hint: str = "") -> Any:
    """Returns the value if it is one of `choices`.

    Raises:
        ArgumentValueError: any other value.
    """
    choices = list(choices)
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise ArgumentValueError(parameter, value, f"one of {', '.join(map(repr, choices))}", hint)
    return value


def check_dtype(parameter: str, dtype: Any) -> torch.dtype:
    """Returns a floating-point dtype of weights, from a torch.dtype or its name ("bfloat16").

    Raises:
        ArgumentValueError: any other.
    """
    names = {str(d).removeprefix("torch."): d for d in WEIGHT_DTYPES}
    dtype = names.get(dtype.removeprefix("torch."), dtype) if isinstance(dtype, str) else dtype
    if dtype not in WEIGHT_DTYPES:
        hint = "leave it out to keep the checkpoint's dtype" if dtype == "auto" else ""
        raise ArgumentValueError(parameter, dtype, f"one of {', '.join(map(str, WEIGHT_DTYPES))}", hint)
    checked: torch.dtype = dtype
    return checked


# --- tensors ---------------------------------------------------------------------------------------


def values_unavailable(tensor: Tensor) -> bool:
    """Whether a tensor has no values to read: while compiling or tracing, or on the meta device.

    Nor are `trusted_values` read where that would wait for an accelerator.
    """
    return is_compiling() or _tracing() is not None or tensor.is_meta or (not tensor.is_cpu and _KNOWN.get())


@contextmanager
def trusted_values() -> Iterator[None]:
    """Lets checks of values pass without reading them on devices other than the CPU, where it takes long.

    For ids, rows and positions that this package has computed.
    """
    before = _KNOWN.set(True)
    try:
        yield
    finally:
        _KNOWN.reset(before)


def is_transformed() -> bool:
    """Whether a transform of `torch.func`, forward-mode differentiation or a dispatch mode takes part."""
    return bool(
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._len_torch_dispatch_stack()
    )


def check_tensor(parameter: str, value: Any) -> Tensor:
    """Returns the value if it is a tensor.

    Raises:
        ArgumentTypeError: anything else, such as a list or an array.
    """
    if not isinstance(value, Tensor):
        raise ArgumentTypeError(parameter, value, "a tensor", "wrap it in torch.tensor(...)")
    return value


def check_token_ids(parameter: str, ids: Any) -> Tensor:
    """Returns the value if it is a tensor (B, T) with at least one token per row.

    Raises:
        ArgumentTypeError: not a tensor.
        ArgumentValueError: not two dimensions, or no tokens.
    """
    tokens = check_tensor(parameter, ids)
    if tokens.dim() != 2 or tokens.shape[1] == 0:
        expected = f"of shape (batch, time) with at least one token per row, not {tuple(tokens.shape)}"
        raise ArgumentValueError(parameter, ids, f"a tensor {expected}")
    return tokens


def check_shape(parameter: str, value: Any, shape: tuple[int, ...], like: str = "input_ids") -> None:
    """Checks that a value is a tensor of that shape, else raises ArgumentTypeError or ArgumentValueError."""
    other = tuple(check_tensor(parameter, value).shape)
    if other != shape:
        raise ArgumentValueError(parameter, value, f"a tensor of shape {shape} like {like}, not {other}")


def check_integer_dtype(parameter: str, ids: Any) -> None:
    """Checks that the value is a tensor of integers, else raises ArgumentTypeError or ArgumentValueError."""
    if check_tensor(parameter, ids).dtype not in (torch.int64, torch.int32):
        raise ArgumentValueError(parameter, ids, "of dtype torch.long")


def check_indices(parameter: str, ids: Tensor, size: int, hint: str = "") -> None:
    """Checks that all values are integers in [0, size), else raises ArgumentValueError."""
    check_integer_dtype(parameter, ids)
    if values_unavailable(ids):
        return
    outside = (ids < 0) | (ids >= size)
    if bool(outside.any()):
        raise ArgumentValueError(parameter, int(ids[outside][0]), f"from 0 to {size - 1}", hint)


def check_position_ids(position_ids: Any, shape: tuple[int, ...], prefix: str = "") -> None:
    """Checks that these are integers of shape (1 or B, T).

    Args:
        position_ids: the value.
        shape: (B, T).
        prefix: of the names in messages, "decoder_" in an encoder-decoder.

    Raises:
        ArgumentTypeError: not a tensor.
        ArgumentValueError: another dtype or shape.
    """
    check_integer_dtype(f"{prefix}position_ids", position_ids)
    if tuple(position_ids.shape) != (1, shape[1]):
        check_shape(f"{prefix}position_ids", position_ids, shape, like=f"{prefix}input_ids")
