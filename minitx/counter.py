"""Counter-based random numbers: pure functions of a row's key and of a position, the same on every device.

A row therefore draws the same numbers alone, in a batch, at another index of it, and in a speculative block.
`samplers/counter_rng.py` describes the generator, and draws tokens with it. B rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

_32_BITS = 0xFFFFFFFF


def key_words(keys: Tensor) -> Tensor:
    """Returns two words of 32 bits for each key, (B,) long -> (B, 2)."""
    # Both halves of a key affect both words, even of similar keys such as 0 and 1.
    low = mixed((keys & _32_BITS) ^ 0x5BD1E995)
    high = mixed((keys >> 32 & _32_BITS) ^ low)
    return torch.stack([mixed(low ^ high), high], dim=1)


def counters(words: Tensor, position: int | Tensor) -> tuple[Tensor, Tensor]:
    """Returns the start and the odd stride of each row's counter at its position, (B,) each.

    Args:
        words: (B, 2), from `key_words`.
        position: an int or (B,).
    """
    halves = torch.arange(2, device=words.device)
    at = (position[:, None] if isinstance(position, Tensor) else position) * 2 + halves
    start, stride = mixed(words ^ mixed(at)).unbind(dim=1)
    return start, stride | 1


def uniforms(keys: Tensor, position: int | Tensor, purpose: int) -> Tensor:
    """Returns one number in [0, 1) for each row, (B,) float64.

    Args:
        keys: (B,) long.
        position: an int or (B,).
        purpose: numbers of different purposes are independent, and of the noise with which tokens are drawn.
    """
    start, stride = counters(key_words(keys ^ purpose), position)
    return (start * 2**21 + (stride >> 11)).double() * 2.0**-53


def mixed(number: Tensor) -> Tensor:
    """Returns a bijective hash of integers below 2^32; flipping a bit flips each output bit half the time.

    Two rounds of xor-shift and multiplication, with constants that an exhaustive search found to leave
    the least bias (C. Wellons, "Prospecting for hash functions", 2018). Both are below 2^31, so that a
    product fits into 63 bits.
    """
    number = number ^ number >> 16
    number = (number * 0x21F0AAAD).bitwise_and_(_32_BITS)
    number ^= number >> 15
    number = number.mul_(0x735A2D97).bitwise_and_(_32_BITS)
    number ^= number >> 15
    return number
