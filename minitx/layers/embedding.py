"""A table of vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Embedding(nn.Embedding):
    """torch's Embedding, whose values come from a checkpoint or from the model's `initialize`.

    torch would draw them here as well, for nothing; and on the meta device, where models are built
    before their weights are read, its normal_ imports the compiler: 1.5 seconds for no numbers.
    """

    def reset_parameters(self) -> None:
        """Leaves the values as they are."""


class ScaledEmbedding(Embedding):
    """One whose vectors are multiplied by a number; a head tied to the table has none of that.

    Args:
        rows: of the table.
        size: of a vector.
        padding_idx: as in torch.
        scale: the number.
        rounded: first rounded to the weights' type, as in the training of some models.
    """

    def __init__(self, rows: int, size: int, padding_idx: int | None, *, scale: float, rounded: bool) -> None:
        super().__init__(rows, size, padding_idx=padding_idx)
        self.scale = scale
        self.rounded = rounded

    def forward(self, ids: Tensor) -> Tensor:
        """(...) -> (..., size)"""
        vectors = super().forward(ids)
        if not self.rounded:
            return vectors * self.scale
        scale = torch.tensor(self.scale, dtype=torch.float32, device=vectors.device)
        return vectors * scale.to(vectors.dtype)
