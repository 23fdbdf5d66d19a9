"""Attention masks: one boolean mask per kind of layer, True = attend, built once per forward."""

from __future__ import annotations

import torch
from torch import Tensor

from minitx.validation import ArgumentValueError, check_tensor, values_unavailable


def as_bool(mask: Tensor | None, batch: int, time: int, name: str = "attention_mask") -> Tensor | None:
    """Converts Hugging Face's 0/1 mask, or a boolean one, to a boolean mask.

    Args:
        mask: (B, T) for padding, or (B, T, T) for the keys that each query attends to; or None.
        batch: B.
        time: T.
        name: of the parameter, for messages.

    Returns:
        (B, T) or (B, T, T) bool, True = attend; None: attend to all.

    Raises:
        ArgumentTypeError: not a tensor.
        ArgumentValueError: a shape that does not fit the ids, or values other than 0 and 1.
    """
    if mask is None:
        return None
    shape = tuple(check_tensor(name, mask).shape)
    if shape != (batch, time) and shape != (batch, time, time):  # traced sizes have no hash
        ids = name.replace("attention_mask", "input_ids")
        expected = f"of shape (batch, time) = {(batch, time)} like {ids}, or (batch, time, time), not {shape}"
        raise ArgumentValueError(name, mask, expected)
    if mask.dtype != torch.bool and not holds_zeros_and_ones(mask):
        hint = "1 means attend, 0 means ignore (masks that are added to the scores are not supported)"
        raise ArgumentValueError(name, mask, "of the values 0 and 1", hint)
    return mask.bool()


def as_bool_of_queries(mask: Tensor, name: str = "attention_mask") -> Tensor:
    """Converts a 0/1 or boolean mask of the keys that each query attends to: (B, T, S) -> (B, T, S) bool.

    Raises:
        ArgumentValueError: values other than 0 and 1.
    """
    rows = mask.flatten(0, 1)
    checked = as_bool(rows, rows.shape[0], rows.shape[1], name)
    assert checked is not None
    return checked.view_as(mask)


def holds_zeros_and_ones(mask: Tensor) -> bool:
    """Whether a mask holds the values 0 and 1 alone.

    A traced graph has no values to check, so there a dtype that can hold others is refused.

    Args:
        mask: (B, T) or (B, T, T)
    """
    if values_unavailable(mask):
        return not mask.is_floating_point()
    return torch.equal(mask.bool().to(mask), mask)


def padding_mask(attention_mask: Tensor | None) -> Tensor | None:
    """(B, T) or (B, T, S), bool -> (B, 1, 1 or T, S), or None where every key may be attended to.

    A query without a single key would average over nothing and give NaN, which the next layer would spread to
    the real tokens; such a query (padding by itself) attends to every key instead.
    """
    if attention_mask is None or (not values_unavailable(attention_mask) and bool(attention_mask.all())):
        return None
    mask = attention_mask[:, None, None, :] if attention_mask.dim() == 2 else attention_mask[:, None]
    return unmask_empty_rows(mask)


def causal_window_mask(
    mask: Tensor | None, queries: Tensor, keys: Tensor, *, causal: bool, window: int | None
) -> Tensor:
    """Narrows a padding mask to the keys that each query may attend to by position.

    Args:
        mask: (B, 1, 1 or T, S), or None.
        queries: (T,) positions in the sequence, padding included.
        keys: (S,) positions.
        causal: no key after its query.
        window: only keys less than this far away; None: any distance.

    Returns:
        (1 or B, 1, T, S), True = attend.
    """
    distance = queries[:, None] - keys[None, :]  # (T, S)
    near = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    if window is not None:
        near = near & (distance.abs() < window)
    return near[None, None] if mask is None else unmask_empty_rows(mask & near)


def distances(mask: Tensor) -> Tensor:
    """Returns how many attended keys each key lies before its query, whose own key is the last of them.

    The keys that a query attends to are its sequence, whatever lies between them, such as the other branches
    of a tree.

    Args:
        mask: (B, 1, T, S), True = attend.

    Returns:
        (B, 1, T, S) long; of keys that are not attended to, that of the attended key before.
    """
    counts = mask.long().cumsum(dim=-1)
    return counts[..., -1:] - counts.clamp(min=1)


def unmask_empty_rows(mask: Tensor) -> Tensor:
    """Lets a query without any key attend to every key: (..., S) -> (..., S)."""
    return mask | ~mask.any(dim=-1, keepdim=True)


def to_additive_mask(mask: Tensor | None, bias: Tensor) -> Tensor:
    """Combines a boolean mask and a score bias into one additive mask.

    Half of the lowest number already makes a weight of exactly 0, and a score added to it cannot overflow to
    -inf; a row of nothing else would make NaN.

    Args:
        mask: (1 or B, 1, 1 or T, S), or None.
        bias: (1 or B, 1 or H, 1 or T, S), or ().

    Returns:
        (1 or B, 1 or H, 1 or T, S)
    """
    return bias if mask is None else torch.where(mask, bias, torch.finfo(bias.dtype).min / 2)
