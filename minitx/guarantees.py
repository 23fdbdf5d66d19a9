"""What the caller of a model guarantees for a while, so that passes of `minitx.optimize` can save work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ARGMAX_ALONE: ContextVar[bool] = ContextVar("argmax_alone", default=False)
_UNCHANGED: ContextVar[bool] = ContextVar("unchanged", default=False)


@contextmanager
def argmax_alone(needed: bool = True) -> Iterator[None]:
    """States that of the logits the place of the largest one is used, and nothing else.

    Args:
        needed: False states nothing.
    """
    before = _ARGMAX_ALONE.set(needed)
    try:
        yield
    finally:
        _ARGMAX_ALONE.reset(before)


def is_argmax_alone() -> bool:
    """Whether the caller uses the place of the largest logit alone."""
    return _ARGMAX_ALONE.get()


@contextmanager
def unchanged_model() -> Iterator[None]:
    """States that parts and parameters of the model stay the same."""
    before = _UNCHANGED.set(True)
    try:
        yield
    finally:
        _UNCHANGED.reset(before)


def is_model_unchanged() -> bool:
    """Whether parts and parameters of the model stay the same."""
    return _UNCHANGED.get()
