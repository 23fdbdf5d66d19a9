"""What the caller of a model guarantees inside a block, so that passes of `minitx.optimize` can save work."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_PLAIN = (bool, int, float, str, bytes, re.Pattern, Tensor, torch.Generator, torch.dtype)
_ARGMAX: ContextVar[object] = ContextVar("only_argmax_used", default=None)
_UNCHANGED: ContextVar[object] = ContextVar("unchanged", default=None)


@contextmanager
def only_argmax_used(weight: object) -> Iterator[None]:
    """States that only the argmax of the outputs of a weight is used, until the block ends.

    Args:
        weight: what `is_only_argmax_used` is asked for; None states nothing.
    """
    before = _ARGMAX.set(weight)
    try:
        yield
    finally:
        _ARGMAX.reset(before)


def is_only_argmax_used(weight: object) -> bool:
    """Whether only the argmax of the outputs of a weight is used."""
    return _ARGMAX.get() is weight


@contextmanager
def unchanged(model: object) -> Iterator[None]:
    """States that parts and parameters of a model stay the same, until the block ends.

    Args:
        model: None states nothing.
    """
    before = _UNCHANGED.set(model)
    try:
        yield
    finally:
        _UNCHANGED.reset(before)


def is_unchanged(model: object) -> bool:
    """Whether parts and parameters of a model stay the same."""
    return _UNCHANGED.get() is model


def is_own_code(parts: Sequence[object], *others: object) -> bool:
    """Whether no code of the user runs with objects; it could change a model.

    Args:
        parts: objects of classes of minitx whose attributes are plain values.
        others: objects of classes of minitx, or None, whatever their attributes.
    """
    own = all(each is None or type(each).__module__.startswith("minitx.") for each in (*parts, *others))
    return own and all(_is_plain(value) for part in parts for value in vars(part).values())


def _is_plain(value: object) -> bool:
    """Whether a value has no code: numbers, strings, tensors, and collections of them."""
    if isinstance(value, tuple | list | frozenset | set):
        return all(map(_is_plain, value))
    return value is None or type(value) in _PLAIN
