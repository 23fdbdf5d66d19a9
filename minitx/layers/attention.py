"""Scaled dot-product attention (arXiv:1706.03762, equation 1): softmax(Q K^T / sqrt(D)) V."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minitx.config import StackConfig
from minitx.layers.position import Rotary, rotate


@dataclass(frozen=True)
class Context:
    """What every layer of one kind shares during a forward; built once by the stack.

    Attributes:
        mask: (B or 1, H or 1, T or 1, S); bool (True = attend) or added to the scores; None = all.
        rotary: tables that turn queries and keys, or None.
    """

    mask: Tensor | None = None
    rotary: Rotary | None = None


# (query, key, value, mask, scale, dropout) -> (B, H, T, D)
Backend = Callable[[Tensor, Tensor, Tensor, Tensor | None, float, float], Tensor]


def eager(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, dropout: float
) -> Tensor:
    """The equation, step by step: (B, H, T, D), (B, H, S, D), (B, H, S, D) -> (B, H, T, D)."""
    scores = query @ key.transpose(-2, -1) * scale  # (B, H, T, S)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    # In half precision a softmax over many keys loses digits; the weights are made in float32.
    wide = torch.promote_types(scores.dtype, torch.float32)
    weights = torch.softmax(scores, dim=-1, dtype=wide).to(scores.dtype)
    weights = F.dropout(weights, p=dropout, training=dropout > 0.0)
    return weights @ value


def sdpa(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, dropout: float
) -> Tensor:
    """The same through PyTorch's fused kernels, which never hold the (T, S) weights."""
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale)


BACKENDS: dict[str, Backend] = {"eager": eager, "sdpa": sdpa}


def active_probability(dropout: nn.Module) -> float:
    """What the fused kernels need instead of a call: the probability in training, else 0."""
    return float(getattr(dropout, "p", 0.0)) if dropout.training else 0.0


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself, without the output projection."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        width = config.num_attention_heads * config.head_dim
        self.Q = nn.Linear(config.hidden_size, width, bias=config.attention_bias)
        self.K = nn.Linear(config.hidden_size, width, bias=config.attention_bias)
        self.V = nn.Linear(config.hidden_size, width, bias=config.attention_bias)
        self.dropout = nn.Dropout(config.attention_dropout)
        self.shape = (config.num_attention_heads, config.head_dim)
        self.scale = config.head_dim**-0.5
        self.backend: Backend = sdpa

    def heads(self, x: Tensor) -> Tensor:
        """(B, T, H * D) -> (B, H, T, D)"""
        return x.view(*x.shape[:-1], *self.shape).transpose(1, 2)

    def forward(self, hidden: Tensor, context: Context) -> Tensor:
        """(B, T, E) -> (B, T, H * D)"""
        query = self.heads(self.Q(hidden))  # (B, H, T, D)
        key = self.heads(self.K(hidden))
        value = self.heads(self.V(hidden))
        if context.rotary is not None:
            query, key = rotate(query, context.rotary), rotate(key, context.rotary)
        dropout = active_probability(self.dropout)
        mixed = self.backend(query, key, value, context.mask, self.scale, dropout)
        return mixed.transpose(1, 2).flatten(2)
