"""The green lists of transformers: the beginning of a `torch.randperm` on a CPU, seeded by the context.

N windows, H tokens of a context.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

_TABLE_SIZE = 1_000_003


def left_seeds(key: int, contexts: Tensor) -> list[int]:
    """Returns the seed of the list after each context, (N, H): its last token alone decides, whatever H."""
    return [_seed(key * token) for token in contexts[:, -1].tolist()]


def self_seeds(key: int, windows: Tensor) -> list[int]:
    """Returns the seed of the list for the last token of each window, (N, H)."""
    numbers = _table(key)[windows.cpu() % _TABLE_SIZE] + 1
    return [_seed(number) for number in (key * numbers * numbers[:, -1:]).amin(dim=1).tolist()]


@lru_cache(maxsize=128)
def green_list(seed: int, vocab_size: int, size: int) -> Tensor:
    """Returns `size` tokens of the vocabulary, (size,) long on the CPU. Read-only."""
    return torch.randperm(vocab_size, generator=torch.Generator().manual_seed(seed))[:size].clone()


@lru_cache(maxsize=2)
def _table(key: int) -> Tensor:
    return torch.randperm(_TABLE_SIZE, generator=torch.Generator().manual_seed(key))


def _seed(number: int) -> int:
    return number % (2**64 - 1)
