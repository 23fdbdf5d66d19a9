"""Embedding tables, and sinusoidal encodings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from minitx.config import Sinusoids


class Embedding(nn.Embedding):
    """torch's Embedding without its initialisation; values come from a checkpoint or from `Model.initialize`.

    On the meta device, where models are built before their weights are loaded, torch's initialisation would
    import the compiler, which takes 1.5 seconds.
    """

    def reset_parameters(self) -> None:
        """Leaves the values as they are."""


class SummedEmbeddings(nn.ModuleList):
    """The sum of one embedding for each of several kinds of ids.

    Args:
        rows: of each table.
        size: of a vector.
    """

    def __init__(self, rows: Sequence[int], size: int) -> None:
        super().__init__(Embedding(count, size) for count in rows)

    def forward(self, ids: Tensor) -> Tensor:
        """(..., K) -> (..., size)"""
        return torch.stack([table(part) for table, part in zip(self, ids.unbind(-1), strict=True)]).sum(dim=0)


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
        return scaled(super().forward(ids), self.scale, rounded=self.rounded)


def scaled(vectors: Tensor, scale: float, *, rounded: bool) -> Tensor:
    """Multiplies by a number, rounded to the dtype of the vectors first or not: (...) -> (...)."""
    if not rounded:
        return vectors * scale
    return vectors * torch.full((), scale, dtype=torch.float32, device=vectors.device).to(vectors.dtype)


class ShiftedEmbedding(Embedding):
    """A trained table of position embeddings whose row `offset` holds position 0."""

    def __init__(self, rows: int, size: int, padding_idx: int | None, offset: int) -> None:
        super().__init__(rows, size, padding_idx=padding_idx)
        self.offset = offset

    def forward(self, position_ids: Tensor) -> Tensor:
        """(1 or B, T) -> (1 or B, T, E)"""
        return super().forward(position_ids + self.offset)


class SinusoidalEmbedding(nn.Module):
    """Fixed sinusoidal position encodings, computed on the fly.

    Args:
        kind: "tensor2tensor" or "fairseq"; see `sinusoids`.
        size: E.
        padding_idx: position that gets a zero vector; None: none.
    """

    def __init__(self, kind: Sinusoids, size: int, padding_idx: int | None) -> None:
        super().__init__()
        self.kind, self.size, self.padding_idx = kind, size, padding_idx

    def extra_repr(self) -> str:
        """Returns the arguments shown in the printout."""
        return f"{self.kind}, {self.size}"

    def forward(self, position_ids: Tensor) -> Tensor:
        """(1 or B, T) -> (1 or B, T, E), float32"""
        vectors = sinusoids(self.kind, position_ids, self.size)
        if self.padding_idx is None:
            return vectors
        real: Tensor = position_ids != self.padding_idx
        return vectors * real[..., None]


def sinusoids(kind: Sinusoids, position_ids: Tensor, size: int) -> Tensor:
    """Returns the encodings of arXiv:1706.03762, section 3.5, all sines before all cosines.

    "tensor2tensor" has the paper's wavelengths, 2 pi 10000^(2i/E). "fairseq" spaces them over one pair fewer,
    so that the longest is 2 pi 10000, and leaves the last of an odd number of features at 0. The angles have
    the precision of the tables used in training.

    Args:
        kind: "tensor2tensor" or "fairseq".
        position_ids: (...), long.
        size: E.

    Returns:
        (..., E), float32.
    """
    device = position_ids.device
    if kind == "tensor2tensor":
        wave = 10_000 ** -(torch.arange(0, size, 2, dtype=torch.float64, device=device) / size)
        angle = position_ids[..., None] * wave
        cosines = angle[..., : size // 2].cos()
    else:
        half = size // 2
        wave = torch.exp(torch.arange(half, device=device).float() * -(math.log(10_000) / (half - 1)))
        angle = position_ids[..., None].float() * wave
        cosines = torch.nn.functional.pad(angle.cos(), (0, size % 2))
    return torch.cat((angle.sin(), cosines), dim=-1).float()
