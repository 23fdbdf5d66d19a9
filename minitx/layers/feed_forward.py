"""Networks of one or two projections: the expanding half of the feed-forward network, and the pooler.

`Output` in layer.py is the contracting half.
"""

from __future__ import annotations

from torch import Tensor, nn

from minitx.config import FeedForwardConfig
from minitx.layers.activation import Activation
from minitx.layers.norm import dropout


class Intermediate(nn.Sequential):
    """act(x W), then dropout if the config has one: (B, T, E) -> (B, T, F)."""

    def __init__(self, config: FeedForwardConfig, hidden_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, config.intermediate_size, bias=config.bias)
        self.activation = Activation(config.hidden_act)
        if config.dropout is not None:
            self.dropout = nn.Dropout(config.dropout)


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


class Pooler(nn.Sequential):
    """tanh(W h + b) of the first token's hidden state h (arXiv:1810.04805, section 3): (B, E) -> (B, E)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.activation = Activation("tanh")
