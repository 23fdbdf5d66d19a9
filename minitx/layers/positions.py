"""Position ids, sinusoidal encodings and position biases of the scores; RoPE is in rotary.py."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from minitx.config import LearnedPositions, SinusoidalPositions, Sinusoids, TextInputs
from minitx.config import RelativeBias as RelativeBiasConfig
from minitx.layers.embedding import Embedding

# --- position ids ----------------------------------------------------------------------------------


def position_ids_from_padding(input_ids: Tensor, pad_token_id: int, past: int = 0) -> Tensor:
    """Number tokens other than padding from pad_token_id + 1; padding gets pad_token_id: (B, T) -> (B, T).

    This is fairseq's numbering, whose position table starts after the padding row. `past` tokens came before,
    none of them padding.
    """
    real = (input_ids != pad_token_id).long()
    return (torch.cumsum(real, dim=1) + past) * real + pad_token_id


def position_ids_from_mask(mask: Tensor) -> Tensor:
    """Number attended tokens from 0; padding gets -1: (B, S) -> (B, S)."""
    attended = mask.long()
    return attended.cumsum(dim=1) * attended - 1


# --- position vectors: (1 or B, T) -> (1 or B, T, E) ------------------------------------------------


class LearnedPositionEmbedding(Embedding):
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
        position_ids: (...) long.
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


def position_embedding(config: TextInputs, size: int) -> nn.Module | None:
    """Returns the module of the position vectors; None: positions are not added to the embeddings."""
    positions, padding = config.positions, config.pad_token_id if config.numbering == "padding" else None
    if isinstance(positions, LearnedPositions):
        return LearnedPositionEmbedding(config.max_position_embeddings, size, padding, positions.offset)
    if isinstance(positions, SinusoidalPositions):
        return SinusoidalEmbedding(positions.kind, size, padding)
    return None


# --- biases of the scores --------------------------------------------------------------------------


def alibi(heads: int, key_positions: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns the ALiBi bias, which falls linearly with distance (arXiv:2108.12409, section 3).

    The paper's slope * -(query - key) differs from slope * key by the same number for all keys of a query,
    which cancels in the softmax. Computed in float32, as in training, then converted to `dtype`.

    Args:
        heads: H.
        key_positions: (1 or B, 1, 1 or T, S), per query if queries attend to different keys.
        dtype: of the result.

    Returns:
        (1 or B, H, 1 or T, S), to be added to the scaled scores.
    """
    slopes = alibi_slopes(heads).to(key_positions.device)
    return (slopes[None, :, None, None] * key_positions).to(dtype)


def alibi_slopes(heads: int) -> Tensor:
    """Returns the slope of each head, (H,).

    For powers of two a geometric series from 2^(-8/H) on; for other numbers the series of the power of two
    below, then every other value of the series above.
    """
    power = 2 ** int(math.log2(heads))

    def series(base: float, count: int, step: int) -> Tensor:
        exponents = torch.arange(1, 1 + step * count, step, dtype=torch.int32)
        return torch.pow(torch.tensor(base, dtype=torch.float32), exponents)

    slopes = series(2 ** (-8 / power), power, 1)
    return torch.cat((slopes, series(2 ** (-4 / power), heads - power, 2)))


class RelativeBias(Embedding):
    """A learned bias per head and distance bucket (arXiv:1910.10683, section 2.1).

    Half of the buckets serve each direction; all of them serve earlier keys in a causal stack. The first half
    of those are exact distances, the rest grow logarithmically up to `max_distance`.
    """

    def __init__(self, config: RelativeBiasConfig, heads: int, *, causal: bool) -> None:
        super().__init__(config.num_buckets, heads)
        self.max_distance = config.max_distance
        self.causal = causal

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Returns the bias to add to the scaled scores: positions (T,), (S,) -> (1, H, T, S)."""
        scores: Tensor = self(self.bucket(keys[None, :] - queries[:, None]))  # (T, S, H)
        return scores.permute(2, 0, 1)[None]

    def bucket(self, distance: Tensor) -> Tensor:
        """Returns the bucket of each key minus query position: (...) -> (...)."""
        buckets = self.num_embeddings if self.causal else self.num_embeddings // 2
        exact = buckets // 2
        size = -distance.clamp(max=0) if self.causal else distance.abs()
        # The order of these float32 operations decides on which side of a bucket's edge a distance falls.
        share = torch.log(size.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)
        far = exact + (share * (buckets - exact)).long()
        bucket = torch.where(size < exact, size, far.clamp(max=buckets - 1))
        return bucket if self.causal else bucket + (distance > 0) * buckets
