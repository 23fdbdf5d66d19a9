"""Bytes of a tensor to its values."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from minitx.checkpoint.gguf import blocks, super_blocks
from minitx.checkpoint.gguf.kinds import Kind

_AT_ONCE = 2**20  # values, so that the parts between bytes and values stay in the cache

FORMATS: dict[str, Callable[[Tensor], Tensor]] = {
    "Q4_0": blocks.q4_0,
    "Q4_1": blocks.q4_1,
    "Q5_0": blocks.q5_0,
    "Q5_1": blocks.q5_1,
    "Q8_0": blocks.q8_0,
    "IQ4_NL": blocks.iq4_nl,
    "Q2_K": super_blocks.q2_k,
    "Q3_K": super_blocks.q3_k,
    "Q4_K": super_blocks.q4_k,
    "Q5_K": super_blocks.q5_k,
    "Q6_K": super_blocks.q6_k,
    "IQ4_XS": super_blocks.iq4_xs,
}


def dequantize(data: Tensor, kind: Kind) -> Tensor:
    """Returns the values of a tensor.

    Args:
        data: (bytes,), dtype uint8, whole blocks.
        kind: their type.

    Returns:
        (values,): float32 for quantised types, else the type's own dtype, without a copy.
    """
    if kind.is_plain:
        return data.view(kind.dtype)
    stored = data.view(-1, kind.nbytes)
    values = torch.empty(len(stored), kind.block, dtype=torch.float32, device=data.device)
    step = _AT_ONCE // kind.block
    for begin in range(0, len(stored), step):
        values[begin : begin + step] = FORMATS[kind.name](stored[begin : begin + step])
    return values.flatten()
