"""Activation checkpointing: the backward computes the activations of each layer again (arXiv:1604.06174).

A training step then holds the inputs of all layers and the activations of one, instead of the activations of
all, and takes about a third longer.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minitx.layers.layer import Layer
from minitx.optimize.classes import InPlaceOf, Module, change_classes


class _Recomputed(InPlaceOf, nn.Module):
    """Mixed into the class of a layer."""

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
    if issubclass(kind, _Recomputed):
        return kind
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
    return change_classes(model, lambda kind: _recomputed(kind) if issubclass(kind, Layer) else None)


def undo_recompute_layers(model: Module) -> Module:
    """Undoes `recompute_layers`. Returns the model.

    Raises:
        ArgumentTypeError: not a module.
    """
    return change_classes(model, lambda kind: kind.__bases__[1] if issubclass(kind, _Recomputed) else None)
