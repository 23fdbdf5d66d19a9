"""Position biases of the attention scores; RoPE is in rotary.py, added positions are in embedder.py."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from minitx.config import RelativeBias, StackConfig
from minitx.layers.embedding import Embedding


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
    slopes = alibi_slopes(heads, key_positions.device)
    return (slopes[None, :, None, None] * key_positions).to(dtype)


def alibi_slopes(heads: int, device: torch.device | None = None) -> Tensor:
    """Returns the slope of each head.

    For powers of two a geometric series from 2^(-8/H) on; for other numbers the series of the power of two
    below, then every other value of the series above.

    Returns:
        (heads,)
    """
    power = 2 ** int(math.log2(heads))

    def _series(base: float, count: int, step: int) -> Tensor:
        exponents = torch.arange(1, 1 + step * count, step, dtype=torch.int32, device=device)
        return torch.pow(torch.tensor(base, dtype=torch.float32), exponents)

    slopes = _series(2 ** (-8 / power), power, 1)
    return torch.cat((slopes, _series(2 ** (-4 / power), heads - power, 2)))


class RelativePositionBias(Embedding):
    """A learned bias per head and distance bucket (arXiv:1910.10683, section 2.1).

    Half of the buckets serve each direction; all of them serve earlier keys in a causal stack. The first half
    of those are exact distances, the rest grow logarithmically up to `max_distance`.
    """

    def __init__(self, config: RelativeBias, heads: int, *, causal: bool) -> None:
        super().__init__(config.num_buckets, heads)
        self.max_distance = config.max_distance
        self.causal = causal

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Returns the bias to add to the scaled scores: positions (T,), (S,) -> (1, H, T, S)."""
        scores: Tensor = self(self.bucket(keys[None, :] - queries[:, None]))  # (T, S, H)
        return scores.permute(2, 0, 1)[None]

    def of_distances(self, distance: Tensor) -> Tensor:
        """Returns the bias of each key minus query position: (B, T, S) -> (B, H, T, S)."""
        scores: Tensor = self(self.bucket(distance))  # (B, T, S, H)
        return scores.permute(0, 3, 1, 2)

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


def relative_biases(config: StackConfig, tables: Sequence[int]) -> nn.ModuleList:
    """Returns the tables of relative biases of a stack; `tables` has the number of each layer's."""
    assert isinstance(config.positions, RelativeBias)
    sizes = config.positions, config.layer.attention.num_attention_heads
    return nn.ModuleList(RelativePositionBias(*sizes, causal=config.causal) for _ in {*tables})
