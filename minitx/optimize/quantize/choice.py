"""Which projections of a model a pass quantises, and why the others stay as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from minitx.layers.experts import ExpertsLinear
from minitx.optimize.linear import FastExpertsLinear, FastLinear
from minitx.optimize.mixed_dtypes import MixedExpertsLinear, MixedLinear
from minitx.optimize.packed import PackedExpertsLinear, PackedLinear
from minitx.optimize.quantize.layers import Quantized
from minitx.optimize.quantize.schemes import Scheme
from minitx.validation import ArgumentTypeError, ArgumentValueError

SMALL = 2**12  # weights below it stay as they are: a product of them is faster than rounding its input
ROUTERS = ("**.router",)  # of experts: small, and a rounded score may choose another expert
_DTYPES = (torch.float32, torch.bfloat16)
_KINDS: tuple[type[nn.Module], ...] = (
    *(nn.Linear, FastLinear, MixedLinear, PackedLinear),
    *(ExpertsLinear, FastExpertsLinear, MixedExpertsLinear, PackedExpertsLinear),
)


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
        ArgumentValueError: another dtype or device, or a weight made in inference mode.
    """
    if weight.dtype not in _DTYPES:
        hint = "convert the model with model.float() or model.bfloat16(), or name the projection in skip="
        raise ArgumentValueError(f"{name}.weight", weight.dtype, "float32 or bfloat16", hint)
    if not weight.is_cpu:
        hint = "the kernels for int8 and int4 are those of the CPU"
        raise ArgumentValueError(f"{name}.weight", weight.device, "on the CPU", hint)
    if weight.is_inference():
        hint = "load the model outside torch.inference_mode(): PyTorch does not count changes of such weights"
        raise ArgumentValueError(f"{name}.weight", weight, "made outside inference mode", hint)


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
