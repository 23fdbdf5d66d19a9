"""Linear projections by products of int8 matrices, whose sums are exact.

Each row of the input is divided by its own scale, its largest magnitude / 127, and rounded to integers; the
weight has been so per output. The sums of products of integers are exact in 32 bits, in whatever order a
kernel takes them, so a row gives the same output alone and in a batch, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from threading import Lock

import torch
from torch import Tensor

from minitx.optimize.linear import linear, measure
from minitx.validation import ArgumentValueError, is_transformed, values_unavailable

LEVELS = (127, 64)  # largest magnitudes of a weight; the second for processors without VNNI
FEW = range(2, 8)  # rows for which products of single rows may be faster
LARGE = 2**22  # smallest weight for which they may be
_SMALLEST = torch.full((), 1e-37, dtype=torch.float32, device="cpu")  # scale of a row of zeros
_MEASURING = Lock()
_ROW_BY_ROW: dict[tuple[int, ...], bool] = {}


def int8_linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Returns x W^T + b in a dtype, from a weight in int8.

    Args:
        x: (..., inputs), floating point.
        weight: (inputs, outputs), int8; its columns lie in memory one after another.
        scale: (outputs), float32.
        bias: (outputs), or None.
        dtype: of the result.

    Returns:
        (..., outputs)
    """
    rows = x.reshape(-1, len(weight))
    if rows.dtype != torch.float32:
        rows = rows.float()
    step = torch.add(_SMALLEST, rows.abs().amax(-1, keepdim=True), alpha=1 / 127)
    integers = torch.div(rows, step).round_().to(torch.int8)
    y = int_product(integers, weight).mul(step)
    y = y.mul_(scale) if bias is None else torch.addcmul(bias, y, scale)
    return y.to(dtype).view(*x.shape[:-1], weight.shape[1])


def int_product(x: Tensor, weight: Tensor) -> Tensor:
    """Returns the exact product of two int8 matrices: (rows, inputs), (inputs, outputs) -> (rows, outputs).

    For a few rows and a large weight, products of single rows may be faster; they are the same.
    """
    if weight.numel() >= LARGE and not values_unavailable(x) and len(x) in FEW and not is_transformed():
        key = (len(x), *weight.shape, torch.get_num_threads())
        if key not in _ROW_BY_ROW:
            with _MEASURING:
                _ROW_BY_ROW[key] = _row_by_row_is_faster(x, weight)
        if _ROW_BY_ROW[key]:
            return _row_by_row(x, weight)
    return torch._int_mm(x, weight)


def _row_by_row(x: Tensor, weight: Tensor) -> Tensor:
    return torch.cat([torch._int_mm(row, weight) for row in torch.split(x, 1)])


def _row_by_row_is_faster(x: Tensor, weight: Tensor) -> bool:
    """Measures both products of a shape once in a process."""
    seconds: dict[Callable[..., Tensor], list[float]] = {torch._int_mm: [], _row_by_row: []}
    for _ in range(4):
        for product, measured in seconds.items():
            start = time.perf_counter()
            product(x, weight)
            measured.append(time.perf_counter() - start)
    together, apart = (min(measured) for measured in seconds.values())
    return apart < together


def weight_levels() -> int:
    """Returns the largest magnitude of a quantised weight: 127, or 64 where sums of larger ones overflow.

    Processors without VNNI (AVX2 alone, the first ones with AVX-512) add pairs of products in 16 bits, and
    cut the sums off. With weights of at most 64 no pair exceeds them.

    Raises:
        ArgumentValueError: products of int8 are wrong on this processor with either.
    """
    levels = _weight_levels()
    if levels is None:
        hint = "int8_weights and int4_weights do not multiply integers"
        processor = torch.backends.cpu.get_cpu_capability()
        raise ArgumentValueError("processor", processor, "one whose products of int8 are exact", hint)
    return levels


def check_levels(levels: int) -> None:
    """Checks that products with the integers of a weight that was quantised elsewhere are exact here.

    Args:
        levels: their largest magnitude.

    Raises:
        ArgumentValueError: they are not on this processor.
    """
    if levels > weight_levels():
        expected = f"at most {weight_levels()} on this processor"
        raise ArgumentValueError("levels", levels, expected, "quantise the original model here")


@cache
def _weight_levels() -> int | None:
    return next((levels for levels in LEVELS if sums_are_exact(torch._int_mm, levels)), None)


@torch.inference_mode()
def sums_are_exact(product: Callable[[Tensor, Tensor], Tensor], levels: int) -> bool:
    """Whether products of int8 matrices with the largest magnitudes are exact.

    Args:
        product: (rows, inputs), (inputs, outputs) -> (rows, outputs).
        levels: largest magnitude of a weight.
    """
    for rows in (1, 4, 17):
        for outputs, inputs in ((64, 96), (33, 70)):
            x = torch.full((rows, inputs), 127, dtype=torch.int8, device="cpu")
            x[:, ::3] = -127
            x[0] = 127
            weight = torch.full((outputs, inputs), levels, dtype=torch.int8, device="cpu")
            weight[1::2] = -levels
            exact = x.double() @ weight.t().double()
            if not torch.equal(product(x, weight.t()).double(), exact):
                return False
    return True


def quantize_rows(weight: Tensor, levels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns integers and scales with weight = integers * scale, one scale per row, and the squared errors.

    Args:
        weight: (rows, columns), floating point.
        levels: largest magnitude of an integer.

    Returns:
        (rows, columns) int8; (rows) float32; (rows) float32.
    """
    wide = weight.float()
    scale = wide.abs().amax(-1, keepdim=True).div_(levels).clamp_min_(1e-37)
    integers = torch.div(wide, scale).round_()
    error = torch.mul(integers, scale).sub_(wide).square_().sum(-1)
    return integers.to(torch.int8), scale[:, 0], error


@cache
def int8_is_faster() -> bool:
    """Whether int8 products, the rounding of the input included, are clearly faster than those of float32.

    Measured once in a process, for one row, in a few milliseconds. False where they are not exact.
    """
    if _weight_levels() is None:
        return False
    quantized: dict[int, tuple[Tensor, Tensor]] = {}

    def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if id(weight) not in quantized:
            integers, scale, _ = quantize_rows(weight, 127)
            quantized[id(weight)] = integers.t(), scale
        return int8_linear(x, *quantized[id(weight)], bias, torch.float32)

    plain, integer = measure(linear, _product, rows=1, size=2048)
    return integer * 1.3 < plain
