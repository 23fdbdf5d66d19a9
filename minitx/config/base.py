"""The base of all configs, and the replacement of nested fields."""

from __future__ import annotations

from dataclasses import fields, replace
from difflib import get_close_matches
from functools import cache
from math import inf
from numbers import Integral, Real
from pprint import pformat
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    Interval,
    check_choice,
    check_integer,
    check_number,
)

# Numbers with a bound: the minimum of an integer, the interval of a float
Size = Annotated[int, 1]
Count = Annotated[int, 0]
Finite = Annotated[float, Interval(-inf, inf, open_low=True, open_high=True)]
NonNegative = Annotated[float, Interval(0, inf, open_high=True)]
Positive = Annotated[float, Interval(0, inf, open_low=True, open_high=True)]
Probability = Annotated[float, Interval(0, 1)]

# plain type in a hint -> the class of its values, and its name in messages
_PLAIN: dict[Any, tuple[type, str]] = {
    int: (Integral, "an integer"),
    float: (Real, "a number"),
    str: (str, "a string"),
    tuple: (tuple, "a tuple"),
    frozenset: (frozenset, "a frozenset"),
    type(None): (type(None), "None"),
}


class ValidatedConfig:
    """Base of all configs: refuses values outside of a field's literals or bounds, and of another type."""

    def __post_init__(self) -> None:
        """Checks every field whose type hint is a Literal, a config, a plain type or a number with a bound.

        Raises:
            ArgumentTypeError: a plain field or tuple element of another type.
            ArgumentValueError: any other value that the type hint of its field excludes.
        """
        kind: Any = type(self)
        for name, choices in allowed_values(kind).items():
            check_choice(f"{kind.__name__}.{name}", getattr(self, name), choices)
        for name, parts in allowed_parts(kind).items():
            if not isinstance(getattr(self, name), parts):
                known = " or ".join("None" if part is type(None) else part.__name__ for part in parts)
                raise ArgumentValueError(f"{kind.__name__}.{name}", getattr(self, name), known)
        for name, (classes, expected) in plain_types(kind).items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, classes):
                raise ArgumentTypeError(f"{kind.__name__}.{name}", value, expected)
        for name, hint in tuples(kind).items():
            check_elements(f"{kind.__name__}.{name}", getattr(self, name), hint)
        for name, bound in bounds(kind).items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, tuple):
                check_bound(f"{kind.__name__}.{name}", value, bound)

    def __str__(self) -> str:
        """Returns the fields on indented lines; `repr` has them on one."""
        return pformat(self, sort_dicts=False)


