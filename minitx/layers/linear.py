"""The linear projection, and how it is computed when there are only a few rows."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minitx.validation import values_unavailable

FEW_ROWS, VERY_FEW_ROWS = 64, 4  # where the products were as fast as each other, on two x86-64 cores
LARGE, PART = 2**16, 2**20  # weights below the one are done before a choice would pay; best size of a part


class Linear(nn.Linear):
    """torch's Linear: x W^T + b."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)"""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b: (..., inputs), (outputs, inputs), (outputs) -> (..., outputs).

    A decoding step multiplies each weight with one row per text, and is done as soon as the weights have
    been read. For so few rows PyTorch's product on a CPU takes a routine that runs on one core, at half
    of the memory's speed. The same product, as a batch of products with equal parts of the weight, runs
    on all of them. A large weight, such as that of a vocabulary, is faster in smaller parts. Where
    gradients are recorded nothing is gained: the backward through the parts would be the slower one.
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
        made = split.bmm(column) if bias is None else torch.baddbmm(bias.view(parts, -1, 1), split, column)
        made = made.flatten(0, 1).t().contiguous()  # as it lies, the next product would be slow
    else:  # each part of x W^T: (parts, rows, outputs / parts)
        row, turned = flat.expand(parts, -1, -1), split.mT
        made = row.bmm(turned) if bias is None else torch.baddbmm(bias.view(parts, 1, -1), row, turned)
        made = made.transpose(0, 1)
    return made.reshape(*x.shape[:-1], outputs)


@lru_cache
def divisor(number: int, least: int, wanted: int) -> int | None:
    """The first divisor from `wanted` and `least` up to 64, else the next below that is at least `least`."""
    up, down = range(max(wanted, least), 65), range(wanted, least - 1, -1)
    return next((n for n in (*up, *down) if number % n == 0), None)
