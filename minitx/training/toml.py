"""Writes TOML; Python's tomllib reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, time
from typing import Any


def dump_toml(values: Mapping[str, Any], table: str = "") -> str:
    """Returns values as TOML: strings, numbers, bools, dates, lists, and nested tables.

    Args:
        values: by key; None is left out, since TOML has no null.
        table: name of the table that they are in; "" for the document itself.

    Raises:
        TypeError: another value; the message names its key.
    """
    tables = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    lines = [
        f"{_key(key)} = {_value(value, f'{table}.{key}' if table else key)}\n"
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
    return key if is_bare else _text(key)


def _text(text: str) -> str:
    # JSON escapes what TOML does, but for one control character.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any, name: str) -> str:
    """Returns a value as TOML; `name` is its key, for messages."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(part, name) for part in value)}]"
    if isinstance(value, date | time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, Mapping):  # in a list
        pairs = (f"{_key(key)} = {_value(part, f'{name}.{key}')}" for key, part in value.items())
        return f"{{{', '.join(pairs)}}}"
    raise TypeError(f"{name}: {value!r} of type {type(value).__name__} cannot be written as TOML.")
