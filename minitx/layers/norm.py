"""Normalisation, and the slot that an architecture leaves empty."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

# What a slot holds: a module, or `identity` where the architecture has none. A plain function is no
# module, so an empty slot shows neither in the printout nor in the state_dict.
Slot = Callable[[Tensor], Tensor]


def identity(x: Tensor) -> Tensor:
    return x


def layer_norm(size: int, eps: float, bias: bool = True, *, when: bool = True) -> Slot:
    """A LayerNorm (arXiv:1607.06450) over the last `size` features, or the empty slot."""
    return nn.LayerNorm(size, eps=eps, bias=bias) if when else identity


def dropout(p: float | None) -> Slot:
    """A Dropout with probability `p`; None where the architecture has no such place."""
    return identity if p is None else nn.Dropout(p)
