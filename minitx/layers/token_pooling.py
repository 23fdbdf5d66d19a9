"""Poolings of sentence embeddings: the hidden states of a text's tokens to one vector.

Unlike the poolings of heads in `minitx.layers.pooling` they can leave out the prompt, and several of them can
be concatenated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from minitx.layers.pooling import pool_first_attended, pool_last, pool_mean
from minitx.validation import ArgumentValueError, check_choice

Pooling = Literal["mean", "first", "last", "max", "mean_sqrt_len", "weighted_mean", "pooler"]


def names_of(pooling: Any) -> tuple[Any, ...]:
    """Returns the poolings whose vectors are concatenated, mostly one."""
    return tuple(pooling) if isinstance(pooling, list | tuple) else (pooling,)


def check_pooling(pooling: Any) -> None:
    """Checks a pooling, or several, else raises ArgumentValueError."""
    if not names_of(pooling):
        raise ArgumentValueError("pooling", pooling, "a pooling, or several", "'mean' is the usual one")
    for name in names_of(pooling):
        check_choice("pooling", name, get_args(Pooling))


def pool(
    pooling: Any, hidden: Tensor, pooled: Tensor | None, mask: Tensor, prompt_length: int | Tensor = 0
) -> Tensor:
    """Pools hidden states.

    Args:
        pooling: a pooling, or several, whose vectors are concatenated.
        hidden: (B, T, E).
        pooled: (B, E), or None.
        mask: (B, T) bool, False at padding.
        prompt_length: number of tokens at the start of each text that are left out; or (B, 1), of each.

    Returns:
        (B, E) or (B, E * poolings)
    """
    position = mask.cumsum(dim=1)  # (B, T), from 1 at the first token
    kept = mask & (position > prompt_length)
    vectors = []
    for name in names_of(pooling):
        vector = pooled if name == "pooler" else POOLINGS[name](hidden, kept, position)
        assert vector is not None
        vectors.append(vector)
    return torch.cat(vectors, dim=-1)


def pool_max(hidden: Tensor, mask: Tensor, position: Tensor) -> Tensor:
    """(B, T, E), (B, T), (B, T) -> (B, E), the maximum of each feature, zeros without any token"""
    largest = hidden.masked_fill(~mask[..., None], -torch.inf).amax(dim=1)
    return largest.masked_fill(~mask.any(dim=1, keepdim=True), 0.0)


def pool_mean_sqrt_len(hidden: Tensor, mask: Tensor, position: Tensor) -> Tensor:
    """(B, T, E), (B, T), (B, T) -> (B, E), the sum divided by the root of the number of tokens"""
    return pool_mean(hidden, None, mask) * mask.sum(dim=1, keepdim=True).sqrt()


def pool_weighted_mean(hidden: Tensor, mask: Tensor, position: Tensor) -> Tensor:
    """(B, T, E), (B, T), (B, T) -> (B, E), the mean with the weights 1, 2, 3, ... of the tokens"""
    weight = (position * mask)[..., None].to(hidden.dtype)
    return (hidden.masked_fill(~mask[..., None], 0.0) * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


POOLINGS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "mean": lambda hidden, mask, position: pool_mean(hidden, None, mask),
    "first": lambda hidden, mask, position: pool_first_attended(hidden, None, mask),
    "last": lambda hidden, mask, position: pool_last(hidden, None, mask),
    "max": pool_max,
    "mean_sqrt_len": pool_mean_sqrt_len,
    "weighted_mean": pool_weighted_mean,
}
