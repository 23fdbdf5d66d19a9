"""Hints for names that `transformers` and other libraries use and minitx does not; `tables.py` has the names.

For other names, the nearest known name is suggested. This package imports nothing heavy.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, ParamSpec, TypeVar

from minitx.habits.tables import ARGUMENTS as ARGUMENTS
from minitx.habits.tables import ATTRIBUTES as ATTRIBUTES
from minitx.habits.tables import OPTIONS as OPTIONS

P = ParamSpec("P")
R = TypeVar("R")

_FIELDS: dict[str, str] = {}  # field of a strategy -> the strategy that errors suggest


class UnknownArgumentError(TypeError):
    """A call with an argument that the function does not have.

    Args:
        function: name of the function.
        parameter: name of the argument.
        hint: what to use instead, a sentence; empty for none.
    """

    def __init__(self, function: str, parameter: str, hint: str = "") -> None:
        super().__init__(function, parameter, hint)
        self.function, self.parameter, self.hint = function, parameter, hint

    def __str__(self) -> str:
        return f"{self.function} has no argument {self.parameter!r}.{self.hint and ' '}{self.hint}"


def register_fields(strategy: str, names: Iterable[str]) -> None:
    """Adds the fields of a strategy to the hints; a field that is known already keeps its strategy.

    Args:
        strategy: name of the strategy that errors suggest.
        names: of the fields.
    """
    for name in names:
        _FIELDS.setdefault(name, strategy)


def argument_hint(place: str, name: str, known: Iterable[str] = ()) -> str:
    """Returns the sentence about an unknown argument, or a suggestion of the nearest known name, or "".

    Args:
        place: key of `ARGUMENTS`.
        name: of the argument.
        known: names to suggest one of.
    """
    if name in _FIELDS and name not in ARGUMENTS[place] and place in ("generate", "strategy"):
        strategy = _FIELDS[name]
        belongs = f"It belongs to the strategy: {strategy}({name}=...)."
        return belongs if place == "generate" else f"{strategy} has it."
    return hint_for(ARGUMENTS[place], name, known)


def hint_for(table: Mapping[str, str], name: str, known: Iterable[str] = ()) -> str:
    """Returns the table's sentence for a name, else a suggestion of the nearest known name, else ""."""
    if name in table:
        return table[name]
    similar = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {similar[0]!r}?" if similar else ""


def explain_arguments(place: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Returns a decorator: unknown keyword arguments raise `UnknownArgumentError` with the hint of a place.

    Args:
        place: key of `ARGUMENTS`.
    """

    def _decorate(function: Callable[P, R]) -> Callable[P, R]:
        known = frozenset(inspect.signature(function).parameters)
        shown = place if function.__name__ == "__call__" else function.__name__

        @functools.wraps(function)
        def _call(*args: P.args, **options: P.kwargs) -> R:
            for name in options:
                if name not in known:
                    hint = argument_hint(place, name, known)
                    raise UnknownArgumentError(shown, name, hint)
            return function(*args, **options)

        return _call

    return _decorate


class UnknownAttributeError(AttributeError):
    """An attribute that an object does not have; the hint is looked up for the message, not for `hasattr`.

    Args:
        place: key of `ATTRIBUTES`.
        owner: the object as the message names it, such as "EncoderModel".
        name: the attribute.
        known: names to suggest one of.
    """

    def __init__(self, place: str, owner: str, name: str, known: Iterable[str] = ()) -> None:
        super().__init__(place, owner, name, known, name=name)
        self.place, self.owner, self.attribute, self.known = place, owner, name, known

    @property
    def hint(self) -> str:
        """What to use instead, a sentence; empty for none."""
        return hint_for(ATTRIBUTES[self.place], self.attribute, self.known)

    def __str__(self) -> str:
        return f"{self.owner} has no attribute {self.attribute!r}.{self.hint and ' '}{self.hint}"


class ElsewhereMethod:
    """Class attribute for a method that other libraries have: access raises AttributeError with the hint.

    Serves access on the class, such as `EncoderModel.from_pretrained`, which `__getattr__` does not see.

    Args:
        place: key of `ATTRIBUTES`.
    """

    def __init__(self, place: str) -> None:
        self.place, self.name = place, ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> NoReturn:
        raise UnknownAttributeError(self.place, owner.__name__, self.name)
