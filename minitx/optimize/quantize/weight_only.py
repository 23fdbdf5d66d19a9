"""Linear projections of bfloat16 inputs by weights in int8 or int4, which the kernels widen on the way.

The kernels are PyTorch's own. They have a fast form for inputs in bfloat16 alone, so inputs of float32 are
rounded to it, by at most 1 part in 256; the sums are of float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from minitx.optimize.linear import linear, measure

BLOCK = 16  # the kernel for int8 reads beyond rows whose length it does not divide
GROUP_SIZES = (32, 64, 128)
SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)  # of the range of a group; the best one is kept
_TILES = 2  # an argument of the packing, without effect on a CPU


def int8_weight_linear(
    x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Returns x W^T + b in a dtype.

    Args:
        x: (..., inputs), floating point.
        weight: (outputs, inputs), int8.
        scale: (outputs), bfloat16.
        bias: (outputs), or None.
        dtype: of the result.

    Returns:
        (..., outputs)
    """
    y = torch._weight_int8pack_mm(_narrow(x), weight, scale)
    y = y.to(dtype) if bias is None else torch.add(bias, y).to(dtype)
    return y.view(*x.shape[:-1], len(weight))


def int4_weight_linear(
    x: Tensor, weight: Tensor, scale_and_zero: Tensor, bias: Tensor | None, dtype: torch.dtype, outputs: int
) -> Tensor:
    """Returns x W^T + b in a dtype.

    Args:
        x: (..., inputs), floating point.
        weight: (outputs in blocks of 16, inputs / 2), uint8, in the kernel's own order.
        scale_and_zero: (groups, outputs in blocks of 16, 2), bfloat16.
        bias: (outputs), or None.
        dtype: of the result.
        outputs: their number without those that fill the last block.

    Returns:
        (..., outputs)
    """
    rows = _narrow(x)
    group = rows.shape[1] // len(scale_and_zero)
    y = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, weight, group, scale_and_zero)[:, :outputs]
    y = y.to(dtype) if bias is None else torch.add(bias, y).to(dtype)
    return y.reshape(*x.shape[:-1], outputs)


def _narrow(x: Tensor) -> Tensor:
    """Returns the rows of an input in bfloat16: (..., inputs) -> (rows, inputs)."""
    rows = x.reshape(-1, x.shape[-1])
    return rows.to(torch.bfloat16, memory_format=torch.contiguous_format)


def quantize_int8(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns integers and scales with weight = integers * scale, one scale per row, and the squared errors.

    Args:
        weight: (outputs, inputs), floating point.

    Returns:
        (outputs, inputs) int8; (outputs) bfloat16, to which the integers are fitted; (outputs) float32.
    """
    wide = weight.float()
    scale = wide.abs().amax(-1, keepdim=True).div_(127).clamp_min_(1e-37).to(torch.bfloat16)
    integers = torch.div(wide, scale.float()).round_().clamp_(-127, 127)
    error = torch.mul(integers, scale.float()).sub_(wide).square_().sum(-1)
    return integers.to(torch.int8), scale[:, 0], error


def quantize_int4(weight: Tensor, group_size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns integers, scales and zeros with weight = (integers - 8) * scale + zero, by groups of inputs.

    Of several ranges per group, those that cut the outermost weights off included, the one with the smallest
    squared error is kept.

    Args:
        weight: (outputs, inputs), floating point.
        group_size: divides the inputs.

    Returns:
        (outputs, inputs) int32 from 0 to 15; (outputs, groups) bfloat16 twice; squared errors (outputs).
    """
    groups = weight.float().view(len(weight), -1, group_size)  # (outputs, groups, size)
    low, high = groups.aminmax(dim=-1, keepdim=True)
    centre, width = (low + high) / 2, high - low
    best: tuple[Tensor, ...] = ()
    for shrink in SHRINKS:
        scale = (width * (shrink / 15)).clamp_min_(1e-30).to(torch.bfloat16).float()
        zero = (centre + scale / 2).to(torch.bfloat16).float()  # of the integer 8, half a step above 7.5
        integers = torch.div(groups - zero, scale).add_(8).round_().clamp_(0, 15)
        error = (integers - 8).mul_(scale).add_(zero).sub_(groups).square_().sum(-1, keepdim=True)
        tried: tuple[Tensor, ...] = (error, integers, scale, zero)
        if best:
            better = error < best[0]
            tried = tuple(torch.where(better, new, old) for new, old in zip(tried, best, strict=True))
        best = tried
    error, integers, scale, zero = best
    scale, zero = (each[..., 0].to(torch.bfloat16) for each in (scale, zero))
    return integers.flatten(1).to(torch.int32), scale, zero, error.sum((1, 2))


def pack_int4(integers: Tensor, scales: Tensor, zeros: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the arguments of the kernel, filled up to blocks of 16 outputs.

    Args:
        integers: (outputs, inputs) int32 from 0 to 15.
        scales: (outputs, groups), bfloat16.
        zeros: (outputs, groups), bfloat16.

    Returns:
        (outputs in blocks, inputs / 2) uint8 and (groups, outputs in blocks, 2) bfloat16.
    """
    missing = -len(integers) % BLOCK
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(F.pad(integers, (0, 0, 0, missing)), _TILES)
    pairs = F.pad(torch.stack((scales, zeros), dim=-1), (0, 0, 0, 0, 0, missing))
    return packed, pairs.transpose(0, 1).contiguous()


@cache
def int8_weights_are_slow() -> bool:
    """Whether the kernel for int8 has no fast form here: it is clearly slower than a product of float32."""

    def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return int8_weight_linear(x, quantized[0], quantized[1], bias, torch.float32)

    quantized = quantize_int8(torch.ones(512, 512, dtype=torch.float32, device="cpu"))[:2]
    return _is_slow(_product)


@cache
def int4_weights_are_slow() -> bool:
    """Whether the kernel for int4 has no fast form here: it is clearly slower than a product of float32."""

    def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return int4_weight_linear(x, packed[0], packed[1], bias, torch.float32, 512)

    packed = pack_int4(*quantize_int4(torch.ones(512, 512, dtype=torch.float32, device="cpu"), 32)[:3])
    return _is_slow(_product)


def _is_slow(product: Callable[..., Tensor]) -> bool:
    plain, quantized = measure(linear, product, rows=1)
    return quantized > 2 * plain
