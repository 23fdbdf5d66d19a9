"""RoPE of a GGUF file: its keys and its tables of divisors -> the keys of config.json."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from minitx.checkpoint.gguf.metadata import Metadata
from minitx.checkpoint.gguf.tensors import read_plain

DIVISORS, SHORT, LONG = "rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"
TABLES = (DIVISORS, SHORT, LONG)
# Llama 3.1 to 3.3; the converter writes the divisors that they lead to
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
_TOLERANCE = 1e-5  # relative, of divisors computed in float32
_YARN = {"yarn_beta_fast": "beta_fast", "yarn_beta_slow": "beta_slow"}


def rope_keys(keys: Metadata, head_dim: int, default: float = 10_000.0) -> dict[str, Any]:
    """Returns `rope_theta` and `rope_scaling`, and `original_max_position_embeddings` for LongRoPE.

    Args:
        keys: of the architecture.
        head_dim: features per head.
        default: the base if the file states none.

    Raises:
        ValueError: a kind of scaling that minitx does not implement.
    """
    theta = keys.number("rope.freq_base", default)
    scaling, more = _scaling(keys)
    if tables := _divisors(keys, theta, head_dim):
        if scaling not in ({}, {"rope_type": "longrope"}):
            raise keys.error("rope.scaling.type", scaling["rope_type"], f"left out beside {DIVISORS}")
        scaling = tables
    config = {"rope_theta": theta, **more}
    return config | {"rope_scaling": scaling} if scaling else config


def _scaling(keys: Metadata) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns `rope_scaling` by the keys alone, and entries of config.json beside it."""
    keys.ignore(["rope.scaling.finetuned"])  # whether the weights were trained further with it
    old = keys.number("rope.scale_linear", 1.0)  # of before 2023-10
    kind = keys.text("rope.scaling.type", "longrope" if LONG in keys.file.tensors else "none")
    factor = keys.number("rope.scaling.factor", 1.0)
    original = keys.size("rope.scaling.original_context_length", None)
    attention = keys.number("rope.scaling.attn_factor", None)
    if kind != "longrope" and attention not in (None, 1):
        raise keys.error("rope.scaling.attn_factor", attention, f"1 with rope.scaling.type {kind!r}")
    if kind in ("none", "linear"):
        factor = factor if kind == "linear" else old
        return ({} if factor == 1 else {"rope_type": "linear", "factor": factor}), {}
    if kind == "longrope":
        more = {} if original is None else {"original_max_position_embeddings": original}
        return {"rope_type": kind}, more
    if kind != "yarn":
        raise keys.error("rope.scaling.type", kind, "none, linear, yarn or longrope")
    keys.expect("rope.scaling.yarn_ext_factor", 1)
    keys.expect("rope.scaling.yarn_attn_factor", 1)
    scaling = {"rope_type": kind, "factor": factor}
    if original is not None:
        scaling["original_max_position_embeddings"] = original
    stated = {name: keys.number(f"rope.scaling.{key}", None) for key, name in _YARN.items()}
    return scaling | {name: value for name, value in stated.items() if value is not None}, {}


def _divisors(keys: Metadata, theta: float, head_dim: int) -> dict[str, Any]:
    """Returns `rope_scaling` of the file's tables of divisors; {} without any."""
    present = {name: keys.file.tensors[name] for name in TABLES if name in keys.file.tensors}
    tables = {name: read_plain(keys.file, tensor).flatten().float() for name, tensor in present.items()}
    for name, table in tables.items():
        if not bool((table.isfinite() & (table > 0)).all()):
            raise ValueError(f"{keys.file.path}: {name} must hold positive numbers.")
    if DIVISORS in tables:
        table = tables[DIVISORS]
        factor = float(table.max())
        if factor == 1:
            return {}
        usual = llama3_divisors(theta, head_dim, factor)
        if usual.shape == table.shape and torch.allclose(usual, table, rtol=_TOLERANCE, atol=0):
            return {"rope_type": "llama3", "factor": factor, **_LLAMA3}
        listed = [float(x) for x in table]
        # LongRoPE with the same divisors at all lengths, and no factor of the scores
        return {
            "rope_type": "longrope",
            "short_factor": listed,
            "long_factor": listed,
            "attention_factor": 1.0,
            "factor": 1.0,
        }
    if not tables:
        return {}
    if len(tables) < 2:
        raise ValueError(f"{keys.file.path}: has one of {SHORT} and {LONG} only; it is not complete.")
    scaling: dict[str, Any] = {
        "rope_type": "longrope",
        "short_factor": [float(x) for x in tables[SHORT]],
        "long_factor": [float(x) for x in tables[LONG]],
    }
    attention = keys.number("rope.scaling.attn_factor", None)
    return scaling if attention is None else scaling | {"attention_factor": attention}


def llama3_divisors(theta: float, head_dim: int, factor: float) -> Tensor:
    """Returns the divisors of Llama 3's RoPE: 1 for high frequencies, `factor` for low ones, mixed between.

    Args:
        theta: the base.
        head_dim: features per head.
        factor: the largest divisor.

    Returns:
        (head_dim / 2,), float32.
    """
    low, high, original = _LLAMA3.values()
    rotations = original / (2 * math.pi) * theta ** (-torch.arange(0, head_dim, 2).double() / head_dim)
    share = ((rotations - low) / (high - low)).clamp(0, 1)
    return (1 / ((1 - share) / factor + share)).float()
