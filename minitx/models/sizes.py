"""Numbers and bytes of parameters, and a copy of a model that takes none."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from minitx.models.base import Model


def count(tensors: Iterable[Tensor]) -> int:
    """Returns the number of elements."""
    return sum(tensor.numel() for tensor in tensors)


def num_bytes(tensors: Iterable[Tensor]) -> int:
    """Returns the number of bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def on_meta(model: Model) -> Model:
    """Returns a copy of a model on the meta device, without its values; ties stay."""
    memo: dict[int, Any] = {id(model.checkpoint): model.checkpoint}
    for parameter in model.parameters():
        empty = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return deepcopy(model, memo)
