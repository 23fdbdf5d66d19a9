"""Accelerators: when a program waits for one, and how decoding avoids it.

Operations on an accelerator are queued, and the program prepares the next ones meanwhile. It waits for the
queue where it reads a value (`bool(tensor)`, `tolist()`, the indices of a mask) and where it copies numbers
of Python to the device. The steps of a generation therefore check nothing that they have computed themselves,
and copy small tables once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

import torch
from torch import Tensor

_TRUSTED: ContextVar[bool] = ContextVar("trusted", default=False)


@contextmanager
def trusted_values() -> Iterator[None]:
    """Lets checks of values pass without reading them, on devices other than the CPU.

    For ids, rows and positions that were computed here. On a CPU, where a check costs nothing, it is made.
    """
    before = _TRUSTED.set(True)
    try:
        yield
    finally:
        _TRUSTED.reset(before)


def has_trusted_values(tensor: Tensor) -> bool:
    """Whether the values of a tensor need no check, and reading them would wait for a device."""
    return _TRUSTED.get() and not tensor.is_cpu


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
