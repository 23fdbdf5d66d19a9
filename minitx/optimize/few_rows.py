"""Linear projections of few rows on a CPU, as in a decoding step.

A decoding step multiplies each weight with one row per sequence, and takes the time of loading the weights.
For so few rows PyTorch's product on a CPU runs on one core, at half of the memory bandwidth. As a batch of
products with equal parts of the weight it runs on all cores. A large weight, such as that of a vocabulary, is
faster in smaller parts.

`minitx.load` and `minitx.from_config` apply the pass. Other devices, dtypes and sizes take PyTorch's product.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minitx.layers.experts import ExpertsLinear
from minitx.validation import check_type, values_unavailable

FEW_ROWS, VERY_FEW_ROWS = 64, 4  # where the products were equally fast, on two x86-64 cores
LARGE, PART = 2**16, 2**20  # smallest weight for which a choice pays; best size of a part

Module = TypeVar("Module", bound=nn.Module)


class FewRowsLinear(nn.Linear):
    """nn.Linear with the product for few rows; prints as nn.Linear."""

    def _get_name(self) -> str:
        return nn.Linear.__name__

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)"""
        return linear(x, self.weight, self.bias)


class FewRowsExpertsLinear(ExpertsLinear):
    """ExpertsLinear with the product for few rows; prints as ExpertsLinear."""

    def _get_name(self) -> str:
        return ExpertsLinear.__name__

    def forward(self, x: Tensor, expert: int) -> Tensor:
        """(tokens, inputs) -> (tokens, outputs), through one expert"""
        return linear(x, self.weight[expert], None if self.bias is None else self.bias[expert])


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: FewRowsLinear,
    ExpertsLinear: FewRowsExpertsLinear,
}


def few_rows(model: Module) -> Module:
    """Lets every linear projection choose the faster product for few rows.

    Changes the class of the modules in place; parameters, names and hooks stay.

    Args:
        model: any module; only `nn.Linear` itself and experts are changed, not their subclasses.

    Returns:
        The model.

    Raises:
        ArgumentTypeError: not a module.
    """
    check_type("model", model, nn.Module, "a module")
    for module in model.modules():
        module.__class__ = _CLASSES.get(type(module), type(module))
    return model


def undo_few_rows(model: Module) -> Module:
    """Undoes `few_rows`: every projection takes PyTorch's own product again. Returns the model.

    Raises:
        ArgumentTypeError: not a module.
    """
    check_type("model", model, nn.Module, "a module")
    inverse = {faster: plain for plain, faster in _CLASSES.items()}
    for module in model.modules():
        module.__class__ = inverse.get(type(module), type(module))
    return model


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Returns x W^T + b: (..., inputs), (outputs, inputs), (outputs) -> (..., outputs).

    Where gradients are recorded, takes PyTorch's product: the backward through the parts would be slower.
    """
    if values_unavailable(x) or not x.is_cpu or x.dtype != torch.float32 or weight.numel() < LARGE:
        return F.linear(x, weight, bias)
    outputs, inputs = weight.shape
    parts = divisor(outputs, min(max(2, torch.get_num_threads()), 32), min(weight.numel() // PART, 32))
    if (
        torch.is_grad_enabled()
        or not 0 < x.numel() <= FEW_ROWS * inputs
        or parts is None
        or not weight.is_contiguous()
    ):
        return F.linear(x, weight, bias)
    flat, split = x.reshape(-1, inputs), weight.view(parts, -1, inputs)
    if len(flat) <= VERY_FEW_ROWS:  # each part of W x^T: (parts, outputs / parts, rows)
        column = flat.t().expand(parts, -1, -1)
        y = split.bmm(column) if bias is None else torch.baddbmm(bias.view(parts, -1, 1), split, column)
        y = y.flatten(0, 1).t().contiguous()  # without it the next product would be slow
    else:  # each part of x W^T: (parts, rows, outputs / parts)
        row, transposed = flat.expand(parts, -1, -1), split.mT
        y = row.bmm(transposed) if bias is None else torch.baddbmm(bias.view(parts, 1, -1), row, transposed)
        y = y.transpose(0, 1)
    return y.reshape(*x.shape[:-1], outputs)


@lru_cache
def divisor(number: int, least: int, preferred: int) -> int | None:
    """Returns a divisor of `number`.

    It is the smallest from max(preferred, least) to 64, else the largest from `preferred` down to `least`.
    Returns None if `number` has neither.
    """
    up, down = range(max(preferred, least), 65), range(preferred, least - 1, -1)
    return next((n for n in (*up, *down) if number % n == 0), None)
