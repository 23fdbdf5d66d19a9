"""Cross-entropy over many classes in blocks of rows, for training on a CPU.

`torch.nn.functional.cross_entropy` writes log-probabilities and two gradients of the size of the logits, and
the logits again if they are in half precision. In blocks that fit a core's cache only the gradient is
written. Both compute in float32 or better.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from minitx.validation import is_transformed, values_unavailable

LARGE, BLOCK = 2**20, 2**18  # elements: of the smallest logits for which blocks pay; of a block


class BlockwiseCrossEntropy(torch.autograd.Function):
    """The mean cross-entropy over all labels but `ignore_index`, which is an argument of `apply`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
        """(N, C), (N,) -> ()"""
        valid = labels != ignore_index
        index = labels.masked_fill(~valid, 0)[:, None]
        log_sums = torch.cat([widened(logits[rows]).logsumexp(-1) for rows in _blocks(logits)])
        losses = log_sums - logits.gather(-1, index)[:, 0].to(log_sums.dtype)
        ctx.save_for_backward(logits, index, valid, log_sums)
        return losses[valid].mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """() -> (N, C): the probabilities, less 1 at the labels, over the number of labels"""
        logits, index, valid, log_sums = ctx.saved_tensors
        weight = torch.where(valid, grad / valid.sum(), 0)[:, None]
        if torch.is_grad_enabled() or torch._C._functorch.is_legacy_batchedtensor(grad):
            whole = widened(logits).softmax(-1)  # recorded, for the gradient of the gradient
            whole = (whole - torch.zeros_like(whole).scatter(-1, index, 1)) * weight
            return whole.to(logits.dtype), None, None
        result = torch.empty_like(logits)
        for rows in _blocks(logits):
            part = (widened(logits[rows]) - log_sums[rows, None]).exp_()
            part.scatter_add_(-1, index[rows], torch.full_like(weight[rows], -1))
            result[rows] = part.mul_(weight[rows])
        return result, None, None


def widened(logits: Tensor) -> Tensor:
    """Returns the logits in float32 at least, which sums over many classes need: (...) -> (...)."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def is_large(logits: Tensor) -> bool:
    """Whether blocks pay for these logits (N, C): gradients are recorded, in plain tensors on a CPU."""
    return bool(
        torch.is_grad_enabled()
        and logits.requires_grad
        and logits.is_cpu
        and type(logits) is Tensor  # a DTensor, for example, has its own operations
        and not values_unavailable(logits)
        and not is_transformed()
        and logits.numel() >= LARGE
    )


def _blocks(logits: Tensor) -> Iterator[slice]:
    size = max(1, BLOCK // logits.shape[1])
    for start in range(0, len(logits), size):
        yield slice(start, start + size)
