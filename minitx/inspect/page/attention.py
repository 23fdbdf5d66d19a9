"""Attention of every layer and head, with the queries, keys and values that it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minitx.inspect.page.arrays import PRECISIONS, Precision, pack, size_of
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
_LEVELS: tuple[tuple[Precision, bool], ...] = (
    *((p, True) for p in PRECISIONS),
    ("f16", False),
    ("u8", False),
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
        Per kind: its names and sizes, and the arrays "weights" and "scores" (L, H, T, S), "query" (L, H, T, D),
        "key" and "value" (L, K, S, D). Scores and vectors are None where they do not fit the budget.
    """
    kinds = [_values(subject, name, modules, seen) for name, modules in attention_places(subject).items()]
    for precision, vectors in _LEVELS:
        packed = [_packed(kind, precision, vectors) for kind in kinds]
        if size_of(packed) <= budget:
            return packed, _notes(precision, vectors)
    return [_packed(kind, None, False) for kind in kinds], [
        "The text is too long for the attention weights of all heads in one page; a shorter text has them."
    ]


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
        "scale": [float(getattr(part, "scale", 1.0)) for part in parts],
        "tensors": tensors,
    }


def _packed(kind: dict[str, Any], precision: Precision | None, vectors: bool) -> dict[str, Any]:
    """Returns a kind of attention with packed arrays; without a precision, with none."""
    facts = {key: value for key, value in kind.items() if key != "tensors"}
    for point, tensor in kind["tensors"].items():
        wanted = precision is not None and (point == "weights" or vectors)
        if point == "scores" and precision == "u8":
            wanted = False  # the page computes them from queries and keys
        facts[point] = pack(tensor, precision or "f32") if wanted else None
    return facts


def _notes(precision: Precision, vectors: bool) -> list[str]:
    notes = []
    if precision == "f16":
        notes.append(
            "Weights and vectors of attention have about three digits here, so that the page stays small."
        )
    if precision == "u8":
        notes.append(
            "Weights and vectors of attention have 256 steps here, so that the page stays small; scores are "
            "computed from these vectors and differ in the third digit."
        )
    if not vectors:
        notes.append(
            "Queries, keys and values are left out, so that the page stays small; a shorter text has them."
        )
    return notes
