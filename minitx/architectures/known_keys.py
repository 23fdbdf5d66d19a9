"""Keys of a config.json that minitx does not read because they have no effect on its numbers.

The table is known_keys.json, which scripts/config_keys.py writes from the installed transformers: for every
architecture, and for each `model_type`, a key and either the reason why it has no effect ("execution",
"generation", "record", "tokenizer", "training") or a list of the values at which it has none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

EVERY = "every architecture"


@cache
def known_keys(model_type: str) -> Mapping[str, Any]:
    """Returns the known keys of a `model_type`: a reason, or the list of values without an effect."""
    table = _table()
    return {**table[EVERY], **table.get(model_type, {})}


@cache
def _table() -> dict[str, dict[str, Any]]:
    """Returns the table, read on first use."""
    text = files("minitx.architectures").joinpath("known_keys.json").read_text(encoding="utf-8")
    table: dict[str, dict[str, Any]] = json.loads(text)
    return table
