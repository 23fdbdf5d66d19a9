"""The `watermarking_config` of a generation_config.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from minitx.decoding.watermark.base import Watermark
from minitx.decoding.watermark.green import KGW
from minitx.decoding.watermark.synthid import SynthID
from minitx.validation import ArgumentTypeError, ArgumentValueError

_GREEN = {
    "greenlist_ratio": "ratio",
    "bias": "bias",
    "hashing_key": "key",
    "seeding_scheme": "seeding",
    "context_width": "context_width",
}
_SYNTHID = {field.name: field.name for field in dataclasses.fields(SynthID)}


def read_watermark(config: Any) -> Watermark:
    """Returns the watermark that transformers would apply; KGW with its lists on a CPU, or SynthID.

    Raises:
        ArgumentTypeError, ArgumentValueError: not an object, an unknown setting, or a value out of range.
    """
    if not isinstance(config, Mapping):
        raise ArgumentTypeError("watermarking_config", config, "an object with settings")
    kind: type[Watermark]
    kind, names = (SynthID, _SYNTHID) if "ngram_len" in config else (KGW, _GREEN)
    fields = {name: value for name, value in config.items() if name != "debug_mode" or value}
    if unknown := sorted(set(fields) - set(names)):
        hint = f"minitx does not know {', '.join(unknown)}"
        raise ArgumentValueError("watermarking_config", fields, f"of {', '.join(names)}", hint)
    options: dict[str, Any] = {"lists": "transformers"} if kind is KGW else {}
    return kind(**{names[name]: value for name, value in fields.items()}, **options)
