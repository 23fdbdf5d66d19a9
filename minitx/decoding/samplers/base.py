"""The interface of a sampler, and the one that draws nothing. B rows, V vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Device = torch.device | str
# One integer for all prompts, or one per prompt.
Seed = int | Sequence[int] | Tensor


@dataclass(frozen=True)
class SamplerArguments:
    """The rows of a call and their source of randomness; see `Strategy.sampler`."""

    prompts: Sequence[Sequence[int]]
    num_samples: int
    seed: Seed | None
    generator: torch.Generator | None
    device: Device


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


class Argmax:
    """The most probable token: greedy decoding. Of equal ones the lowest id on a CPU (as in transformers)."""

    def __call__(self, logits: Tensor, position: int | Tensor) -> Tensor:
        """(B, V) -> (B,)."""
        return logits.argmax(dim=-1)
