"""Norms and dropout, and the empty slot for architectures without them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from minitx.config import NormConfig

# A module, or `identity` where the architecture has none. A plain function is not a module, so an empty slot
# appears neither in the printout nor in the state_dict.
Slot = Callable[[Tensor], Tensor]


def identity(x: Tensor) -> Tensor:
    """Returns its input, as the empty slot: (...) -> (...)."""
    return x


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) * (offset + weight) (arXiv:1910.07467, equation 4), in float32 or better.

    With an offset of 1 the weight is stored as its difference from 1.
    """

    def __init__(self, size: int, eps: float, offset: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps
        self.offset = offset

    def extra_repr(self) -> str:
        """Returns the arguments shown in the printout."""
        offset = f", offset={self.offset}" if self.offset else ""
        return f"{self.weight.shape[0]}, eps={self.eps}{offset}"

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size)"""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        normed = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return (normed * (self.weight.to(wide.dtype) + self.offset)).to(x.dtype)


def norm(config: NormConfig | None, size: int) -> Slot:
    """Returns a norm over the last `size` features, or the empty slot if `config` is None."""
    if config is None:
        return identity
    if config.kind == "rms_norm":
        return RMSNorm(size, config.eps, config.offset)
    return nn.LayerNorm(size, eps=config.eps, bias=config.bias)


def dropout(p: float | None) -> Slot:
    """Returns a Dropout with probability `p`, or the empty slot if `p` is None."""
    return identity if p is None else nn.Dropout(p)
