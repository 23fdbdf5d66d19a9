"""The pooler: one vector for a whole sequence."""

from __future__ import annotations

from torch import Tensor, nn

from minitx.layers.activation import Activation


class Pooler(nn.Module):
    """tanh(W h + b) of the first token's hidden state h (arXiv:1810.04805, section 3)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.activation = Activation("tanh")

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, E) -> (B, E)"""
        pooled: Tensor = self.activation(self.dense(hidden[:, 0]))
        return pooled
