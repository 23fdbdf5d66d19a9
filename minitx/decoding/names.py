"""What is meant by an argument or a field that there is not."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

from minitx.habits import ARGUMENTS, hint_for

P = ParamSpec("P")
R = TypeVar("R")


def meant(name: str, known: Iterable[str]) -> str:
    """What may have been meant by a name: a sentence with a space before it, or nothing.

    Args:
        name: as it was given.
        known: the names that there are.
    """
    hint = hint_for(ARGUMENTS["generate"], name, known)
    return hint and f" {hint}"


def names_explained(function: Callable[P, R]) -> Callable[P, R]:
    """Lets a function say, of an argument that it does not have, what has its place."""
    known = inspect.signature(function).parameters

    @functools.wraps(function)
    def call(*args: P.args, **given: P.kwargs) -> R:
        for name in given:
            if name not in known:
                from minitx.decoding.strategy import owner  # which asks this file about its own names

                strategy = owner(name)
                hint = f" It belongs to the strategy: {strategy}({name}=...)." if strategy else None
                raise TypeError(f"{function.__name__} has no argument {name!r}.{hint or meant(name, known)}")
        return function(*args, **given)

    return call
