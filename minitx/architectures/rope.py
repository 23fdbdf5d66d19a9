"""Reading rotary positions out of a config.json, in either of the two dialects that checkpoints speak.

Newer files have `rope_parameters`, one object for all layers or one per type of layer; older ones have
`rope_theta` beside an optional `rope_scaling`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from minitx.architectures.reader import LARGEST_NUMBER, Reader
from minitx.config import RopeConfig
from minitx.layers.rope import FREQUENCIES

# Names that older files have for what is now called otherwise
RENAMED = {"su": "longrope"}


def rope_values(hf: Reader, *, theta: float = 10_000.0, partial: float = 1.0) -> dict[str, Any]:
    """The rotary values of a config.json as one object, whatever the dialect.

    Args:
        hf: the config.
        theta: the architecture's base where the file has none.
        partial: the share of each head that turns, where the file does not say.

    Raises:
        ValueError: values that are not an object.
    """
    plain = {"rope_theta": theta if hf.get("rope_theta", None) is None else hf.number("rope_theta")}
    share = hf.get("partial_rotary_factor", None)
    plain["partial_rotary_factor"] = partial if share is None else hf.number("partial_rotary_factor")
    old, new = hf.get("rope_scaling", None), hf.get("rope_parameters", None)
    written = old or new or {}
    if not isinstance(written, Mapping):
        raise ValueError(f"config.json: rope_parameters={written!r} must be an object.")
    return plain | dict(written)


def rope_per_type(
    hf: Reader, values: Mapping[str, Any], kinds: Iterable[str], head_dim: int
) -> dict[str, RopeConfig]:
    """The rotary positions of each type of layer: its own object where the file has one, else the shared.

    Raises:
        ValueError: a type of layer with something that is no object, or what `rope_config` refuses.
    """
    shared = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    found = {}
    for kind in kinds:
        own = values.get(kind) or {}
        if not isinstance(own, Mapping):
            raise ValueError(f"config.json: rope_parameters[{kind!r}]={own!r} must be an object.")
        found[kind] = rope_config(hf, shared | dict(own), head_dim)
    return found


def rope_config(
    hf: Reader, values: Mapping[str, Any], head_dim: int, *, interleaved: bool = False
) -> RopeConfig:
    """
    Raises:
        ValueError: a kind of rotary positions that minitx does not implement, or a number that cannot be.
    """
    said = {key: value for key, value in values.items() if value is not None}
    inner = Reader(said, "config.json: rope_parameters")
    kind = str(inner.get("rope_type", inner.get("type", "default")))
    kind = RENAMED.get(kind, kind)
    if kind not in FREQUENCIES:
        known = ", ".join(FREQUENCIES)
        raise ValueError(f"config.json: rope_type={kind!r} is not implemented; minitx has: {known}.")
    rotary_dim = int(head_dim * inner.number("partial_rotary_factor", 1.0))
    longest = hf.size("max_position_embeddings")
    theta, original = inner.number("rope_theta"), inner.get("original_max_position_embeddings", longest)
    if hf.config.get("original_max_position_embeddings") is not None:
        original = hf.size("original_max_position_embeddings")
    if kind == "dynamic":  # it counts from what the model is made for
        original = longest
    pairs = 2 <= rotary_dim <= head_dim and not (rotary_dim == head_dim and rotary_dim % 2)
    if not pairs or not 0 < theta < LARGEST_NUMBER:
        raise ValueError(
            f"config.json: rope_parameters cannot turn {rotary_dim} features of attention heads with "
            f"head_dim={head_dim} at rope_theta={theta}; they turn pairs, by powers of a positive base."
        )
    more: dict[str, Any] = {}
    if kind != "default":
        factor = inner.get("factor", None)
        more["factor"] = longest / original if factor is None else inner.number("factor")
        more["original_max_position_embeddings"] = original
        if more["factor"] <= 0 or (kind == "dynamic" and rotary_dim == 2):
            raise ValueError(f"config.json: rope_parameters={dict(values)!r} cannot be computed.")
    for name in KEYS_OF.get(kind, ()):
        if inner.get(name, None) is not None:
            more[name] = inner.flag(name) if name == "truncate" else inner.number(name)
    if kind == "longrope":
        more |= {name: divisors(inner, name, rotary_dim // 2) for name in ("short_factor", "long_factor")}
    if kind in ATTENTION_FACTOR:
        given = inner.get("attention_factor", None)
        usual = ATTENTION_FACTOR[kind](inner, more["factor"], original)
        more["attention_factor"] = usual if given is None else inner.number("attention_factor")
    if unread := inner.unread():
        raise ValueError(f"config.json: rope_parameters has {', '.join(unread)}, unknown for {kind!r}.")
    return RopeConfig(
        rope_theta=theta, rotary_dim=rotary_dim, rope_type=kind, interleaved=interleaved, **more
    )


KEYS_OF = {"llama3": ("low_freq_factor", "high_freq_factor"), "yarn": ("beta_fast", "beta_slow", "truncate")}


def divisors(inner: Reader, name: str, pairs: int) -> tuple[float, ...]:
    found = inner.get(name)
    if not isinstance(found, list) or len(found) != pairs or not all(x > 0 for x in found):
        raise ValueError(f"config.json: {name} must list {pairs} positive numbers, one per pair of features.")
    return tuple(float(x) for x in found)


def yarn_factor(inner: Reader, factor: float, original: int) -> float:
    """0.1 ln(factor) + 1 (arXiv:2309.00071, equation 22), or the ratio of two such."""

    def magnitude(scale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    above, below = inner.number("mscale", 0.0), inner.number("mscale_all_dim", 0.0)
    return magnitude(above) / magnitude(below) if above and below else magnitude(1.0)


def longrope_factor(inner: Reader, factor: float, original: int) -> float:
    """sqrt(1 + ln(factor) / ln(original context)) (arXiv:2402.13753, section 3.3)."""
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))


ATTENTION_FACTOR = {"yarn": yarn_factor, "longrope": longrope_factor}
