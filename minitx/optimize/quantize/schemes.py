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

_PART = 2**21  # numbers of a weight that are quantised at a time


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
    """

    name: str
    linear: type[layers.Quantized]
    experts: type[layers.Quantized]
    quantize: Callable[[Tensor], Sequence[Tensor]]
    divisor: int = 1
    transposed: bool = False

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
    return Scheme("int8_dynamic", *kinds, quantize, transposed=True)


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
    return Scheme("int4_weights", *kinds, _quantize, divisor=group_size)


def in_parts(function: Callable[[Tensor], tuple[Tensor, ...]], weight: Tensor) -> tuple[Tensor, ...]:
    """Returns what a function of rows returns of all rows, a part of the rows at a time.

    Its temporary tensors then take little memory.

    Args:
        function: (rows, columns) -> tensors (rows, ...).
        weight: (outputs, inputs)

    Returns:
        tensors (outputs, ...).
    """
    parts = [function(rows) for rows in torch.split(weight, max(1, _PART // weight.shape[1]))]
    return tuple(torch.cat(each) for each in zip(*parts, strict=True))


def quantized(scheme: Scheme, weight: Tensor) -> tuple[Tensor, Tensor, float]:
    """Returns the buffers of a weight and its relative error.

    Args:
        scheme: how to quantise.
        weight: (outputs, inputs), or (experts, outputs, inputs).

    Raises:
        FloatingPointError: the weight has values that are not finite.
    """
    matrices = [weight] if weight.dim() == 2 else [*weight]
    parts = [scheme.quantize(matrix) for matrix in matrices]
    error = sum(float(part[2].sum(dtype=torch.float64)) for part in parts)
    total = sum(float(matrix.float().square().sum(dtype=torch.float64)) for matrix in matrices)
    if total - total != 0:
        raise FloatingPointError
    first, second = ([part[i] for part in parts] for i in (0, 1))
    integers, scales = (each[0] if weight.dim() == 2 else torch.stack(each) for each in (first, second))
    return integers.mT if scheme.transposed else integers, scales, (error / total) ** 0.5 if total else 0.0
