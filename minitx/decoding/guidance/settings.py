"""Guidance and contrastive search as a generation_config.json states them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minitx.decoding.guidance.base import Guidance
from minitx.decoding.guidance.contrast import ClassifierFree
from minitx.decoding.guidance.contrastive_search import ContrastiveSearch
from minitx.decoding.guidance.dola import DoLa
from minitx.validation import ArgumentError

SCALE, LAYERS, ALPHA = SETTINGS = ("guidance_scale", "dola_layers", "penalty_alpha")
_TOP_K = 50  # of transformers, where the file does not state it


def stated_guidance(stated: Mapping[str, Any]) -> Guidance | None:
    """Returns the guidance that `guidance_scale` or `dola_layers` ask for, if they do.

    Raises:
        ValueError, TypeError: both, or a wrong value.
    """
    found: list[Guidance] = []
    kinds: tuple[tuple[str, Any, Any], ...] = ((SCALE, ClassifierFree, 1), (LAYERS, DoLa, None))
    for name, kind, neutral in kinds:
        if stated.get(name, neutral) not in (neutral, []):
            try:
                found.append(kind(stated[name]))
            except ArgumentError as error:
                raise type(error)(name, error.value, error.expected, error.hint) from None
    if len(found) > 1:
        raise ValueError(f"{SCALE} and {LAYERS} cannot be combined.")
    return found[0] if found else None


def stated_search(stated: Mapping[str, Any]) -> ContrastiveSearch | None:
    """Returns the contrastive search that `penalty_alpha` asks for, without its other fields, if it does.

    Raises:
        ValueError, TypeError: beside sampling or beams, or a wrong value.
    """
    alpha = stated.get(ALPHA, 0)
    if alpha == 0 or alpha == []:
        return None
    if stated.get("do_sample", False) is not False or stated.get("num_beams", 1) != 1:
        raise ValueError(f"{ALPHA}={alpha!r:.60} has no effect beside do_sample or num_beams.")
    return ContrastiveSearch(penalty_alpha=alpha, top_k=stated.get("top_k", _TOP_K))
