"""Cross-attention key/value cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


@dataclass(eq=False)
class CrossAttentionCache:
    """Cross-attention key/value cache of one layer, computed once from the encoder output.

    It has one row per source: all beams and samples of a source share that row.
    """

    tensors: ClassVar[tuple[str, ...]] = ("key", "value")
    key: Tensor | None = None  # (B', K, S', D)
    value: Tensor | None = None

    def recall(self) -> tuple[Tensor, Tensor]:
        """Returns keys and values.

        Returns:
            Twice (B', K, S', D).

        Raises:
            ValueError: nothing is cached yet.
        """
        if self.key is None or self.value is None:
            raise ValueError("the cache holds no source; call model.encode_into(cache, input_ids) first.")
        return self.key, self.value
