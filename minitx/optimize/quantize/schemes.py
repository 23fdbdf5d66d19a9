"""How each pass quantises one weight, and which weights it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from minitx.layers.experts import ExpertsLinear
from minitx.optimize.quantize import layers
from minitx.optimize.quantize.products import quantize_rows
from minitx.optimize.quantize.weight_only import BLOCK, pack_int4, quantize_int4, quantize_int8

_PART = 2**15 - 1  # numbers of a weight that are quantised at a time: a part below PyTorch's for threads


@dataclass(frozen=True)
class Scheme:
    """How a pass quantises.

    Attributes:
        name: of the pass.
        linear: class of quantised projections.
        experts: class of quantised experts.
        quantize: (outputs, inputs) -> the two buffers of a weight, and the squared error of each output.
        divisor: of the inputs of a weight that can be taken.
        transposed: whether the first buffer is kept as (inputs, outputs), in the same order in memory.
        outputs_apart: whether each output has a row of the buffers, and not a place in a block of several.
        levels: largest magnitude of an integer, where the processor limits it.
    """

    name: str
    linear: type[layers.Quantized]
    experts: type[layers.Quantized]
    quantize: Callable[[Tensor], Sequence[Tensor]]
    divisor: int = 1
    transposed: bool = False
    outputs_apart: bool = True
    levels: int | None = None

    def target(self, kind: type[nn.Module]) -> type[layers.Quantized]:
        """Returns the class for a class of projections."""
        return self.experts if issubclass(kind, ExpertsLinear) else self.linear


def int8_dynamic_scheme(levels: int) -> Scheme:
    """Returns the scheme of inputs and weights in int8.

    Args:
        levels: largest magnitude of a weight.
    """
    quantize = partial(in_parts, partial(quantize_rows, levels=levels))
    kinds = (layers.Int8Linear, layers.Int8ExpertsLinear)
    return Scheme("int8_dynamic", *kinds, quantize, transposed=True, levels=levels)


def int8_weights_scheme() -> Scheme:
    """Returns the scheme of weights in int8 alone."""
    kinds = (layers.Int8WeightLinear, layers.Int8WeightExpertsLinear)
    return Scheme("int8_weights", *kinds, partial(in_parts, quantize_int8), divisor=BLOCK)


def int4_weights_scheme(group_size: int) -> Scheme:
    """Returns the scheme of weights in int4, with one scale per group of inputs."""

    def _quantize(weight: Tensor) -> Sequence[Tensor]:
        *numbers, error = in_parts(partial(quantize_int4, group_size=group_size), weight)
        return *pack_int4(*numbers), error

    kinds = (layers.Int4WeightLinear, layers.Int4WeightExpertsLinear)
    return Scheme("int4_weights", *kinds, _quantize, divisor=group_size, outputs_apart=False)


def in_parts(function: Callable[[Tensor], Sequence[Tensor]], weight: Tensor) -> tuple[Tensor, ...]:
    """Returns what a function of rows returns of all rows, a few rows at a time.

    Its temporary tensors then stay in the cache of a core.

    Args:
        function: (rows, columns) -> tensors (rows, ...).
        weight: (outputs, inputs)

    Returns:
        tensors (outputs, ...).
    """
    parts = [function(rows) for rows in torch.split(weight, max(1, _PART // weight.shape[1]))]
    return tuple(torch.cat(each) for each in zip(*parts, strict=True))


@dataclass(frozen=True)
class QuantizedWeight:
    """The buffers of a weight, or of some of its outputs.

    Attributes:
        integers: the first buffer.
        scales: the second.
        errors: squared error of each output, (outputs) or (experts, outputs).
        squares: squared norm of each output, likewise.
    """

    integers: Tensor
    scales: Tensor
    errors: Tensor
    squares: Tensor

    @property
    def error(self) -> float:
        """The relative error: norm(W - quantised W) / norm(W)."""
        total = float(self.squares.sum(dtype=torch.float64))
        return float((self.errors.sum(dtype=torch.float64) / total).sqrt()) if total else 0.0


def quantized(scheme: Scheme, weight: Tensor) -> QuantizedWeight:
    """Returns the buffers of a weight.

    Args:
        scheme: how to quantise.
        weight: (outputs, inputs), or (experts, outputs, inputs).

    Raises:
        FloatingPointError: the weight has values that are not finite.
    """
    squares = torch.linalg.vector_norm(weight, dim=-1, dtype=torch.float32).square()
    if not squares.isfinite().all():
        raise FloatingPointError
    if weight.dim() == 2:
        integers, scales, errors = scheme.quantize(weight)
    else:
        parts = [scheme.quantize(matrix) for matrix in weight]
        integers, scales, errors = (torch.stack(each) for each in zip(*parts, strict=True))
    return QuantizedWeight(integers.mT if scheme.transposed else integers, scales, errors, squares)


def some_outputs(scheme: Scheme, whole: QuantizedWeight, start: int, weight: Tensor) -> QuantizedWeight:
    """Returns the buffers of some outputs of a quantised weight: views where the kernel's order permits it.

    Args:
        scheme: how the weight was quantised.
        whole: its buffers.
        start: the first output.
        weight: (outputs, inputs), of these outputs.
    """
    rows = slice(start, start + len(weight))
    errors, squares = whole.errors[rows], whole.squares[rows]
    if scheme.transposed:
        return QuantizedWeight(whole.integers[:, rows], whole.scales[rows], errors, squares)
    if scheme.outputs_apart:
        return QuantizedWeight(whole.integers[rows], whole.scales[rows], errors, squares)
    own = quantized(scheme, weight)
    view = whole.integers[rows]
    integers = view if torch.equal(view, own.integers) else own.integers
    return QuantizedWeight(integers, own.scales, errors, squares)
