"""Attention of every layer and head, with the queries, keys and values that it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minitx.inspect.page.arrays import VALUES, Precision, pack, size_of
from minitx.inspect.pictures.subject import Subject
from minitx.inspect.taps import Record
from minitx.models.taps import match_places

# Name, stack of the queries, stack of the keys, module in a layer, title.
KINDS = (
    ("encoder.self", "encoder", "encoder", "attention.self_attention", "Encoder self-attention"),
    ("decoder.self", "decoder", "decoder", "attention.self_attention", "Decoder self-attention"),
    ("decoder.cross", "decoder", "encoder", "cross_attention.cross_attention", "Cross-attention"),
)
VECTORS = ("query", "key", "value")
POINTS = ("weights", "scores", *VECTORS)
# Precision of weights, and of vectors if they are there: the first with which all fits.
_LEVELS: tuple[tuple[Precision, Precision | None], ...] = (
    ("f32", "f32"),
    ("f16", "f16"),
    ("u8", "u8"),
    ("u8", "u6"),
    ("u6", "u4"),
    ("f16", None),
    ("u8", None),
)
_REDUCED = {
    "f16": "Weights and vectors of attention have about three digits, so that the page stays small.",
    "u8": "Weights of attention have 256 steps, so that the page stays small.",
    "u6": "Weights of attention have 64 steps, so that the page stays small.",
}
_VECTORS = (
    "Queries, keys and values have {} steps, so that the page stays small; scores are computed from them."
)
_LEFT_OUT = "Queries, keys and values are left out, so that the page stays small; a shorter text has them."
_TOO_LONG = (
    "The text is too long for the attention weights of all heads in one page; a shorter text has them."
)


def attention_places(subject: Subject) -> dict[str, list[str]]:
    """Returns the modules of each kind of attention that the model has, layer by layer."""
    weights = [place for place in match_places(subject.model, "**") if place.point == "weights"]
    places: dict[str, list[str]] = {}
    for name, side, _, module, _ in KINDS:
        end = f".{module}.weights"
        found = [place.name for place in weights if place.stack == side and place.name.endswith(end)]
        if found:
            places[name] = [place.removesuffix(".weights") for place in found]
    return places


def attention_data(subject: Subject, seen: Record, budget: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns all kinds of attention of the model for the page, and notes on what was reduced to fit.

    Args:
        subject: the model and its text.
        seen: the values at the `POINTS` of all `attention_places`.
        budget: most characters of the arrays.

    Returns:
        Per kind: its names and sizes, and the arrays "weights" and "scores" (L, H, T, S), "query"
        (L, H, T, D), "key" and "value" (L, K, S, D). Those that do not fit the budget are None.
    """
    kinds = [_values(subject, name, modules, seen) for name, modules in attention_places(subject).items()]
    for weights, vectors in _LEVELS:
        packed = [_packed(kind, weights, vectors) for kind in kinds]
        if size_of(packed) <= budget:
            return packed, _notes(weights, vectors)
    return [_packed(kind, None, None) for kind in kinds], [_TOO_LONG]


def _values(subject: Subject, name: str, modules: Sequence[str], seen: Record) -> dict[str, Any]:
    """Returns the facts and the tensors of a kind of attention."""
    _, queries, keys, _, title = next(kind for kind in KINDS if kind[0] == name)
    parts = [match_places(subject.model, f"{module}.weights")[0].module for module in modules]
    tensors = {point: torch.stack([seen[f"{m}.{point}"][0] for m in modules]) for point in POINTS}
    scores: Tensor = tensors["scores"]
    masked = scores <= torch.finfo(seen[f"{modules[0]}.scores"].dtype).min / 4
    # Masked scores would take all the steps of a reduced precision; a weight of 0 is enough to know them.
    tensors["scores"] = scores.masked_fill(masked, 0.0)
    upper = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return {
        "name": name,
        "title": title,
        "query_side": queries,
        "key_side": keys,
        "causal": name == "decoder.self" and bool(masked[..., upper].all()),
        "layers": len(modules),
        "heads": scores.shape[1],
        "sinks": any(getattr(part, "sinks", None) is not None for part in parts),
        "scale": [float(getattr(part, "scale", 1.0)) for part in parts],
        "tensors": tensors,
    }


def _packed(kind: dict[str, Any], weights: Precision | None, vectors: Precision | None) -> dict[str, Any]:
    """Returns a kind of attention with its arrays in these precisions; those without one are None."""
    facts = {key: value for key, value in kind.items() if key != "tensors"}
    chosen = dict.fromkeys(VECTORS, vectors) | {"weights": weights}
    chosen["scores"] = vectors if vectors in ("f32", "f16") else None  # else the page computes them
    for point, tensor in kind["tensors"].items():
        precision = chosen[point]
        facts[point] = None if precision is None else pack(tensor, precision)
    return facts


def _notes(weights: Precision, vectors: Precision | None) -> list[str]:
    notes = [_REDUCED[weights]] if weights in _REDUCED else []
    if vectors in VALUES:
        notes.append(_VECTORS.format(VALUES[vectors]))
    return notes if vectors else [*notes, _LEFT_OUT]
