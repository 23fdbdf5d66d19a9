"""Full tensors of distributed ones."""

from __future__ import annotations

from torch import Tensor


def whole(tensor: Tensor) -> Tensor:
    """Returns the full tensor of one that may be distributed (a `DTensor`); all processes must call it."""
    gather = getattr(tensor, "full_tensor", None)  # plain tensors need no import of DTensor
    result: Tensor = tensor if gather is None else gather()
    return result
