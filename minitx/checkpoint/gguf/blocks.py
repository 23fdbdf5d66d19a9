"""Blocks of 32 quantised values to float32: q times a scale, plus a minimum.

Each function takes blocks of bytes (n, bytes per block) and returns (n, values per block). The formats are
those of ggml (https://github.com/ggml-org/ggml); products and sums are rounded in its order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# The 16 values of IQ4_NL and IQ4_XS
LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def halves(blocks: Tensor, begin: int) -> Tensor:
    """Returns the float16 number at a byte of each block as float32: (n, bytes) -> (n, 1)."""
    return blocks[:, begin : begin + 2].contiguous().view(torch.float16).float()


def fields(values: Tensor, shifts: Sequence[int], mask: int, width: int) -> Tensor:
    """Unpacks bit fields: for each run of `width` bytes, those of the first shift, of the second, ...

    Args:
        values: (n, bytes), dtype uint8.
        shifts: position of each field in a byte.
        mask: the field's bits, shifted to the right.
        width: bytes of a run.

    Returns:
        (n, bytes * number of shifts), dtype uint8.
    """
    runs = values.reshape(len(values), -1, 1, width)
    moves = torch.tensor(shifts, dtype=torch.uint8, device=values.device).view(1, 1, -1, 1)
    return ((runs >> moves) & mask).flatten(1)


def nibbles(values: Tensor, width: int) -> Tensor:
    """Unpacks 4-bit numbers: the low halves of a run of bytes, then the high ones; (n, b) -> (n, 2 b)."""
    return fields(values, (0, 4), 0x0F, width)


def fifth_bits(values: Tensor) -> Tensor:
    """Returns the bits of 4 bytes as 16 or 0, the fifth bit of 32 values: (n, 4) -> (n, 32)."""
    places = torch.arange(8, dtype=torch.uint8, device=values.device)
    return ((values.unsqueeze(-1) >> places) & 1).flatten(1) << 4


def q4_0(blocks: Tensor) -> Tensor:
    """A scale (2 bytes), 4-bit numbers with offset 8 (16): (n, 18) -> (n, 32)."""
    return halves(blocks, 0) * (nibbles(blocks[:, 2:], 16).float() - 8)


def q4_1(blocks: Tensor) -> Tensor:
    """A scale (2), minimum (2), 4-bit numbers (16): (n, 20) -> (n, 32)."""
    return halves(blocks, 0) * nibbles(blocks[:, 4:], 16).float() + halves(blocks, 2)


def q5_0(blocks: Tensor) -> Tensor:
    """A scale (2), fifth bits (4), the other four with offset 16 (16): (n, 22) -> (n, 32)."""
    numbers = nibbles(blocks[:, 6:], 16) | fifth_bits(blocks[:, 2:6])
    return halves(blocks, 0) * (numbers.float() - 16)


def q5_1(blocks: Tensor) -> Tensor:
    """A scale (2), minimum (2), fifth bits (4), the other four (16): (n, 24) -> (n, 32)."""
    numbers = nibbles(blocks[:, 8:], 16) | fifth_bits(blocks[:, 4:8])
    return halves(blocks, 0) * numbers.float() + halves(blocks, 2)


def q8_0(blocks: Tensor) -> Tensor:
    """A scale (2), 8-bit numbers (32): (n, 34) -> (n, 32)."""
    return blocks[:, 2:].contiguous().view(torch.int8).float() * halves(blocks, 0)


def iq4_nl(blocks: Tensor) -> Tensor:
    """A scale (2), indices of 16 levels (16): (n, 18) -> (n, 32)."""
    return halves(blocks, 0) * levels(nibbles(blocks[:, 2:], 16))


def levels(indices: Tensor) -> Tensor:
    """Returns the levels of IQ4_NL by index: dtype uint8 -> float32, same shape."""
    return torch.tensor(LEVELS, dtype=torch.float32, device=indices.device)[indices.int()]
