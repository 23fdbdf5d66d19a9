"""The passes: int8 products, weights in int8, weights in int4, and their inverse."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from minitx.optimize.applied import note_undone
from minitx.optimize.classes import Module, all_modules
from minitx.optimize.quantize.apply import quantize_model
from minitx.optimize.quantize.choice import ROUTERS
from minitx.optimize.quantize.layers import SCALE, WEIGHT, Quantized
from minitx.optimize.quantize.products import weight_levels
from minitx.optimize.quantize.report import LEFT
from minitx.optimize.quantize.schemes import int4_weights_scheme, int8_dynamic_scheme, int8_weights_scheme
from minitx.optimize.quantize.weight_only import (
    GROUP_SIZES,
    int4_weights_are_slow,
    int8_weights_are_slow,
)
from minitx.validation import ArgumentValueError, check_choice, check_type

_LOADED = "load the model again: keep_weights=False has dropped them"


def int8_dynamic(
    model: Module, *, skip: Sequence[str] = ROUTERS, head: bool = True, keep_weights: bool = True
) -> Module:
    """Lets linear projections multiply integers: weights and inputs are rounded to int8.

    Each output of a weight has a scale, and each row of the input, when it arrives. Sums of integers are
    exact, so a projection gives a row the same output alone and in a batch, bit for bit. A token reads a
    quarter of the bytes of float32; on processors with VNNI a step of decoding takes half of the time.

    Changes the class of the modules in place. Parameters, names and hooks stay, and the integers are buffers
    that are not part of `state_dict`: `save`, `undo_quantization` and copies work as before.

    Args:
        model: any module, in float32 or bfloat16 on a CPU.
        skip: names of projections that stay as they are; `*` stands for one part of a name, `**` for any
            number of parts.
        head: whether the head is quantised too. A word embedding that it shares stays as it is.
        keep_weights: False frees the weights that no other module uses; the model can then neither be saved
            nor restored.

    Returns:
        The model. `quantization_report(model)` tells what was done.

    Raises:
        ArgumentTypeError: not a module, or names that are none.
        ArgumentValueError: other dtypes, another device, a name that matches nothing, no projection to
            quantise, weights that are not finite, or a processor whose products of int8 are wrong.
        MemoryError: there is no memory for the integers. The model is as before.
    """
    return quantize_model(model, int8_dynamic_scheme(weight_levels()), skip, head, keep_weights)


def int8_weights(
    model: Module, *, skip: Sequence[str] = ROUTERS, head: bool = True, keep_weights: bool = True
) -> Module:
    """Lets linear projections read their weights in int8; inputs are multiplied in bfloat16.

    It is meant for bfloat16 models; in a float32 model, too, inputs are rounded to bfloat16, the only dtype
    for which PyTorch has a fast kernel. It reads a quarter of the bytes of float32, and is as precise as
    bfloat16; with many rows `int8_dynamic` is faster. Otherwise as `int8_dynamic`.

    Args:
        model: any module, in float32 or bfloat16 on a CPU. Weights whose number of inputs 16 does not divide
            stay as they are.
        skip: names of projections that stay as they are.
        head: whether the head is quantised too.
        keep_weights: False frees the weights that no other module uses.

    Returns:
        The model. `quantization_report(model)` tells what was done.

    Raises:
        ArgumentTypeError, ArgumentValueError, MemoryError: as in `int8_dynamic`; a processor on which the
            kernel is slower than float32.
    """
    check_fast("int8_weights", int8_weights_are_slow())
    return quantize_model(model, int8_weights_scheme(), skip, head, keep_weights)


def int4_weights(
    model: Module,
    *,
    group_size: int = 32,
    skip: Sequence[str] = ROUTERS,
    head: bool = True,
    keep_weights: bool = True,
) -> Module:
    """Lets linear projections read their weights in int4; inputs are multiplied in bfloat16.

    Each group of inputs has a scale and a zero point of its own per output. Otherwise as `int8_weights`.

    Args:
        model: any module, in float32 or bfloat16 on a CPU. Weights whose number of inputs the group size does
            not divide stay as they are.
        group_size: number of inputs that share a scale: 32, 64 or 128. Small groups are more precise, and
            take 5 bits per weight instead of 4.5 or 4.25.
        skip: names of projections that stay as they are.
        head: whether the head is quantised too.
        keep_weights: False frees the weights that no other module uses.

    Returns:
        The model. `quantization_report(model)` tells what was done.

    Raises:
        ArgumentTypeError, ArgumentValueError, MemoryError: as in `int8_dynamic`; another group size; a
            processor on which the kernel is slower than float32.
    """
    check_choice("group_size", group_size, GROUP_SIZES)
    check_fast("int4_weights", int4_weights_are_slow())
    return quantize_model(model, int4_weights_scheme(group_size), skip, head, keep_weights)


def undo_quantization(model: Module) -> Module:
    """Undoes `int8_dynamic`, `int8_weights` and `int4_weights`: projections use their own weights again.

    Args:
        model: any module.

    Returns:
        The model.

    Raises:
        ArgumentTypeError: not a module.
        ArgumentValueError: weights were dropped by `keep_weights=False`.
    """
    check_type("model", model, nn.Module, "a module")
    check_weights_kept(model)
    for module in [*all_modules(model)]:
        if isinstance(module, Quantized):
            origin = module.quantized_from
            del module.quantized_from
            for name in (WEIGHT, SCALE):
                delattr(module, name)
            module.__class__ = origin.kind  # type: ignore[assignment]
    vars(model).pop(LEFT, None)
    note_undone(model, "int8_dynamic")
    return model


def check_weights_kept(model: nn.Module) -> None:
    """Checks that no quantised projection has dropped its weight.

    Raises:
        ArgumentValueError: one has.
    """
    for name, module in model.named_modules():
        if isinstance(module, Quantized) and module.get_parameter("weight").is_meta:
            value = module.get_parameter("weight")
            raise ArgumentValueError(f"{name}.weight", value, "a weight with values", _LOADED)


def check_fast(name: str, is_slow: bool) -> None:
    """Checks that a kernel is not a slow substitute.

    Raises:
        ArgumentValueError: it is.
    """
    if is_slow:
        processor = torch.backends.cpu.get_cpu_capability()
        expected = f"one for which PyTorch has a fast kernel of {name}; here float32 is faster"
        raise ArgumentValueError("processor", processor, expected)
