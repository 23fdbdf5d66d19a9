"""What the caller of a model guarantees inside a block, so that passes of `minitx.optimize` can save work."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

_PLAIN = (bool, int, float, str, bytes, re.Pattern, Tensor, torch.Generator, torch.dtype)
_ARGMAX: ContextVar[object] = ContextVar("only_argmax_used", default=None)
_UNCHANGED: ContextVar[object] = ContextVar("unchanged", default=None)


@contextmanager
def _held(variable: ContextVar[object], value: object) -> Iterator[None]:
    """Gives a variable a value until the block ends."""
    before = variable.set(value)
    try:
        yield
    finally:
        variable.reset(before)


def only_argmax_used(weight: object) -> AbstractContextManager[None]:
    """States that only the argmax of the outputs of a weight is used, until the block ends.

    Args:
        weight: what `is_only_argmax_used` is asked for; None states nothing.
    """
    return _held(_ARGMAX, weight)


def is_only_argmax_used(weight: object) -> bool:
    """Whether only the argmax of the outputs of a weight is used."""
    return _ARGMAX.get() is weight


def unchanged(model: object) -> AbstractContextManager[None]:
    """States that parts and parameters of a model stay the same, until the block ends.

    Args:
        model: None states nothing.
    """
    return _held(_UNCHANGED, model)


def is_unchanged(model: object) -> bool:
    """Whether parts and parameters of a model stay the same."""
    return _UNCHANGED.get() is model


def is_own(kind: Any, *packages: str) -> bool:
    """Whether a class or function is of minitx.

    Args:
        kind: the class or function.
        packages: others to which it may belong, each with a dot at its end, such as "torch.".
    """
    return f"{kind.__module__}".startswith(("minitx.", *packages))


def is_own_code(parts: Sequence[object], *others: object) -> bool:
    """Whether no code of the user runs with objects; it could change a model.

    Args:
        parts: objects of classes of minitx whose attributes are plain values.
        others: objects of classes of minitx, or None, whatever their attributes.
    """
    own = all(each is None or is_own(type(each)) for each in (*parts, *others))
    return own and all(_is_plain(value) for part in parts for value in vars(part).values())


def _is_plain(value: object) -> bool:
    """Whether a value has no code: numbers, strings, tensors, and collections of them."""
    if isinstance(value, tuple | list | frozenset | set):
        return all(map(_is_plain, value))
    return value is None or type(value) in _PLAIN
