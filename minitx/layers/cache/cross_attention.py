"""Cross-attention key/value cache."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(eq=False)
class CrossAttentionCache:
    """Keys and values of another text, which an encoder read: made once, and looked at from every token.

    Its rows are texts: all beams and samples of one text share its row.
    """

    key: Tensor | None = None  # (B', K, S', D)
    value: Tensor | None = None

    def recall(self) -> tuple[Tensor, Tensor]:
        """Twice (B', K, S', D). Raises ValueError if nothing was read yet."""
        if self.key is None or self.value is None:
            raise ValueError("the cache remembers no text; call model.encode_into(cache, input_ids) first.")
        return self.key, self.value
