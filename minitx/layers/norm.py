"""Normalisation, and the slot that an architecture leaves empty."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from minitx.config import StackConfig

# What a slot holds: a module, or `identity` where the architecture has none. A plain function is no
# module, so an empty slot shows neither in the printout nor in the state_dict.
Slot = Callable[[Tensor], Tensor]


def identity(x: Tensor) -> Tensor:
    return x


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) * (offset + weight) (arXiv:1910.07467, equation 4), in float32 or better.

    With an offset of 1 the weight is stored as its distance from 1.
    """

    def __init__(self, size: int, eps: float, offset: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps
        self.offset = offset

    def extra_repr(self) -> str:
        offset = f", offset={self.offset}" if self.offset else ""
        return f"{self.weight.shape[0]}, eps={self.eps}{offset}"

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size)"""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        normed = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return (normed * (self.weight.to(wide.dtype) + self.offset)).to(x.dtype)


def layer_norm(size: int, eps: float | None, bias: bool = True, *, when: bool = True) -> Slot:
    """A LayerNorm (arXiv:1607.06450) over the last `size` features, or the empty slot."""
    return nn.LayerNorm(size, eps=eps, bias=bias) if when and eps is not None else identity


def norm(config: StackConfig, size: int | None = None, *, when: bool = True) -> Slot:
    """The norm of a stack over the last `size` features (None: hidden_size), or the empty slot."""
    if not when:
        return identity
    size = size or config.hidden_size
    if config.norm == "rms_norm":
        return RMSNorm(size, config.layer_norm_eps, config.norm_offset)
    return nn.LayerNorm(size, eps=config.layer_norm_eps, bias=config.norm_bias)


def dropout(p: float | None) -> Slot:
    """A Dropout with probability `p`; None where the architecture has no such place."""
    return identity if p is None else nn.Dropout(p)
