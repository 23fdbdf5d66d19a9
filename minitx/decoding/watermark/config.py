"""The `watermarking_config` of a generation_config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minitx.decoding.watermark.base import Watermark
from minitx.decoding.watermark.green import KGW
from minitx.validation import ArgumentTypeError, ArgumentValueError

_GREEN = {
    "greenlist_ratio": "ratio",
    "bias": "bias",
    "hashing_key": "key",
    "seeding_scheme": "seeding",
    "context_width": "context_width",
}


def read_watermark(config: Any) -> Watermark:
    """Returns the watermark that transformers would apply; KGW with its lists on a CPU.

    Raises:
        ArgumentTypeError, ArgumentValueError: not an object, an unknown setting, or a value out of range.
    """
    if not isinstance(config, Mapping):
        raise ArgumentTypeError("watermarking_config", config, "an object with settings")
    if unknown := sorted(set(config) - set(_GREEN)):
        hint = f"minitx does not know {', '.join(unknown)}"
        raise ArgumentValueError("watermarking_config", dict(config), f"of {', '.join(_GREEN)}", hint)
    return KGW(**{_GREEN[name]: value for name, value in config.items()}, lists="transformers")
