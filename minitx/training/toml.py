"""Writes TOML; Python's tomllib reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def dump_toml(values: Mapping[str, Any], table: str = "") -> str:
    """Returns values as TOML: strings, numbers, bools, lists of them, and nested tables.

    Args:
        values: by key; None is left out, since TOML has no null.
        table: name of the table that they are in; "" for the document itself.

    Raises:
        TypeError: another value.
    """
    tables = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    lines = [
        f"{_key(key)} = {_value(value)}\n"
        for key, value in values.items()
        if key not in tables and value is not None
    ]
    if table and (lines or not tables):
        lines.insert(0, f"\n[{table}]\n")
    for key, value in tables.items():
        lines.append(dump_toml(value, f"{table}.{_key(key)}" if table else _key(key)))
    return "".join(lines).lstrip("\n") if not table else "".join(lines)


def _key(key: str) -> str:
    is_bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if is_bare else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):  # JSON escapes what TOML does, but for one control character
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be written as TOML.")
