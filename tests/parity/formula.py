"""Weights by a formula: the same numbers in any library, version and machine.

Fixtures that an older transformers made hold no weights, only names and shapes.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_32_BITS = 0xFFFFFFFF


def weight(name: str, shape: Sequence[int]) -> Tensor:
    """Numbers that look random, float32: around 1 for the weight of a norm, around 0 for the others.

    Number i is u(i) = hash(crc32(name) + i * 2654435769 mod 2^32) / 2^31 - 1, in [-1, 1): 1 + 0.4 u for a
    one-dimensional `weight`, 0.3 u for another one-dimensional tensor, 0.6 u for all others.
    """
    count = 1
    for size in shape:
        count *= size
    place = (torch.arange(count) * 2654435769 + zlib.crc32(name.encode())) & _32_BITS
    uniform = (_hashed(place).double() / 2**31 - 1).view(tuple(shape))
    if len(shape) > 1:
        return (0.6 * uniform).float()
    return (1 + 0.4 * uniform if name.endswith("weight") else 0.3 * uniform).float()


def weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """All weights of a checkpoint, by name."""
    return {name: weight(name, shape) for name, shape in shapes.items()}


def _hashed(number: Tensor) -> Tensor:
    """Whole numbers below 2^32 -> such numbers; multipliers below 2^31, so that int64 holds the products."""
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        number = ((number ^ number >> shift) * factor) & _32_BITS
    return number ^ number >> 15
