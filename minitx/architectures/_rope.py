"""Reading rotary positions out of a config.json, in either of the two dialects that checkpoints speak.

Newer files have `rope_parameters`, one object for all layers or one per type of layer; older ones have
`rope_theta` beside an optional `rope_scaling`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from minitx.architectures.config_reader import LARGEST_NUMBER, ConfigReader
from minitx.config import RopeConfig
from minitx.layers.rotary import FREQUENCIES

WHERE = "config.json: rope_parameters"

# Names that older files have for what is now called otherwise
RENAMED = {"su": "longrope"}

# The numbers of each kind; what an optional one means by its absence is said in `RopeConfig`
REQUIRED = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}
OPTIONAL = {"yarn": ("factor", "beta_fast", "beta_slow"), "longrope": ("factor",)}


def rope_values(hf: ConfigReader, *, theta: float = 10_000.0, partial: float = 1.0) -> dict[str, Any]:
    """The rotary values of a config.json as one object, whatever the dialect.

    Args:
        hf: the config.
        theta: the architecture's base where the file has none.
        partial: the share of each head that turns, where the file does not say.

    Raises:
        ValueError: values that are not an object.
    """
    plain = {"rope_theta": theta if hf.get("rope_theta", None) is None else hf.positive("rope_theta")}
    share = hf.get("partial_rotary_factor", None)
    plain["partial_rotary_factor"] = partial if share is None else hf.number("partial_rotary_factor")
    old, new = hf.get("rope_scaling", None), hf.get("rope_parameters", None)
    written = an_object(WHERE, old or new)
    return plain | {key: value for key, value in written.items() if value is not None}


def an_object(where: str, value: Any) -> dict[str, Any]:
    """What stands at a place of the config, nothing if it is null.

    Raises:
        ValueError: anything but an object.
    """
    if value and not isinstance(value, Mapping):
        raise ValueError(f"{where}={value!r} must be an object.")
    return dict(value or {})


def check_per_type(values: Mapping[str, Any], kinds: Collection[str]) -> None:
    """For architectures whose types of layers turn at bases of their own, so that none are shared.

    Raises:
        ValueError: values that are not of one of the types of layers.
    """
    if strange := sorted(set(values) - set(kinds)):
        raise ValueError(
            f"{WHERE} has {', '.join(strange)}; expected an object for each type of layer: "
            f"{', '.join(kinds)}."
        )


def rope_per_type(
    hf: ConfigReader, values: Mapping[str, Any], kinds: Collection[str], head_dim: int
) -> dict[str, RopeConfig]:
    """The rotary positions of each type of layer: its own object where the file has one, else the shared.

    Raises:
        ValueError: values of a type of layer that there is not, or that are no object, or what
            `rope_config` refuses.
    """
    shared = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    if strange := sorted(set(values) - set(shared) - set(kinds)):
        raise ValueError(f"{WHERE} has {', '.join(strange)}; the types of layers are {', '.join(kinds)}.")
    found = {}
    for kind in kinds:
        own = an_object(f"{WHERE}[{kind!r}]", values.get(kind))
        found[kind] = rope_config(hf, shared | own, head_dim)
    return found


def rope_config(hf: ConfigReader, values: Mapping[str, Any], head_dim: int) -> RopeConfig:
    """The rotary positions of one type of layer.

    Args:
        hf: the config, for the contexts that the model was made for and trained with.
        values: `rope_theta`, and what else the kind of rotary positions needs.
        head_dim: how many features a head has.

    Raises:
        ValueError: a kind that minitx does not implement, a value that it does not know, one that is
            missing, or a number that cannot be.
    """
    inner = ConfigReader({key: value for key, value in values.items() if value is not None}, WHERE)
    kind: Any = str(inner.get("rope_type", inner.get("type", "default")))
    kind = RENAMED.get(kind, kind)
    if kind not in FREQUENCIES:
        known = ", ".join(FREQUENCIES)
        raise ValueError(f"config.json: rope_type={kind!r} is not implemented; minitx has: {known}.")
    inner.ignore("finetuned")  # whether the weights were trained further with these values
    theta, share = inner.positive("rope_theta"), inner.number("partial_rotary_factor", 1.0)
    rotary_dim = int(head_dim * share)
    longest, original = contexts(hf, inner, least=2 if kind in ATTENTION_FACTOR else 1)
    more: dict[str, Any] = {}
    if kind != "default":  # "dynamic" stretches from what the model is made for
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
    rope = RopeConfig(rope_theta=theta, rotary_dim=rotary_dim, rope_type=kind, **more)
    check(rope, head_dim)
    return rope


def contexts(hf: ConfigReader, inner: ConfigReader, *, least: int) -> tuple[int, int]:
    """The longest text that the model is made for, and the longest of its pre-training."""
    key, longest = "original_max_position_embeddings", hf.size("max_position_embeddings")
    inner.ignore(key)  # some files say it beside `rope_scaling`, and that counts
    source = inner if hf.get(key, None) is None else hf
    return longest, source.size(key, longest, least=least)


def divisors(inner: ConfigReader, name: str, pairs: int) -> tuple[float, ...]:
    found = inner.get(name)
    numbers = found if isinstance(found, list) else []
    if len(numbers) != pairs or not all(
        isinstance(x, int | float) and 1 / LARGEST_NUMBER <= x <= LARGEST_NUMBER for x in numbers
    ):
        raise ValueError(f"{WHERE}: {name} must list {pairs} positive numbers, one per pair of features.")
    return tuple(float(x) for x in numbers)


def check(rope: RopeConfig, head_dim: int) -> None:
    """
    Raises:
        ValueError: numbers of which each could be, but not with the others.
    """
    size, kind = rope.rotary_dim, rope.rope_type
    # An odd share is rounded up, and then its last pair takes one feature more; a whole head has none left.
    odd = size % 2 and (size == head_dim or kind in ATTENTION_FACTOR)
    if not 2 <= size <= head_dim or odd:
        raise ValueError(
            f"{WHERE} cannot turn {size} features of attention heads with head_dim={head_dim}; they turn "
            "pairs of features, and partial_rotary_factor is the share of a head that turns."
        )
    if kind == "dynamic" and size <= 2:
        raise ValueError(f"{WHERE}: rope_type='dynamic' needs more than the {size} features that turn.")
    if kind == "llama3" and rope.low_freq_factor >= rope.high_freq_factor:
        raise ValueError(
            f"{WHERE}: low_freq_factor={rope.low_freq_factor} must be below "
            f"high_freq_factor={rope.high_freq_factor}."
        )
    if kind == "yarn" and (rope.beta_slow > rope.beta_fast or rope.rope_theta == 1):
        raise ValueError(
            f"{WHERE}: beta_slow={rope.beta_slow} must not be above beta_fast={rope.beta_fast}, nor "
            f"rope_theta={rope.rope_theta} be 1, where all pairs turn alike."
        )


def yarn_factor(inner: ConfigReader, factor: float, original: int) -> float:
    """0.1 ln(factor) + 1 (arXiv:2309.00071, equation 22), or the ratio of two such."""

    def magnitude(scale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    above, below = inner.number("mscale", 0.0), inner.number("mscale_all_dim", 0.0)
    return magnitude(above) / magnitude(below) if above and below else magnitude(1.0)


def longrope_factor(inner: ConfigReader, factor: float, original: int) -> float:
    """sqrt(1 + ln(factor) / ln(original context)) (arXiv:2402.13753, section 3.3)."""
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))


ATTENTION_FACTOR = {"yarn": yarn_factor, "longrope": longrope_factor}
