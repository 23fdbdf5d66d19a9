"""The logit lens of the page: the most probable tokens after every layer."""

from __future__ import annotations

from typing import Any

import torch

from minitx.inspect.analysis import logit_lens
from minitx.inspect.analysis.lens.logit import EMBEDDING
from minitx.inspect.page.tokens import names_of
from minitx.inspect.pictures.subject import Subject
from minitx.layers.heads import VOCABULARY_TASKS

TOP = 5
_AT_ONCE = 16  # positions whose logits of all layers are in memory at a time


def lens_data(subject: Subject) -> dict[str, Any] | None:
    """Returns the lens of every layer and position; None for a model without a head over the vocabulary.

    Returns:
        "side", the stack; "layers", their names; and per layer and position a cell [[names], [probabilities],
        entropy in nats], the best token first.
    """
    model = subject.model
    if model.task not in VOCABULARY_TASKS:
        return None
    side = model.families[-1]
    time = len(subject.ids(side))
    cells: list[list[Any]] = []
    names: tuple[str, ...] = ()
    for start in range(0, time, _AT_ONCE):
        positions = range(start, min(start + _AT_ONCE, time))
        result = logit_lens(model, subject.arguments, positions=positions)
        names, logits = result.layers, result.logits[:, 0].double()
        logs = torch.log_softmax(logits, dim=-1)
        best = logs.topk(min(TOP, logs.shape[-1]), dim=-1)
        entropy = -(logs.exp() * logs.clamp(min=-1e30)).sum(dim=-1)
        parts = zip(best.indices.tolist(), best.values.exp().tolist(), entropy.tolist(), strict=True)
        for layer, part in enumerate(parts):
            if layer == len(cells):
                cells.append([])
            cells[layer] += [_cell(subject, *values) for values in zip(*part, strict=True)]
    ahead = "this token" if model.task == "masked-lm" else "the next token"
    layers = ["input" if name == EMBEDDING else f"layer {name}" for name in names]
    return {"side": side, "predicts": ahead, "layers": layers, "cells": cells}


def _cell(subject: Subject, ids: list[int], shares: list[float], entropy: float) -> list[Any]:
    names = names_of(ids, subject.tokenizer)
    return [names, [round(share, 6) for share in shares], round(entropy, 4)]
