"""What inputs must satisfy before a table is asked for rows that it does not have."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch
from torch import Tensor


def values_unavailable(tensor: Tensor) -> bool:
    """Whether a branch on the values would be wrong (a graph is being traced) or impossible (meta)."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None or tensor.is_meta


def leading_shape(input_ids: Tensor) -> torch.Size:
    """The shape of everything but time.

    Raises:
        TypeError: a text, a list, an array: anything but a tensor.
    """
    if not isinstance(input_ids, Tensor):
        raise TypeError(
            f"input_ids is a {type(input_ids).__name__}; expected a tensor of ids, (batch, time)."
        )
    return input_ids.shape[:-1]


def batch_and_time(input_ids: Tensor) -> tuple[int, ...]:
    """B and T.

    Raises:
        ValueError: another number of dimensions, or no tokens.
    """
    shape = tuple(input_ids.shape)
    if len(shape) != 2 or shape[1] == 0:
        raise ValueError(
            f"input_ids has shape {shape}; expected (batch, time) with at least one token per row."
        )
    return shape


def a_tensor(name: str, value: Any) -> Tensor:
    """The value, if it is a tensor.

    Raises:
        TypeError: a list, an array, anything else.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}; expected a tensor, torch.tensor(...) of it.")
    return value


def whole(name: str, value: Any, least: int, meaning: str) -> int:
    """The value, if it is a whole number of at least `least`.

    Raises:
        TypeError: no whole number; a bool is none.
        ValueError: one below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(
            f"{name}={value!r} is a {type(value).__name__}; expected a whole number of at least {least}: "
            f"{meaning}."
        )
    if value < least:
        raise ValueError(f"{name}={value} must be at least {least}: {meaning}.")
    return int(value)


def same_shape(name: str, ids: Tensor, shape: tuple[int, ...]) -> None:
    a_tensor(name, ids)
    if tuple(ids.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(ids.shape)}; expected {shape} like input_ids.")


def whole_numbers(name: str, ids: Tensor) -> None:
    if ids.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"{name} has dtype {ids.dtype}; expected torch.long.")


def within(name: str, ids: Tensor, size: int, hint: str, where: str = "the model") -> None:
    """Raises ValueError unless all ids are whole numbers in [0, size)."""
    whole_numbers(name, ids)
    if values_unavailable(ids):
        return
    outside = (ids < 0) | (ids >= size)
    if bool(outside.any()):
        raise ValueError(f"{name} holds {int(ids[outside][0])}, but {where} has 0 to {size - 1}: {hint}")


def fit_positions(position_ids: Tensor, shape: tuple[int, ...]) -> None:
    """Raises TypeError or ValueError unless these are positions for tokens (B, T): (1 or B, T), whole."""
    a_tensor("position_ids", position_ids)
    whole_numbers("position_ids", position_ids)
    if tuple(position_ids.shape) != (1, shape[1]):
        same_shape("position_ids", position_ids, shape)


def one_row_per_choice(name: str, tensor: Tensor | None, input_ids: Tensor) -> Tensor | None:
    """(B, choices, T) -> (B * choices, T)

    Raises:
        ValueError: a shape that differs from that of input_ids.
    """
    if tensor is None:
        return None
    same_shape(name, tensor, tuple(input_ids.shape))
    return tensor.flatten(0, 1)
