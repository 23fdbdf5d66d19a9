"""Embedding tables."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Embedding(nn.Embedding):
    """torch's Embedding without its initialisation; values come from a checkpoint or from `Model.initialize`.

    On the meta device, where models are built before their weights are loaded, torch's initialisation would
    import the compiler, which takes 1.5 seconds.
    """

    def reset_parameters(self) -> None:
        """Leaves the values as they are."""


class ScaledEmbedding(Embedding):
    """An embedding whose vectors are multiplied by a number; a head tied to the table is not scaled.

    Args:
        rows: of the table.
        size: of a vector.
        padding_idx: as in torch.
        scale: the number.
        rounded: round the number to the weights' dtype first, as some models were trained.
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
