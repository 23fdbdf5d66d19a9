"""The expanding half of the feed-forward network; `Output` in layer.py is the contracting half."""

from __future__ import annotations

from torch import Tensor, nn

from minitx.config import FeedForwardConfig
from minitx.layers.activation import Activation
from minitx.layers.norm import dropout


class Intermediate(nn.Module):
    """act(x W)."""

    def __init__(self, config: FeedForwardConfig, hidden_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, config.intermediate_size, bias=config.bias)
        self.activation = Activation(config.hidden_act)
        self.dropout = dropout(config.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, F)"""
        return self.dropout(self.activation(self.dense(hidden)))


class GatedIntermediate(nn.Module):
    """act(x G) * x W (arXiv:2002.05202, equation 6)."""

    def __init__(self, config: FeedForwardConfig, hidden_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, config.intermediate_size, bias=config.bias)
        self.gate = nn.Linear(hidden_size, config.intermediate_size, bias=config.bias)
        self.activation = Activation(config.hidden_act)
        self.dropout = dropout(config.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, F)"""
        return self.dropout(self.activation(self.gate(hidden)) * self.dense(hidden))
