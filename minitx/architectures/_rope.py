"""Reading RoPE from a config.json, in either of the two dialects of checkpoints.

Newer files have `rope_parameters`, one object for all layers or one per layer type; older ones have
`rope_theta` and an optional `rope_scaling`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from minitx.architectures.config_reader import LARGEST_NUMBER, ConfigReader
from minitx.config import RopeConfig
from minitx.layers.rotary import FREQUENCIES
from minitx.validation import ArgumentValueError

WHERE = "config.json: rope_parameters"

# Former names of RoPE types
RENAMED = {"su": "longrope"}

# The numbers of each type; `RopeConfig` has the defaults of the optional ones
REQUIRED = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}
OPTIONAL = {"yarn": ("factor", "beta_fast", "beta_slow"), "longrope": ("factor",)}
OF_OTHER_TYPES = {
    *(name for names in (*REQUIRED.values(), *OPTIONAL.values()) for name in names),
    *("attention_factor", "truncate", "mscale", "mscale_all_dim", "short_factor", "long_factor"),
}


def rope_values(hf: ConfigReader, *, theta: float = 10_000.0, partial: float = 1.0) -> dict[str, Any]:
    """Returns the RoPE values of a config.json as one object, for both dialects.

    Args:
        hf: the config.
        theta: the architecture's default base.
        partial: the architecture's default share of each head that is rotated.

    Raises:
        ValueError: values that are not an object.
    """
    plain = {"rope_theta": theta if hf.get("rope_theta", None) is None else hf.positive("rope_theta")}
    share = hf.get("partial_rotary_factor", None)
    plain["partial_rotary_factor"] = partial if share is None else hf.number("partial_rotary_factor")
    old, new = hf.get("rope_scaling", None), hf.get("rope_parameters", None)
    stored = an_object(WHERE, old or new)
    return plain | {key: value for key, value in stored.items() if value is not None}


def an_object(where: str, value: Any) -> dict[str, Any]:
    """Returns an object of the config, empty if it is null.

    Raises:
        ValueError: anything but an object.
    """
    if value and not isinstance(value, Mapping):
        raise ArgumentValueError(where, value, "an object")
    return dict(value or {})


def check_per_type(values: Mapping[str, Any], kinds: Collection[str]) -> None:
    """Checks that all values are per layer type, for architectures whose layer types have separate bases.

    Raises:
        ValueError: values that belong to no layer type.
    """
    if strange := sorted(set(values) - set(kinds)):
        raise ValueError(
            f"{WHERE} has {', '.join(strange)}; expected an object for each type of layer: "
            f"{', '.join(kinds)}."
        )


def rope_per_type(
    hf: ConfigReader, values: Mapping[str, Any], kinds: Collection[str], head_dim: int
) -> dict[str, RopeConfig]:
    """Returns the RoPE of each layer type: its own object if the file has one, else the shared values.

    Raises:
        ValueError: values of an unknown layer type, values that are not an object, or values that
            `rope_config` refuses.
    """
    shared = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    if strange := sorted(set(values) - set(shared) - set(kinds)):
        raise ValueError(f"{WHERE} has {', '.join(strange)}; the layer types are {', '.join(kinds)}.")
    ropes = {}
    for kind in kinds:
        of_kind = an_object(f"{WHERE}[{kind!r}]", values.get(kind))
        ropes[kind] = rope_config(hf, shared | of_kind, head_dim)
    return ropes


def rope_config(hf: ConfigReader, values: Mapping[str, Any], head_dim: int) -> RopeConfig:
    """Returns the RoPE of one layer type.

    Args:
        hf: the config, for the context lengths of the model and of its training.
        values: `rope_theta`, and the values of the RoPE type.
        head_dim: features per head.

    Raises:
        ValueError: a RoPE type that minitx does not implement, or an unknown, missing or invalid value.
    """
    inner = ConfigReader({key: value for key, value in values.items() if value is not None}, WHERE)
    kind: Any = str(inner.get("rope_type", inner.get("type", "default")))
    kind = RENAMED.get(kind, kind)
    if kind not in FREQUENCIES:
        known = ", ".join(FREQUENCIES)
        raise inner.error("rope_type", kind, f"one of {known}")
    inner.ignore("finetuned")  # whether the weights were trained further with these values
    if kind == "default":
        inner.ignore(*OF_OTHER_TYPES)  # transformers leaves them out too
    theta, share = inner.positive("rope_theta"), inner.number("partial_rotary_factor", 1.0)
    rotary_dim = int(head_dim * share)
    longest, original = contexts(hf, inner, least=2 if kind in ATTENTION_FACTOR else 1)
    more: dict[str, Any] = {}
    if kind != "default":  # "dynamic" stretches the context length of the model
        more["original_max_position_embeddings"] = longest if kind == "dynamic" else original
    for name in REQUIRED.get(kind, ()):
        more[name] = inner.positive(name)
    for name in OPTIONAL.get(kind, ()):
        if inner.get(name, None) is not None:
            more[name] = inner.positive(name)
    if kind == "yarn":
        more["truncate"] = inner.flag("truncate", True)
    if kind == "longrope":
        more |= {name: divisors(inner, name, rotary_dim // 2) for name in ("short_factor", "long_factor")}
    if kind in ATTENTION_FACTOR:
        factor = more.setdefault("factor", longest / original)
        usual = ATTENTION_FACTOR[kind](inner, factor, original)
        more["attention_factor"] = inner.positive_or_none("attention_factor") or usual
    if unread := inner.unread():
        raise ValueError(f"{WHERE} has {', '.join(unread)}, unknown for rope_type={kind!r}.")
    check_rotary_dim(rotary_dim, kind, head_dim)
    return inner.build(RopeConfig, rope_theta=theta, rotary_dim=rotary_dim, rope_type=kind, **more)


def contexts(hf: ConfigReader, inner: ConfigReader, *, least: int) -> tuple[int, int]:
    """Returns the context length of the model, and that of its pre-training."""
    key, longest = "original_max_position_embeddings", hf.size("max_position_embeddings")
    inner.ignore(key)  # some files have it next to `rope_scaling`, which takes precedence
    source = inner if hf.get(key, None) is None else hf
    return longest, source.size(key, longest, least=least)


def divisors(inner: ConfigReader, name: str, pairs: int) -> tuple[float, ...]:
    """Returns the LongRoPE divisors, one per pair of features."""
    stored = inner.get(name)
    numbers = stored if isinstance(stored, list) else []
    if len(numbers) != pairs or not all(
        isinstance(x, int | float) and 1 / LARGEST_NUMBER <= x <= LARGEST_NUMBER for x in numbers
    ):
        raise inner.error(name, stored, f"a list of {pairs} positive numbers, one per pair of features")
    return tuple(float(x) for x in numbers)


def check_rotary_dim(size: int, kind: str, head_dim: int) -> None:
    """Checks that heads of `head_dim` features have this number of features to rotate.

    Raises:
        ValueError: they do not, or the number is odd where it must be even.
    """
    # An odd number is rounded up, so its last pair takes one more feature, which a whole head does not have.
    odd = size % 2 and (size == head_dim or kind in ATTENTION_FACTOR)
    least = 3 if kind == "dynamic" else 2  # whose exponent is size / (size - 2)
    if not least <= size <= head_dim or odd:
        raise ValueError(
            f"{WHERE} cannot rotate {size} features of attention heads with head_dim={head_dim}; RoPE "
            "rotates pairs of features, and partial_rotary_factor is the share of a head that is rotated."
        )


def yarn_factor(inner: ConfigReader, factor: float, original: int) -> float:
    """0.1 ln(factor) + 1 (arXiv:2309.00071, equation 22), or the ratio of two such."""

    def _magnitude(scale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    above, below = inner.number("mscale", 0.0), inner.number("mscale_all_dim", 0.0)
    return _magnitude(above) / _magnitude(below) if above and below else _magnitude(1.0)


def longrope_factor(inner: ConfigReader, factor: float, original: int) -> float:
    """sqrt(1 + ln(factor) / ln(original context)) (arXiv:2402.13753, section 3.3)."""
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))


ATTENTION_FACTOR = {"yarn": yarn_factor, "longrope": longrope_factor}
