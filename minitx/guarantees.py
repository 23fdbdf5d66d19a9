"""What the caller of a model guarantees inside a block, so that passes of `minitx.optimize` can save work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

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


def is_own_code(*parts: object) -> bool:
    """Whether objects are of classes of minitx, and have no function among their attributes.

    Functions and classes of the user may change a model while they run.
    """
    functions = any(callable(value) for part in parts for value in getattr(part, "__dict__", {}).values())
    return not functions and all(type(part).__module__.startswith("minitx.") for part in parts)
