"""The passes: int8 products, weights in int8, weights in int4, and their inverse."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from minitx.layers.experts import ExpertsLinear
from minitx.optimize.classes import Module
from minitx.optimize.linear import FastExpertsLinear, FastLinear
from minitx.optimize.mixed_dtypes import MixedExpertsLinear, MixedLinear
from minitx.optimize.packed import PackedExpertsLinear, PackedLinear
from minitx.optimize.quantize.layers import SCALE, WEIGHT, Origin, Quantized, source_of
from minitx.optimize.quantize.products import weight_levels
from minitx.optimize.quantize.report import LEFT
from minitx.optimize.quantize.schemes import (
    Scheme,
    int4_weights_scheme,
    int8_dynamic_scheme,
    int8_weights_scheme,
    quantized,
)
from minitx.optimize.quantize.weight_only import (
    GROUP_SIZES,
    int4_weights_are_slow,
    int8_weights_are_slow,
)
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_choice, check_flags, check_type

SMALL = 2**12  # weights below it stay as they are: a product of them is faster than rounding its input
ROUTERS = ("**.router",)  # of experts: small, and a rounded score may choose another expert
_DTYPES = (torch.float32, torch.bfloat16)
_KINDS: tuple[type[nn.Module], ...] = (
    *(nn.Linear, FastLinear, MixedLinear, PackedLinear),
    *(ExpertsLinear, FastExpertsLinear, MixedExpertsLinear, PackedExpertsLinear),
)
_LOADED = "load the model again: keep_weights=False has dropped them"


def int8_dynamic(
    model: Module, *, skip: Sequence[str] = ROUTERS, head: bool = True, keep_weights: bool = True
) -> Module:
    """Lets linear projections multiply integers: weights and inputs are rounded to int8.

    Each output of a weight has a scale, and each row of the input, when it arrives. Sums of integers are
    exact, so a projection gives a row the same output alone and in a batch, bit for bit. A float32 model
    becomes several times as fast on processors with VNNI, and a quarter of its bytes is read per token.

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
    for module in model.modules():
        if isinstance(module, Quantized):
            origin = module.quantized_from
            del module.quantized_from
            for name in (WEIGHT, SCALE):
                delattr(module, name)
            module.__class__ = origin.kind  # type: ignore[assignment]
    vars(model).pop(LEFT, None)
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
        hint = reasons[:200] or "it has no nn.Linear"
        raise ArgumentValueError("model", model, "one with projections that can be quantised", hint)
    buffers = {name: _buffers(scheme, name, module.weight) for name, module in chosen.items()}
    for name, module in chosen.items():
        integers, scales, error = buffers[name]
        weight, kind = module.weight, type(module)
        module.quantized_from = Origin(kind, source_of(weight), scheme.name, error, weight.nbytes)
        module.__class__ = scheme.target(kind)
        module.register_buffer(WEIGHT, integers, persistent=False)
        module.register_buffer(SCALE, scales, persistent=False)
        vars(module).pop("_packed", None)  # packed again after `undo_quantization`
    vars(model)[LEFT] = left
    if not keep_weights:
        _drop_weights(model, list(chosen.values()))
    return model


@torch.inference_mode(False)
@torch.no_grad()
def _buffers(scheme: Scheme, name: str, weight: Tensor) -> tuple[Tensor, Tensor, float]:
    try:
        return quantized(scheme, weight.detach())
    except FloatingPointError:
        raise ArgumentValueError(f"{name}.weight", weight, "finite to be quantised") from None
    except RuntimeError as error:
        if "memory" not in str(error):
            raise
        message = f"there is no memory for {name} in {scheme.name}; the model is as before"
        raise MemoryError(message) from error


def _drop_weights(model: nn.Module, modules: Sequence[Any]) -> None:
    """Replaces weights that quantised projections alone use by empty ones on the meta device."""
    others = [module for module in model.modules() if not isinstance(module, Quantized)]
    used = {id(parameter) for module in others for parameter in module._parameters.values()}
    for module in modules:
        if id(module.weight) not in used:
            empty = torch.empty_like(module.weight, device="meta")
            module.weight = nn.Parameter(empty, requires_grad=False)
            module.quantized_from = Origin(**{**vars(module.quantized_from), "source": source_of(empty)})


# --- choice ------------------------------------------------------------------------------------------


def choose(
    model: nn.Module, scheme: Scheme, skip: Sequence[str], head: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the projections to quantise by name, and why the others stay as they are.

    Projections that are quantised already stay so.

    Raises:
        ArgumentTypeError: names that are none.
        ArgumentValueError: a pattern that matches nothing; dtypes and devices without kernels.
    """
    projections = dict(_projections(model))
    skipped = matching(projections, skip)
    chosen, left = {}, {}
    for name, module in projections.items():
        weight = module.weight
        if name in skipped:
            left[name] = "skip"
        elif not head and f".{name}".startswith(".head."):
            left[name] = "head=False"
        elif type(module) not in _KINDS:
            left[name] = f"its class, {type(module).__name__}"
        elif type(weight) not in (Tensor, nn.Parameter) or weight.layout != torch.strided:
            left[name] = "a weight of another form"
        elif weight[0].numel() < SMALL and weight.numel() < SMALL:
            left[name] = f"fewer than {SMALL} weights"
        elif weight.shape[-1] == 1:
            left[name] = "a single input, for which PyTorch's products of int8 are wrong"
        elif weight.shape[-1] % scheme.divisor:
            left[name] = f"{weight.shape[-1]} inputs, not a multiple of {scheme.divisor}"
        else:
            check_kernel(name, weight)
            chosen[name] = module
    return chosen, left


def _projections(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | ExpertsLinear) and not isinstance(module, Quantized):
            yield name, module


def check_kernel(name: str, weight: Tensor) -> None:
    """Checks that there are kernels for a weight.

    Raises:
        ArgumentValueError: another dtype or device.
    """
    if weight.dtype not in _DTYPES:
        hint = "convert the model with model.float() or model.bfloat16(), or name the projection in skip="
        raise ArgumentValueError(f"{name}.weight", weight.dtype, "float32 or bfloat16", hint)
    if not weight.is_cpu:
        hint = "the kernels for int8 and int4 are those of the CPU"
        raise ArgumentValueError(f"{name}.weight", weight.device, "on the CPU", hint)


def matching(names: dict[str, Any], patterns: Sequence[str]) -> set[str]:
    """Returns the names that one of the patterns matches.

    Args:
        names: of projections.
        patterns: `*` stands for one part of a name, `**` for any number of parts.

    Raises:
        ArgumentTypeError: not a sequence of strings.
        ArgumentValueError: a pattern that matches nothing.
    """
    listed = isinstance(patterns, Sequence) and not isinstance(patterns, str)
    if not listed or not all(isinstance(pattern, str) for pattern in patterns):
        raise ArgumentTypeError("skip", patterns, 'names of projections, such as ["**.head.projection"]')
    wild = {"**.": r"(?:.*\.)?", ".**": r"(?:\..*)?", "**": ".*", "*": r"[^.]+"}
    found: set[str] = set()
    for pattern in patterns:
        parts = re.split(r"(\*\*\.|\.\*\*|\*\*|\*)", pattern)
        expression = re.compile("".join(wild.get(part) or re.escape(part) for part in parts))
        matches = {name for name in names if expression.fullmatch(name)}
        if not matches and pattern not in ROUTERS:
            hint = f"it has {', '.join([*names][:3])}, ..." if names else "it has none"
            raise ArgumentValueError("skip", pattern, "a pattern that matches projections of the model", hint)
        found |= matches
    return found
