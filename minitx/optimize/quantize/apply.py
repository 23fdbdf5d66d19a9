"""Quantising a model: all of the chosen projections, or none if anything fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from minitx.optimize.classes import Module
from minitx.optimize.joined import Joined
from minitx.optimize.quantize.choice import choose
from minitx.optimize.quantize.layers import SCALE, WEIGHT, Origin, Quantized, source_of
from minitx.optimize.quantize.report import LEFT
from minitx.optimize.quantize.schemes import QuantizedWeight, Scheme, quantized, some_outputs
from minitx.validation import ArgumentValueError, check_flags, check_type


def quantize_model(
    model: Module, scheme: Scheme, skip: Sequence[str], head: bool, keep_weights: bool
) -> Module:
    """Quantises the projections of a model by a scheme: all that can be, or none if anything fails.

    Args:
        model: any module.
        scheme: how to quantise a weight.
        skip: patterns of names.
        head: whether the head is quantised.
        keep_weights: whether the weights stay in memory.

    Raises:
        ArgumentTypeError, ArgumentValueError, MemoryError: as in `int8_dynamic`.
    """
    check_type("model", model, nn.Module, "a module")
    check_flags(head=head, keep_weights=keep_weights)
    chosen, left = choose(model, scheme, skip, head)
    if not chosen:
        reasons = ", ".join(f"{name}: {reason}" for name, reason in left.items())
        if any(isinstance(module, Quantized) for module in model.modules()):
            again = "it is quantised already: undo_quantization(model) first"
            reasons = f"{again}; {reasons}" if reasons else again
        hint = reasons[:200] or "it has no nn.Linear"
        raise ArgumentValueError("model", model, "one with projections that can be quantised", hint)
    buffers, fused = _all_buffers(model, scheme, chosen)
    for module, quantized_weight in buffers.items():
        _install(module, scheme, quantized_weight)
    vars(model)[LEFT] = left
    if not keep_weights:
        _drop_weights(model, [*buffers], fused)
    return model


@torch.inference_mode(False)
@torch.no_grad()
def _all_buffers(
    model: nn.Module, scheme: Scheme, chosen: Mapping[str, Any]
) -> tuple[dict[Any, QuantizedWeight], list[Joined]]:
    """Returns the buffers of each module, one product of several projections included, and its owners."""
    names = {module: name for name, module in chosen.items()}
    buffers: dict[Any, QuantizedWeight] = {}
    fused: list[Joined] = []
    for joined in model.modules():
        if not isinstance(joined, Joined) or joined.fused is None:
            continue
        parts: list[Any] = [joined.get_submodule(name) for name in joined.names]
        if not joined.has_views() or not joined.is_intact() or not all(part in names for part in parts):
            continue
        fused.append(joined)
        whole = buffers[joined.fused] = _buffers(scheme, names[parts[0]], joined.fused.weight)
        for part, start in zip(parts, accumulate(joined.sizes, initial=0), strict=False):
            buffers[part] = some_outputs(scheme, whole, start, part.weight.detach())
    for module, name in names.items():
        if module not in buffers:
            buffers[module] = _buffers(scheme, name, module.weight)
    return buffers, fused


def _buffers(scheme: Scheme, name: str, weight: Tensor) -> QuantizedWeight:
    try:
        return quantized(scheme, weight.detach())
    except FloatingPointError:
        raise ArgumentValueError(f"{name}.weight", weight, "finite to be quantised") from None
    except RuntimeError as error:
        if "memory" not in str(error):
            raise
        message = f"there is no memory for {name} in {scheme.name}; the model is as before"
        raise MemoryError(message) from error


def _install(module: Any, scheme: Scheme, quantized_weight: QuantizedWeight) -> None:
    """Gives a projection its buffers and the class that uses them."""
    weight, kind = module.weight, type(module)
    module.quantized_from = Origin(
        kind, source_of(weight), scheme.name, quantized_weight.error, weight.nbytes, scheme.levels
    )
    module.__class__ = scheme.target(kind)
    module.register_buffer(WEIGHT, quantized_weight.integers, persistent=False)
    module.register_buffer(SCALE, quantized_weight.scales, persistent=False)
    vars(module).pop("_packed", None)  # packed again after `undo_quantization`


def _drop_weights(model: nn.Module, modules: Sequence[Any], fused: Sequence[Joined]) -> None:
    """Replaces weights that quantised projections alone use by empty ones on the meta device.

    Args:
        model: with other modules.
        modules: the quantised ones.
        fused: modules with one product for several of them.
    """
    others = [module for module in model.modules() if not isinstance(module, Quantized)]
    used = {id(parameter) for module in others for parameter in module._parameters.values()}
    for module in modules:
        if id(module.weight) not in used:
            empty = torch.empty_like(module.weight, device="meta")
            module.weight = nn.Parameter(empty, requires_grad=False)
            module.weight_moved()
    for joined in fused:  # so that a weight which is assigned later is seen, as before
        joined.relink()
