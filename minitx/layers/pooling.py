"""Poolings: hidden states of a sequence to the vectors that a head or an embedding is computed from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from minitx.validation import ArgumentValueError

# (B, T, E), pooler output (B, E) or None, mask (B, T) or None -> (B, E), or (B, T, E) for "none"
Pooling = Callable[[Tensor, Tensor | None, Tensor | None], Tensor]


def pool_none(hidden: Tensor, pooled: Tensor | None, mask: Tensor | None) -> Tensor:
    """(B, T, E), (B, E), (B, S) -> (B, T, E), all tokens"""
    return hidden


def pool_first(hidden: Tensor, pooled: Tensor | None, mask: Tensor | None) -> Tensor:
    """(B, T, E), (B, E), (B, T) -> (B, E), the first token"""
    return hidden[:, 0]


def pool_first_attended(hidden: Tensor, pooled: Tensor | None, mask: Tensor | None) -> Tensor:
    """(B, T, E), (B, E), (B, T) -> (B, E), the first token that is not padding"""
    if mask is None:
        return hidden[:, 0]
    first = check_flat(mask).int().argmax(dim=1)  # (B,)
    return hidden[torch.arange(len(first), device=hidden.device), first]


def pool_last(hidden: Tensor, pooled: Tensor | None, mask: Tensor | None) -> Tensor:
    """(B, T, E), (B, E), (B, T) -> (B, E), the last token that is not padding

    In a causal stack it alone attends to the whole sequence.
    """
    if mask is None:
        return hidden[:, -1]
    position = torch.arange(hidden.shape[1], device=hidden.device)
    last = (position * check_flat(mask)).argmax(dim=1)  # (B,)
    return hidden[torch.arange(len(last), device=hidden.device), last]


def pool_mean(hidden: Tensor, pooled: Tensor | None, mask: Tensor | None) -> Tensor:
    """(B, T, E), (B, E), (B, T) -> (B, E), the mean of the attended tokens, zeros without any"""
    if mask is None:
        return hidden.mean(dim=1)
    mask = check_flat(mask)
    total = hidden.masked_fill(~mask[..., None], 0.0).sum(dim=1)  # a NaN at padding stays there
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


def pool_pooler(hidden: Tensor, pooled: Tensor | None, mask: Tensor | None) -> Tensor:
    """(B, T, E), (B, E), (B, T) -> (B, E), the pooler output"""
    assert pooled is not None, "the model has checked that it has a pooler"
    return pooled


def check_flat(mask: Tensor) -> Tensor:
    """Returns the mask if it is (B, T).

    Args:
        mask: (B, T) or (B, T, T)

    Returns:
        (B, T)

    Raises:
        ArgumentValueError: another shape.
    """
    if mask.dim() != 2:
        expected = f"of shape (batch, time) for this head, not {tuple(mask.shape)}"
        raise ArgumentValueError("attention_mask", mask, expected)
    return mask


POOLING: dict[str, Pooling] = {
    "none": pool_none,
    "first": pool_first,
    "first_attended": pool_first_attended,
    "last": pool_last,
    "mean": pool_mean,
    "pooler": pool_pooler,
}
