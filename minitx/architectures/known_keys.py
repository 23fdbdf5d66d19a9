"""Keys of a config.json that minitx does not read, because they have no effect on its numbers.

The table is known_keys.json, which scripts/config_keys.py writes from the installed transformers. It has, for
all architectures and for each `model_type`, a key and either the reason why it has no effect ("execution",
"generation", "record", "tokenizer" or "training") or the list of the values at which it has none; and the
second names that an architecture has for keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

from minitx.architectures.config_reader import ConfigReader

EVERY, SECOND_NAMES = "every architecture", "second names"


@cache
def known_keys(model_type: str) -> Mapping[str, str | list[Any]]:
    """Returns the known keys of a `model_type`: a reason, or the values without an effect."""
    table = _table()
    return {**table[EVERY], **table.get(model_type, {})}


def second_names(model_type: str) -> Mapping[str, str]:
    """Returns the second names of keys, such as "hidden_size" for "n_embd"."""
    names: Mapping[str, str] = _table()[SECOND_NAMES].get(model_type, {})
    return names


def has_table(model_type: str) -> bool:
    """Whether the table has a `model_type`."""
    return model_type in _table()


def check_keys(reader: ConfigReader, model_type: str) -> None:
    """Checks that every key of a file was read, or is known to have no effect at its value.

    Args:
        reader: that has read the file.
        model_type: whose known keys apply.

    Raises:
        ArgumentValueError: a known key with an effect that minitx does not implement.
        ValueError: unknown keys.
    """
    for part, kind, prefix in _parts(reader, model_type, ""):
        known = known_keys(kind)
        for key in part.unread():
            value, entry = part.config[key], known.get(key)
            if isinstance(entry, list) and not _listed(value, entry):
                expected = " or ".join(repr(x) for x in entry) or "left out"
                hint = f"minitx implements no other value; {_way_out([prefix + key])}"
                raise part.error(key, value, expected, hint)
    if unknown := unknown_keys(reader, model_type):
        names = ", ".join(repr(name) for name in unknown)
        raise ValueError(
            f"{reader.where} has {names}, unknown to minitx for model_type {model_type!r}"
            f"{_suggestion(reader, model_type)}; {_way_out(unknown)}."
        )


def unknown_keys(reader: ConfigReader, model_type: str) -> list[str]:
    """Returns the keys of a file that were not read and are not known; "encoder.key" in an inner config."""
    return [
        prefix + key
        for part, kind, prefix in _parts(reader, model_type, "")
        for key in part.unread()
        if key not in known_keys(kind)
    ]


def _parts(reader: ConfigReader, kind: str, prefix: str) -> Iterator[tuple[ConfigReader, str, str]]:
    """Returns the config and those in it, each with its `model_type` and the prefix of its keys."""
    yield reader, kind, prefix
    for name, part in reader.inner.items():
        yield from _parts(part, str(part.config.get("model_type")), f"{prefix}{name}.")


def _listed(value: Any, values: list[Any]) -> bool:
    # 0 is not False here, nor 1 True: they are other values of a config.json
    return any(type(value) is type(x) and value == x for x in values)


def _way_out(names: list[str]) -> str:
    listed = ", ".join(repr(name) for name in names) + ("," if len(names) == 1 else "")
    return f"ignore_keys=({listed}) loads without"


def _suggestion(reader: ConfigReader, model_type: str) -> str:
    """Returns a question about the first unknown key that is spelt nearly as a known or absent one, or ""."""
    for part, kind, prefix in _parts(reader, model_type, ""):
        known = known_keys(kind)
        for key in part.unread():
            absent = {*part.taken, *known} - set(part.config)
            if key not in known and (near := get_close_matches(key, sorted(absent), n=1, cutoff=0.8)):
                return f" (is {prefix + key!r} a misspelling of {near[0]!r}?)"
    return ""


@cache
def _table() -> dict[str, dict[str, Any]]:
    """Returns the table, read on first use."""
    text = files("minitx.architectures").joinpath("known_keys.json").read_text(encoding="utf-8")
    table: dict[str, dict[str, Any]] = json.loads(text)
    return table
