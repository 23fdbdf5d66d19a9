"""How order enters: position ids and biases of the scores; rotary positions are in rope.py."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from minitx.layers.embedding import Embedding


def position_ids_from_padding(input_ids: Tensor, pad_token_id: int) -> Tensor:
    """(B, T) -> (B, T): real tokens count up from pad_token_id + 1, padding stays at pad_token_id.

    The numbering comes from fairseq, whose position table starts behind the padding row.
    """
    real = (input_ids != pad_token_id).long()
    return torch.cumsum(real, dim=1) * real + pad_token_id


def position_ids_from_mask(mask: Tensor) -> Tensor:
    """(B, S) -> (B, S): attended tokens count up from 0, padding stays at -1."""
    attended = mask.long()
    return attended.cumsum(dim=1) * attended - 1


def alibi(heads: int, key_positions: Tensor, dtype: torch.dtype) -> Tensor:
    """A bias that falls linearly with distance (arXiv:2108.12409, section 3).

    The paper's slope * -(query - key) differs from slope * key by the same number for all keys of a query,
    which the softmax takes out. In float32, like the training's, whatever `dtype` it is then given.

    Args:
        heads: H.
        key_positions: (1 or B, 1, 1 or T, S), for each query if they see different texts.
        dtype: of the result.

    Returns:
        (1 or B, H, 1 or T, S), to be added to the scaled scores.
    """
    slopes = alibi_slopes(heads).to(key_positions.device)
    return (slopes[None, :, None, None] * key_positions).to(dtype)


def alibi_slopes(heads: int) -> Tensor:
    """(H,): a geometric series from 2^(-8/H) on for powers of two; for other numbers, the series of the
    power of two below, then every other value of the series above.
    """
    power = 2 ** int(math.log2(heads))

    def series(base: float, count: int, step: int) -> Tensor:
        exponents = torch.arange(1, 1 + step * count, step, dtype=torch.int32)
        return torch.pow(torch.tensor(base, dtype=torch.float32), exponents)

    slopes = series(2 ** (-8 / power), power, 1)
    return torch.cat((slopes, series(2 ** (-4 / power), heads - power, 2)))


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
