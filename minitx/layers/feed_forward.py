"""The widening half of the feed-forward network; `Output` is the narrowing half."""

from __future__ import annotations

from torch import Tensor, nn

from minitx.config import StackConfig
from minitx.layers.activation import Activation
from minitx.layers.linear import Linear
from minitx.layers.norm import dropout


class Intermediate(nn.Module):
    """act(x W)."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.activation = Activation(config.hidden_act)
        self.dropout = dropout(config.activation_dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, F)"""
        return self.dropout(self.activation(self.dense(hidden)))


class GatedIntermediate(nn.Module):
    """act(x G) * x W (arXiv:2002.05202, equation 6)."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.gate = Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.activation = Activation(config.hidden_act)
        self.dropout = dropout(config.activation_dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, F)"""
        return self.dropout(self.activation(self.gate(hidden)) * self.dense(hidden))
