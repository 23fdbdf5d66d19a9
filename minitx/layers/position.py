"""How order enters: position ids, rotary tables, relative position bias."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from minitx.layers.embedding import Embedding

Rotary = tuple[Tensor, Tensor]  # cos and sin, each (1 or B, 1, T, D)


def position_ids_from_padding(input_ids: Tensor, pad_token_id: int) -> Tensor:
    """(B, T) -> (B, T): real tokens count up from pad_token_id + 1, padding stays at pad_token_id.

    The numbering comes from fairseq, whose position table starts behind the padding row.
    """
    real = (input_ids != pad_token_id).long()
    return torch.cumsum(real, dim=1) * real + pad_token_id


def rotary_table(position_ids: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> Rotary:
    """Angles of rotary position embeddings (arXiv:2104.09864, equation 34), half-split layout.

    The angles are always float32: that is what checkpoints were trained with, and at position 8,000 the
    rounding of float32 is part of the model.
    """
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device=position_ids.device) / head_dim
    frequency = 1.0 / (theta**exponent)  # (D / 2,)
    angle = position_ids[..., None].float() * frequency  # (1 or B, T, D / 2)
    angle = torch.cat((angle, angle), dim=-1)[:, None]  # (1 or B, 1, T, D)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Turns each pair (x[d], x[d + D/2]) of (B, H, T, D) by its angle, in float32 or better."""
    cos, sin = rotary
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    first, second = wide.chunk(2, dim=-1)
    return (wide * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)


class RelativeBias(Embedding):
    """A learned bias per head and distance bucket, shared by all layers (arXiv:1910.10683, section 2.1).

    Half of the buckets serve each direction; inside a half, the first half are exact distances and the
    rest grow logarithmically up to `max_distance`.
    """

    max_distance = 128

    def scores(self, time: int) -> Tensor:
        """-> (1, H, T, T), to be added to the scaled scores."""
        position = torch.arange(time, device=self.weight.device)
        bucket = self.bucket(position[None, :] - position[:, None])  # (T, T)
        scores: Tensor = self(bucket)  # (T, T, H)
        return scores.permute(2, 0, 1)[None]

    def bucket(self, distance: Tensor) -> Tensor:
        half = self.num_embeddings // 2
        exact = half // 2
        size = distance.abs()
        scale = (half - exact) / math.log(self.max_distance / exact)
        # clamp: distance 0 would be log(0); its bucket is exact anyway
        far = exact + (torch.log(size.clamp(min=1).float() / exact) * scale).long()
        bucket = torch.where(size < exact, size, far.clamp(max=half - 1))
        return bucket + (distance > 0) * half
