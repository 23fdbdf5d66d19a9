"""The widening half of the feed-forward network; `Output` is the narrowing half."""

from __future__ import annotations

from torch import Tensor, nn

from minitx.config import StackConfig
from minitx.layers.activation import Activation
from minitx.layers.norm import dropout


class Intermediate(nn.Module):
    """act(x W), or act(x W) * (x G) where the layer is gated (arXiv:2002.05202, equation 6)."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        size, inner = config.hidden_size, config.intermediate_size
        self.dense = nn.Linear(size, inner, bias=config.mlp_bias)
        self.gate = nn.Linear(size, inner, bias=config.mlp_bias) if config.gated else None
        self.activation = Activation(config.hidden_act)
        self.dropout = dropout(config.activation_dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, F)"""
        inner: Tensor = self.activation(self.dense(hidden))
        return self.dropout(inner if self.gate is None else inner * self.gate(hidden))
