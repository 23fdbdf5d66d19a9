"""Activation checkpointing: the backward computes the activations of each layer again (arXiv:1604.06174).

A training step then holds the inputs of all layers and the activations of one, instead of the activations of
all, and takes about a third longer.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minitx.layers.layer import Layer
from minitx.validation import check_type

Module = TypeVar("Module", bound=nn.Module)


class _Recomputed(nn.Module):
    """Mixed into the class of a layer."""

    def _get_name(self) -> str:
        return type(self).__bases__[1].__name__

    def forward(self, *inputs: Any, **options: Any) -> Tensor:
        """The inputs of `Layer.forward` -> (B, T, E)"""
        cache = inputs[2] if len(inputs) > 2 else options.get("cache")
        if not torch.is_grad_enabled() or cache is not None:  # a second forward would append to it again
            result: Tensor = super().forward(*inputs, **options)
            return result
        recomputed: Tensor = checkpoint(super().forward, *inputs, use_reentrant=False, **options)
        return recomputed


@cache
def _recomputed(kind: Any) -> Any:
    """Returns the class of layers that are computed again, for a class of layers."""
    return type(f"Recomputed{kind.__name__}", (_Recomputed, kind), {})


def recompute_layers(model: Module) -> Module:
    """Lets every layer keep its inputs alone for the backward, and compute its activations again there.

    Changes the class of the layers in place; parameters, names and hooks stay, and so do outputs and
    gradients, those of dropout included.

    Args:
        model: any module; its `minitx.layers.layer.Layer`s are changed.

    Returns:
        The model.

    Raises:
        ArgumentTypeError: not a module.
    """
    check_type("model", model, nn.Module, "a module")
    for module in model.modules():
        if isinstance(module, Layer) and not isinstance(module, _Recomputed):
            kind: Any = type(module)
            module.__class__ = _recomputed(kind)
    return model


def undo_recompute_layers(model: Module) -> Module:
    """Undoes `recompute_layers`. Returns the model.

    Raises:
        ArgumentTypeError: not a module.
    """
    check_type("model", model, nn.Module, "a module")
    for module in model.modules():
        if isinstance(module, _Recomputed):
            module.__class__ = type(module).__bases__[1]
    return model