def alternatives(hint: Any) -> tuple[Any, ...]:
    """Returns the members of a type hint that is a union; else the hint alone."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


@cache
def type_hints(kind: Any) -> dict[str, Any]:
    """Returns the evaluated type hint of each field of a config."""
    return get_type_hints(kind)


@cache
def allowed_values(kind: Any) -> dict[str, tuple[str | bool, ...]]:
    """Returns the values of each field of a config that has a closed set of them."""
    hints = type_hints(kind)
    flags = {name: (True, False) for name, hint in hints.items() if hint is bool}
    return flags | {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}


@cache
def allowed_parts(kind: Any) -> dict[str, tuple[type, ...]]:
    """Returns the classes of each field of a config that is a config itself, or one of several."""
    parts: dict[str, tuple[type, ...]] = {}
    for name, hint in type_hints(kind).items():
        classes = alternatives(hint)
        if any(isinstance(part, type) and issubclass(part, ValidatedConfig) for part in classes):
            parts[name] = classes
    return parts


@cache
def plain_types(kind: Any) -> dict[str, tuple[tuple[type, ...], str]]:
    """Returns the classes of each field of plain type, or of several or None, and their names in messages."""
    types: dict[str, tuple[tuple[type, ...], str]] = {}
    for name, hint in type_hints(kind).items():
        hints = alternatives(hint)
        plain = [_PLAIN.get(get_origin(part) or part) for part in hints]
        if None not in plain:
            classes, names = zip(*filter(None, plain), strict=True)
            types[name] = classes, " or ".join(names)
    return types


@cache
def tuples(kind: Any) -> dict[str, Any]:
    """Returns the type hint of each field that is a tuple, or one of several types."""
    hints = type_hints(kind).items()
    return {name: hint for name, hint in hints if any(get_origin(p) is tuple for p in alternatives(hint))}


def element_hints(hint: Any, count: int) -> tuple[Any, ...]:
    """Returns the type hints of the elements of a tuple or frozenset with `count` of them."""
    inner = get_args(hint)
    repeated = get_origin(hint) is frozenset or inner[1:] == (...,)
    return inner[:1] * count if repeated else inner


def check_elements(parameter: str, value: Any, hint: Any) -> None:
    """Checks the elements of a tuple, and those of tuples in it.

    Raises:
        ArgumentTypeError: an element of another type.
        ArgumentValueError: another number of elements.
    """
    for part in alternatives(hint) if isinstance(value, tuple) else ():
        if get_origin(part) is not tuple:
            continue
        hints = element_hints(part, len(value))
        if len(hints) != len(value):
            raise ArgumentValueError(parameter, value, f"a tuple of {len(hints)}")
        for i, (element, inner) in enumerate(zip(value, hints, strict=True)):
            check_element(f"{parameter}[{i}]", element, inner)


def check_element(parameter: str, element: Any, hint: Any) -> None:
    """Checks the type of one element of a tuple; a hint that is no class, such as a Literal, allows any.

    Raises:
        ArgumentTypeError, ArgumentValueError: as `check_elements`.
    """
    kinds = [get_origin(part) or part for part in alternatives(hint)]
    if not all(isinstance(kind, type) for kind in kinds):
        return
    named = [_PLAIN.get(kind, (kind, "a bool" if kind is bool else kind.__name__)) for kind in kinds]
    if not any(
        isinstance(element, kind) and isinstance(element, bool) == (kind is bool) for kind, _ in named
    ):
        raise ArgumentTypeError(parameter, element, " or ".join(name for _, name in named))
    check_elements(parameter, element, hint)


@cache
def bounds(kind: Any) -> dict[str, int | Interval]:
    """Returns the bound of each field that is a number with one, or None."""
    limits: dict[str, int | Interval] = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        for part in alternatives(hint):
            if get_origin(part) is Annotated:
                limits[name] = part.__metadata__[0]
    return limits


def check_bound(parameter: str, value: Any, bound: int | Interval) -> None:
    """Checks that a number is at least the minimum of an integer, or in the interval of a float.

    Raises:
        ArgumentTypeError: not a number.
        ArgumentValueError: out of bounds.
    """
    if isinstance(bound, int):
        check_integer(parameter, value, bound)
    else:
        check_number(parameter, value, bound)


Config = TypeVar("Config", bound=ValidatedConfig)


def replace_in(config: Config, path: str, **changes: Any) -> Config:
    """Returns a copy of a config with fields of a nested part replaced.

        replace_in(config, "decoder.layer.attention", qk_norm="head")

    Args:
        config: any config.
        path: field names from `config` to the part, joined by dots; "" for the config itself.
        changes: fields of the part and their new values.

    Raises:
        ArgumentTypeError: not a config, or not a path.
        ArgumentValueError: an unknown or empty field name, or a part that is None.
    """
    if not isinstance(config, ValidatedConfig):
        raise ArgumentTypeError("config", config, "a config", "such as the config of a model")
    if not isinstance(path, str):
        raise ArgumentTypeError("path", path, "a string")
    names = path.split(".") if path else []
    if "" in names:
        raise ArgumentValueError("path", path, "field names joined by single dots")
    parts: list[Any] = [config]
    for name in names:
        _check_field(parts[-1], name)
        part = getattr(parts[-1], name)
        if not isinstance(part, ValidatedConfig):
            hint = f"{type(parts[-1]).__name__}.{name} is {part!r:.60}"
            raise ArgumentValueError("path", path, "a chain of configs", hint)
        parts.append(part)
    for field in changes:
        _check_field(parts[-1], field)
    for name in reversed(names):
        changes = {name: replace(parts.pop(), **changes)}
    return replace(config, **changes)  # type: ignore[type-var] # every config is a dataclass


def _check_field(config: Any, name: str) -> None:
    names = [field.name for field in fields(config)]
    if name not in names:
        nearest = get_close_matches(name, names, n=1, cutoff=0.0)
        raise ArgumentValueError(
            "field", name, f"a field of {type(config).__name__}", f"the nearest is {nearest[0]!r}"
        )
