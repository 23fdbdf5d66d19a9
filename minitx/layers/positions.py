"""How order enters: position ids and biases of the scores; rotary positions are in rope.py."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from minitx.config import Sinusoids, StackConfig
from minitx.layers.embedding import Embedding


def position_ids_from_padding(input_ids: Tensor, pad_token_id: int, past: int = 0) -> Tensor:
    """(B, T) -> (B, T): real tokens count up from pad_token_id + 1, padding stays at pad_token_id.

    The numbering comes from fairseq, whose position table starts behind the padding row. `past` tokens
    came before, none of them padding.
    """
    real = (input_ids != pad_token_id).long()
    return (torch.cumsum(real, dim=1) + past) * real + pad_token_id


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
    """A learned bias per head and distance bucket (arXiv:1910.10683, section 2.1).

    Half of the buckets serve each direction, all of them the keys before the query where there are no
    others; of these, the first half are exact distances and the rest grow logarithmically up to
    `max_distance`.
    """

    def __init__(self, config: StackConfig) -> None:
        super().__init__(config.relative_attention_num_buckets, config.num_attention_heads)
        self.max_distance = config.relative_attention_max_distance
        self.causal = config.causal

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Positions (T,), (S,) -> (1, H, T, S), to be added to the scaled scores."""
        scores: Tensor = self(self.bucket(keys[None, :] - queries[:, None]))  # (T, S, H)
        return scores.permute(2, 0, 1)[None]

    def bucket(self, distance: Tensor) -> Tensor:
        """Where a key stands from its query (...) -> the number of its bucket (...)."""
        buckets = self.num_embeddings if self.causal else self.num_embeddings // 2
        exact = buckets // 2
        size = -distance.clamp(max=0) if self.causal else distance.abs()
        # The order of these float32 operations decides on which side of an edge a distance falls.
        share = torch.log(size.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)
        far = exact + (share * (buckets - exact)).long()
        bucket = torch.where(size < exact, size, far.clamp(max=buckets - 1))
        return bucket if self.causal else bucket + (distance > 0) * buckets


def sinusoids(kind: Sinusoids, position_ids: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """The waves of arXiv:1706.03762, section 3.5, all sines before all cosines.

    "paper" has the paper's wavelengths, 2 pi 10000^(2i/E). "fairseq" spaces them over one pair fewer, so that
    the longest is 2 pi 10000, and leaves the last of an odd number of features at 0.

    Args:
        kind: which of the two.
        position_ids: (...) long.
        size: E.
        dtype: of the result. The angles have the precision that the tables of the training had.

    Returns:
        (..., E)
    """
    device = position_ids.device
    if kind == "paper":
        wave = 10_000 ** -(torch.arange(0, size, 2, dtype=torch.float64, device=device) / size)
        angle = position_ids[..., None] * wave
        cosines = angle[..., : size // 2].cos()
    else:
        half = size // 2
        wave = torch.exp(torch.arange(half, device=device).float() * -(math.log(10_000) / (half - 1)))
        angle = position_ids[..., None].float() * wave
        cosines = torch.nn.functional.pad(angle.cos(), (0, size % 2))
    return torch.cat((angle.sin(), cosines), dim=-1).float().to(dtype)
