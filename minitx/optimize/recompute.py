"""Activation checkpointing: the backward computes the activations of each layer again (arXiv:1604.06174).

A training step then holds the inputs of all layers and the activations of one, instead of the activations of
all, and takes about a third longer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minitx.layers.layer import Layer
from minitx.optimize.classes import InPlaceOf, Module, all_modules, mix_in, take_out
from minitx.validation import check_type


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


def recompute_layers(model: Module) -> Module:
    """Lets every layer keep only its inputs for the backward, and compute its activations again there.

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
    for module in all_modules(model):
        if isinstance(module, Layer):
            mix_in(module, _Recomputed)
    return model


def undo_recompute_layers(model: Module) -> Module:
    """Undoes `recompute_layers`. Returns the model.

    Raises:
        ArgumentTypeError: not a module.
    """
    check_type("model", model, nn.Module, "a module")
    for module in all_modules(model):
        take_out(module, _Recomputed)
    return model
