"""Suggestions for unknown names of arguments and of strategy fields."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

from minitx.habits import ARGUMENTS, hint_for

P = ParamSpec("P")
R = TypeVar("R")

# Arguments of `generate` that users expect to be fields of a strategy.
_OF_THE_CALL = frozenset(
    {
        "generator",
        "logprobs",
        "max_new_tokens",
        "min_new_tokens",
        "num_samples",
        "seed",
        "stop",
        "top_logprobs",
    }
)
# The strategy to suggest for each field of any strategy; `Strategy` registers its subclasses here.
_STRATEGY_OF: dict[str, str] = {}


def register(strategy: str, names: Iterable[str]) -> None:
    """Adds fields of a strategy to the suggestions; a field that is known already keeps its strategy."""
    for name in names:
        _STRATEGY_OF.setdefault(name, strategy)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Returns a sentence, after a space, about an unknown name; empty without a suggestion.

    Args:
        name: the unknown name.
        known: the names that exist.
    """
    hint = hint_for(ARGUMENTS["generate"], name, known)
    return hint and f" {hint}"


def field_suggestion(name: str, known: Iterable[str]) -> str:
    """`suggestion` for a name that is not a field of a strategy, whose fields are `known`."""
    if name in _OF_THE_CALL:
        return f" It is an argument of the call: generate(..., {name}=...)."
    return f" {_STRATEGY_OF[name]} has it." if name in _STRATEGY_OF else suggestion(name, known)


def argument_suggestion(name: str, known: Iterable[str]) -> str:
    """`suggestion` for a name that is not an argument of a function, whose arguments are `known`."""
    if name in _STRATEGY_OF:
        return f" It belongs to the strategy: {_STRATEGY_OF[name]}({name}=...)."
    return suggestion(name, known)


def names_explained(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a function so that its error for an unknown argument suggests another."""
    known = inspect.signature(function).parameters

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> R:
        for name in options:
            if name not in known:
                raise TypeError(
                    f"{function.__name__} has no argument {name!r}.{argument_suggestion(name, known)}"
                )
        return function(*args, **options)

    return call
