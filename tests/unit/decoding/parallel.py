"""The schedules of `fill` from their definitions: one row, plain loops, float64 where it decides nothing.

A tiny random BERT, whose distribution at a position is that of the model without the mask token.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

import minitx
from minitx.models import EncoderModel

VOCAB, MASK, PAD = 12, 4, 0
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "pad_token_id": PAD,
    "initializer_range": 0.7,
}
Rows = list[int]


@cache
def tiny(model_type: str = "bert", seed: int = 0) -> EncoderModel:
    config = {"model_type": model_type, **SIZES}
    if model_type == "distilbert":
        names = {"hidden_size": "dim", "intermediate_size": "hidden_dim"}
        names |= {"num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
        config = {names.get(key, key): value for key, value in config.items()}
    if model_type in ("albert", "electra"):
        config["embedding_size"] = 8
    model = minitx.from_config(config, head="masked-lm", seed=seed).eval()
    assert isinstance(model, EncoderModel)
    return model


@torch.no_grad()
def table(model: EncoderModel, ids: Rows) -> Tensor:
    """(T, V): the probability of each token but the mask at each position."""
    logits = model(torch.tensor([ids])).logits[0].double()
    logits[:, MASK] = -torch.inf
    return logits.softmax(-1)


def mask_predict(model: EncoderModel, ids: Rows, steps: int) -> Rows:
    ids, open_ = list(ids), [i for i, token in enumerate(ids) if token == MASK]
    probability: dict[int, float] = {}
    for t in range(steps):
        n = len(open_) * (steps - t) // steps
        masked = sorted(open_, key=lambda i: probability.get(i, 0.0))[:n]
        for i in masked:
            ids[i] = MASK
        p = table(model, ids)
        for i in masked:
            ids[i], probability[i] = int(p[i].argmax()), float(p[i].max())
    return ids


def score(p: Tensor, rule: str) -> float:
    if rule == "confidence":
        return float(p.max())
    if rule == "margin":
        first, second = p.sort(descending=True).values[:2].tolist()
        return float(first - second)
    return float(sum(x * torch.tensor(x).log() for x in p.tolist() if x > 0))


def remasking(
    model: EncoderModel,
    ids: Rows,
    rule: str,
    steps: int | None = None,
    block_length: int | None = None,
    threshold: float | None = None,
) -> Rows:
    ids, open_ = list(ids), [i for i, token in enumerate(ids) if token == MASK]
    length = block_length or len(open_)
    for start in range(0, len(open_), length):
        block = open_[start : start + length]
        parts = steps or len(block)
        counts = [len(block) // parts + (s < len(block) % parts) for s in range(parts)]
        while any(ids[i] == MASK for i in block):
            p = table(model, ids)
            left = sorted((i for i in block if ids[i] == MASK), key=lambda i: -score(p[i], rule))
            count = counts.pop(0)
            if threshold is not None:
                count = max(1, sum(score(p[i], rule) >= threshold for i in left))
            for i in left[:count]:
                ids[i] = int(p[i].argmax())
    return ids


def entropy_bound(
    model: EncoderModel, ids: Rows, steps: int, bound: float, t_max: float, t_min: float, confident: float
) -> tuple[Rows, int]:
    """The tokens and the number of steps, when each position takes its most probable token."""
    ids, open_ = list(ids), [i for i, token in enumerate(ids) if token == MASK]
    before: Rows = []
    for left in range(steps, 0, -1):
        temperature = t_min + (t_max - t_min) * left / steps
        p = table(model, ids).pow(1 / temperature)
        p /= p.sum(-1, keepdim=True)
        best = [int(p[i].argmax()) for i in open_]
        entropy = {i: -score(p[i], "entropy") for i in open_}
        if (best == before and sum(entropy.values()) / len(open_) < confident) or left == 1:
            break
        total, before = 0.0, best
        for i in sorted(open_, key=lambda i: entropy[i]):
            ids[i] = best[open_.index(i)] if total <= bound else MASK
            total += entropy[i]
    for i, token in zip(open_, best, strict=True):
        ids[i] = token
    return ids, steps - left + 1
