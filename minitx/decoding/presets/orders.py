"""The order of a chain, and the default values of its fields, as in another library."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, TypeVar

from minitx.validation import check_choice

T = TypeVar("T")

_TABLES: dict[str, Any] = tomllib.loads(files(__package__).joinpath("presets.toml").read_text("utf-8"))
ORDERS: dict[str, list[str]] = _TABLES["orders"]
DEFAULT = "transformers"
LIKE: dict[str, dict[str, Any]] = _TABLES["like"]
_REST = "..."
_LATE = "temperature"  # the first field of the second stage


def in_order(parameters: Mapping[str, T], order: str) -> list[tuple[str, T]]:
    """Returns the items of a mapping from fields to anything, in one of the ORDERS.

    Args:
        parameters: in the order of their declaration.
        order: presets.toml describes how it arranges them.

    Raises:
        ArgumentValueError: not one of the ORDERS.
    """
    check_choice("order", order, tuple(ORDERS))
    row, names = ORDERS[order], list(parameters)
    late = names.index(_LATE) if _LATE in names else len(names)
    rest = [[name for name in stage if name not in row] for stage in (names[:late], names[late:])]
    gaps = [place for place, name in enumerate(row) if name == _REST]
    arranged: list[str] = []
    for place, name in enumerate(row):
        arranged += rest[0] if place == gaps[0] else []
        arranged += rest[1] if place == gaps[-1] else []
        arranged += [name] if name in parameters else []
    return [(name, parameters[name]) for name in arranged]
