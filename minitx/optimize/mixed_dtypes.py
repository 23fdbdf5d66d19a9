"""Models whose parameters have several dtypes, such as bfloat16 with a float32 head.

One rule holds for every module with parameters: it computes in its own dtype, the widest of its parameters,
and returns that dtype. Inputs are converted for it (a norm does not narrow its input before the mean). Sums,
such as residual connections, have the wider dtype of the two. An attention converts queries, keys and values
to the widest dtype of their projections.

`minitx.load` and `Model.half` apply the pass to such models alone; others compute without a conversion. After
a conversion of one part, such as `model.head.double()`, apply it with `minitx.optimize.mixed_dtypes`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minitx.layers.attention import CrossAttention, SelfAttention
from minitx.layers.disentangled import DisentangledSelfAttention
from minitx.layers.experts import ExpertsLinear
from minitx.layers.norm import RMSNorm
from minitx.optimize.bfloat16 import undo_bfloat16_weights
from minitx.optimize.classes import InPlaceOf, Module, change_classes
from minitx.optimize.fuse import undo_fuse_projections
from minitx.optimize.linear import FastExpertsLinear, FastLinear, linear
from minitx.optimize.packed import undo_pack_weights
from minitx.validation import check_type


def wider(weight: Tensor, bias: Tensor | None) -> torch.dtype:
    """Returns the narrowest dtype that holds the values of both."""
    if bias is None or bias.dtype == weight.dtype:
        return weight.dtype
    return torch.promote_types(weight.dtype, bias.dtype)


class MixedLinear(InPlaceOf, nn.Linear):
    """nn.Linear in the dtype of its parameters."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)"""
        dtype = wider(self.weight, self.bias)
        bias = None if self.bias is None else self.bias.to(dtype)
        return linear(x.to(dtype), self.weight.to(dtype), bias)


class MixedExpertsLinear(InPlaceOf, ExpertsLinear):
    """ExpertsLinear in the dtype of its parameters."""

    def forward(self, x: Tensor, expert: int) -> Tensor:
        """(tokens, inputs) -> (tokens, outputs), through one expert"""
        dtype = wider(self.weight, self.bias)
        bias = None if self.bias is None else self.bias[expert].to(dtype)
        return linear(x.to(dtype), self.weight[expert].to(dtype), bias)

    def each(self, x: Tensor, experts: Tensor) -> Tensor:
        """(tokens, inputs), (tokens,) -> (tokens, outputs), each token through its own expert"""
        dtype = wider(self.weight, self.bias)
        y = torch.bmm(self.weight[experts].to(dtype), x[:, :, None].to(dtype)).squeeze(-1)
        return y if self.bias is None else y + self.bias[experts].to(dtype)

    def all(self, x: Tensor) -> Tensor:
        """(tokens, inputs) or (experts, tokens, inputs) -> (experts, tokens, outputs), through all experts"""
        dtype = wider(self.weight, self.bias)
        y = x.to(dtype) @ self.weight.to(dtype).mT
        return y if self.bias is None else y + self.bias[:, None].to(dtype)


class MixedConv1d(InPlaceOf, nn.Conv1d):
    """nn.Conv1d in the dtype of its parameters."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, E, T) -> (B, E, T)"""
        dtype = wider(self.weight, self.bias)
        bias = None if self.bias is None else self.bias.to(dtype)
        mixed: Tensor = self._conv_forward(x.to(dtype), self.weight.to(dtype), bias)
        return mixed


class MixedLayerNorm(InPlaceOf, nn.LayerNorm):
    """nn.LayerNorm in the wider dtype of input and parameters; returns the dtype of its parameters."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size)"""
        dtype = wider(self.weight, self.bias)
        wide = torch.promote_types(dtype, x.dtype)
        bias = None if self.bias is None else self.bias.to(wide)
        normed = F.layer_norm(x.to(wide), self.normalized_shape, self.weight.to(wide), bias, self.eps)
        return normed.to(dtype)


class MixedRMSNorm(InPlaceOf, RMSNorm):
    """RMSNorm in the wider dtype of input and parameters; returns the dtype of its parameters."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size)"""
        wide = x.to(torch.promote_types(x.dtype, self.weight.dtype))
        return super().forward(wide).to(self.weight.dtype)


class _MixedAttention(InPlaceOf):
    """Queries, keys, values and mask of one dtype, the widest of the projections'."""

    def projected(self) -> torch.dtype:
        """Returns the widest dtype of the projections."""
        assert isinstance(self, nn.Module)
        dtypes = {part.weight.dtype for part in self._modules.values() if isinstance(part, nn.Linear)}
        return reduce(torch.promote_types, dtypes)

    def heads(self, *args: Any) -> Tensor:
        """(B, T, heads * D) -> (B, heads, T, D)"""
        split: Tensor = super().heads(*args)  # type: ignore[misc]
        return split.to(self.projected())

    def forward(self, hidden: Tensor, context: Any, cache: Any = None) -> Tensor:
        """(B, T, E) -> (B, T, H * D)"""
        if context.mask is not None and context.mask.is_floating_point():
            context = replace(context, mask=context.mask.to(self.projected()))
        output: Tensor = super().forward(hidden, context, cache)  # type: ignore[misc]
        return output


class MixedSelfAttention(_MixedAttention, SelfAttention):
    """SelfAttention whose projections may differ in dtype."""


class MixedCrossAttention(_MixedAttention, CrossAttention):
    """CrossAttention whose projections may differ in dtype."""


class MixedDisentangledSelfAttention(_MixedAttention, DisentangledSelfAttention):
    """DisentangledSelfAttention whose projections may differ in dtype."""


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: MixedLinear,
    FastLinear: MixedLinear,
    ExpertsLinear: MixedExpertsLinear,
    FastExpertsLinear: MixedExpertsLinear,
    nn.Conv1d: MixedConv1d,
    nn.LayerNorm: MixedLayerNorm,
    RMSNorm: MixedRMSNorm,
    SelfAttention: MixedSelfAttention,
    CrossAttention: MixedCrossAttention,
    DisentangledSelfAttention: MixedDisentangledSelfAttention,
}


def mixed_dtypes(model: Module) -> Module:
    """Lets every module compute in its own dtype if the model's parameters have several.

    Changes the class of the modules in place; parameters, names and hooks stay. In such a model it undoes
    `fuse_projections`, `pack_weights` and `bfloat16_weights`: their products are of one dtype. Quantised
    projections stay: they take any dtype and return their own, and raise if they were converted since.

    Args:
        model: any module.

    Returns:
        The model.

    Raises:
        ArgumentTypeError: not a module.
    """
    check_type("model", model, nn.Module, "a module")
    has_several = len({parameter.dtype for parameter in model.parameters()}) > 1
    if not has_several:
        return model
    for undo in (undo_fuse_projections, undo_bfloat16_weights, undo_pack_weights):
        undo(model)
    return change_classes(model, _CLASSES.get)
