"""The interface of a sampler, and the one that draws nothing. B rows, V vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

# One integer for all prompts, or one per prompt.
Seed = int | Sequence[int] | Tensor


class Sampler(Protocol):
    """Chooses one token per row from the output of the chain of processors.

    A token whose logit is -inf is never chosen.
    """

    def __call__(self, logits: Tensor, position: int | Tensor) -> Tensor:
        """(B, V) -> token ids (B,).

        Args:
            logits: (B, V)
            position: number of tokens that each row has generated before, an int or (B,).
        """
        ...


class Argmax:
    """The most probable token: greedy decoding. Of equal ones the lowest id on a CPU (as in transformers)."""

    def __call__(self, logits: Tensor, position: int | Tensor) -> Tensor:
        """(B, V) -> (B,)."""
        return logits.argmax(dim=-1)
