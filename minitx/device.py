"""Numbers on an accelerator without a copy to it, for which a program would wait.

Operations on an accelerator are queued, and the program prepares the next ones meanwhile. It waits for the
queue where it reads a value (`bool(tensor)`, `tolist()`, the indices of a mask) and where it copies numbers
of Python to the device. The steps of a generation therefore check nothing that they have computed themselves
(`validation.trusted_values`), and copy small tables once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


def constant(values: tuple[int, ...] | tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns numbers as a tensor that is not to be changed; on an accelerator it is copied once.

    Args:
        values: N numbers.
        dtype: of the result.
        device: of the result.

    Returns:
        (N,)
    """
    if device.type == "cpu" or torch.compiler.is_compiling():
        return torch.tensor(values, dtype=dtype, device=device)
    return _copied(values, dtype, device)


@lru_cache(maxsize=1024)
def _copied(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # so that the tensor can also be used where gradients are recorded
        return torch.tensor(values, dtype=dtype, device=device)


def like(value: Tensor | float, other: Tensor) -> Tensor:
    """Returns a number, or a tensor on the device of another one, in the other's dtype, without a copy to it.

    (...) or a number, (...) -> (...) or ()
    """
    if isinstance(value, Tensor):
        return value.to(other.dtype)
    return torch.full((), value, dtype=other.dtype, device=other.device)


def as_tensor(value: Tensor | int, device: torch.device) -> Tensor:
    """Returns an integer, or a tensor of integers, on a device, where an integer is not copied to.

    (...) or an integer -> (...) or ()
    """
    if isinstance(value, Tensor):
        return value.to(device)
    return torch.full((), value, dtype=torch.long, device=device)


class Copies:
    """Tensors on the CPU, which are copied to another device once."""

    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = tensors
        self._copies = {torch.device("cpu"): tensors}

    def on(self, device: torch.device) -> tuple[Tensor, ...]:
        """Returns the tensors on a device; not to be changed."""
        if device not in self._copies:
            with torch.inference_mode(False):
                self._copies[device] = tuple(tensor.to(device) for tensor in self.tensors)
        return self._copies[device]


def read(tensors: Sequence[Tensor]) -> list[list[Any]]:
    """Returns tensors of one shape as lists; waits for their device once."""
    lists: list[list[Any]] = [tensors[0].tolist()] if len(tensors) == 1 else torch.stack([*tensors]).tolist()
    return lists
