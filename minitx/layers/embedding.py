"""A table of vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Embedding(nn.Embedding):
    """torch's Embedding, whose values come from a checkpoint or from the model's `initialize`.

    torch would draw them here as well, for nothing; and on the meta device, where models are built
    before their weights are read, its normal_ imports the compiler: 1.5 seconds for no numbers.
    """

    scale: float | None = None  # of the vectors that are looked up; a head tied to the table has none
    rounded_scale: bool = False

    def reset_parameters(self) -> None:
        """Leaves the values as they are."""

    def forward(self, ids: Tensor) -> Tensor:
        """(...) -> (..., embedding_dim)"""
        vectors = super().forward(ids)
        if self.scale is None:
            return vectors
        if not self.rounded_scale:
            return vectors * self.scale
        # a float32 number rounded to the weights' type, as in the training of the models that have it
        scale = torch.tensor(self.scale, dtype=torch.float32, device=vectors.device)
        return vectors * scale.to(vectors.dtype)
