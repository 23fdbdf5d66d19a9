"""Blocks of 256 quantised values to float32: runs of 16 or 32 values have scales that are quantised too.

Each function takes blocks of bytes (n, bytes per block) and returns (n, 256). The formats are those of ggml
("k-quants"); products and sums are rounded in its order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minitx.checkpoint.gguf.blocks import fields, halves, levels, nibbles

_PAIRS = (0, 2, 4, 6)


def scaled(scale: Tensor, numbers: Tensor, minimum: Tensor | None = None) -> Tensor:
    """Returns scale times numbers less a minimum, each for one run of the numbers.

    Args:
        scale: (n, runs).
        numbers: (n, 256).
        minimum: (n, runs), or None.

    Returns:
        (n, 256).
    """
    runs = numbers.float().view(*scale.shape, -1)
    product = scale.unsqueeze(-1) * runs
    return (product if minimum is None else product - minimum.unsqueeze(-1)).flatten(1)


def q2_k(blocks: Tensor) -> Tensor:
    """The scales and minima of 16 runs (16 bytes), 2-bit numbers (64), their two scales (4): 84 bytes."""
    packed = blocks[:, :16]
    scale = halves(blocks, 80) * (packed & 0x0F).float()
    return scaled(scale, fields(blocks[:, 16:80], _PAIRS, 3, 32), halves(blocks, 82) * (packed >> 4).float())


def q3_k(blocks: Tensor) -> Tensor:
    """Third bits (32), two bits (64), scales of 16 runs with 6 bits each (12), their scale (2): 110 bytes."""
    low, high = nibbles(blocks[:, 96:104], 8), fields(blocks[:, 104:108], _PAIRS, 3, 4)
    scale = halves(blocks, 108) * ((low | high << 4).float() - 32)
    third = fields(blocks[:, :32], range(8), 1, 32)
    return scaled(scale, fields(blocks[:, 32:96], _PAIRS, 3, 32).float() - (4 - 4 * third.float()))


def six_bits(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Unpacks the scales and minima of 8 runs, 6 bits each: (n, 12) -> two of (n, 8)."""
    first, second, last = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = torch.cat([first & 0x3F, last & 0x0F | (first >> 2) & 0x30], dim=1)
    minima = torch.cat([second & 0x3F, last >> 4 | (second >> 2) & 0x30], dim=1)
    return scales.float(), minima.float()


def q4_k(blocks: Tensor) -> Tensor:
    """Two scales (4), scales and minima of 8 runs (12), 4-bit numbers (128): 144 bytes."""
    scales, minima = six_bits(blocks[:, 4:16])
    scale, minimum = halves(blocks, 0) * scales, halves(blocks, 2) * minima
    return scaled(scale, nibbles(blocks[:, 16:], 32), minimum)


def q5_k(blocks: Tensor) -> Tensor:
    """Two scales (4), scales and minima of 8 runs (12), fifth bits (32), four bits (128): 176 bytes."""
    scales, minima = six_bits(blocks[:, 4:16])
    numbers = nibbles(blocks[:, 48:], 32) | fields(blocks[:, 16:48], range(8), 1, 32) << 4
    return scaled(halves(blocks, 0) * scales, numbers, halves(blocks, 2) * minima)


def q6_k(blocks: Tensor) -> Tensor:
    """Four bits (128), two bits (64), scales of 16 runs (16), their scale (2): 210 bytes."""
    numbers = nibbles(blocks[:, :128], 64) | fields(blocks[:, 128:192], _PAIRS, 3, 32) << 4
    scale = halves(blocks, 208) * blocks[:, 192:208].contiguous().view(torch.int8).float()
    return scaled(scale, numbers.float() - 32)


def iq4_xs(blocks: Tensor) -> Tensor:
    """A scale (2), scales of 8 runs with 2 + 4 bits (2 + 4), indices of 16 levels (128): 136 bytes."""
    high = fields(blocks[:, 2:4], _PAIRS, 3, 1)
    low = nibbles(blocks[:, 4:8], 1)
    return scaled(halves(blocks, 0) * ((low | high << 4).float() - 32), levels(nibbles(blocks[:, 8:], 16)))
