"""What inputs must satisfy before a table is asked for rows that it does not have."""

from __future__ import annotations

import torch
from torch import Tensor


def values_are_unseen(tensor: Tensor) -> bool:
    """Whether a branch on the values would be wrong (a graph is being traced) or impossible (meta)."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None or tensor.is_meta


def leading_shape(input_ids: Tensor) -> torch.Size:
    """The shape of everything but time.

    Raises:
        TypeError: a text, a list, an array: anything but a tensor.
    """
    if not isinstance(input_ids, Tensor):
        raise TypeError(f"input_ids is a {type(input_ids).__name__}; expected a tensor: model(**batch).")
    return input_ids.shape[:-1]


def same_shape(name: str, ids: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(ids.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(ids.shape)}; expected {shape} like input_ids.")


def within(name: str, ids: Tensor, size: int, hint: str) -> None:
    """Raises ValueError unless all ids are whole numbers in [0, size)."""
    if ids.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"{name} has dtype {ids.dtype}; expected torch.long.")
    if values_are_unseen(ids):
        return
    outside = (ids < 0) | (ids >= size)
    if bool(outside.any()):
        worst = int(ids[outside][0])
        raise ValueError(f"{name} holds {worst}, but the model has 0 to {size - 1}: {hint}")


def one_row_per_choice(name: str, tensor: Tensor | None, input_ids: Tensor) -> Tensor | None:
    """(B, choices, T) -> (B * choices, T)

    Raises:
        ValueError: a shape that differs from that of input_ids.
    """
    if tensor is None:
        return None
    same_shape(name, tensor, tuple(input_ids.shape))
    return tensor.flatten(0, 1)
