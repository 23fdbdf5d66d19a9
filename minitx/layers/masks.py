"""Which key each query may look at: one boolean mask, True = attend, built once per forward."""

from __future__ import annotations

import torch
from torch import Tensor

from minitx.validation import check_tensor, values_unavailable


def as_bool(attention_mask: Tensor, batch: int, time: int) -> Tensor:
    """Hugging Face's 0/1 mask, or a boolean one, as a boolean mask.

    Args:
        attention_mask: (B, T) for padding, or (B, T, T) to say which query sees which key.

    Returns:
        The same shape, True = attend.

    Raises:
        TypeError: no tensor.
        ValueError: a shape that does not fit the ids, or values other than 0 and 1.
    """
    check_tensor("attention_mask", attention_mask)
    shape = tuple(attention_mask.shape)
    if shape != (batch, time) and shape != (batch, time, time):  # traced sizes have no hash
        raise ValueError(
            f"attention_mask has shape {shape}; expected (batch, time) = "
            f"{(batch, time)} like input_ids, or (batch, time, time)."
        )
    if attention_mask.dtype == torch.bool:
        return attention_mask
    mask = attention_mask.bool()
    # In a traced graph values cannot be looked at, so there a type that can hold others is refused.
    unseen = values_unavailable(attention_mask)
    if (
        attention_mask.is_floating_point()
        if unseen
        else not torch.equal(mask.to(attention_mask), attention_mask)
    ):
        raise ValueError(
            "attention_mask holds values other than 0 and 1; 1 means attend, 0 means ignore "
            "(masks that are added to the scores, such as 0 and -10000, are not taken)."
        )
    return mask


def padding_mask(attention_mask: Tensor | None) -> Tensor | None:
    """(B, T) or (B, T, S), bool -> (B, 1, 1 or T, S), or None where everything may be attended.

    A query without a single key would average over nothing and give NaN, which the next layer would
    spread to the real tokens; such a query (padding by itself) sees every key instead.
    """
    if attention_mask is None or (not values_unavailable(attention_mask) and bool(attention_mask.all())):
        return None
    mask = attention_mask[:, None, None, :] if attention_mask.dim() == 2 else attention_mask[:, None]
    return unmask_empty_rows(mask)


def causal_window_mask(
    mask: Tensor | None, queries: Tensor, keys: Tensor, *, causal: bool, window: int | None
) -> Tensor:
    """Narrows a padding mask to the keys that each query may see by position.

    Args:
        mask: (B, 1, 1 or T, S), or None.
        queries: (T,) positions in the sequence, padding counted.
        keys: (S,) positions.
        causal: no key behind its query.
        window: only keys less than this far away; None for any distance.

    Returns:
        (1 or B, 1, T, S), True = attend.
    """
    distance = queries[:, None] - keys[None, :]  # (T, S)
    near = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    if window is not None:
        near = near & (distance.abs() < window)
    return near[None, None] if mask is None else unmask_empty_rows(mask & near)


def unmask_empty_rows(mask: Tensor) -> Tensor:
    return mask | ~mask.any(dim=-1, keepdim=True)


def to_additive_mask(mask: Tensor | None, bias: Tensor) -> Tensor:
    """One additive mask out of a boolean one and a score bias (1 or B, H, T, S).

    Half of the lowest number already makes a weight of exactly 0, and a score added to it cannot
    overflow to -inf, of which a row of nothing else would make NaN.
    """
    return bias if mask is None else torch.where(mask, bias, torch.finfo(bias.dtype).min / 2)
