"""Products in bfloat16 in a model in float32, on processors that have instructions for them.

A decoding step takes the time of reading the weights, which in bfloat16 is half. The parameters stay as they
are, so that the model is saved as it was loaded and the pass is undone exactly: each projection keeps a copy
of its weight in bfloat16, in the order in which oneDNN reads it, rounds its input to bfloat16, and returns
float32. oneDNN sums in float32. Norms, attention and the sums of residual connections stay in float32, so
less is rounded than in a model whose parameters are in bfloat16.

`model.bfloat16()`, or `minitx.load(..., dtype=torch.bfloat16)`, converts the parameters instead: such a model
takes a third of the memory, and `pack_weights` serves it too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from minitx.optimize.applied import note_undone
from minitx.optimize.classes import Module, change_classes
from minitx.optimize.linear import CLEARLY, FastLinear, measure
from minitx.optimize.packed import Packed, PackedLinear, change_and_pack, has_packed, product
from minitx.validation import ArgumentValueError, check_type

_MEASURING = Lock()


class PackedBfloat16(Packed):
    """The packed copy of one weight, rounded to bfloat16."""

    narrow: ClassVar[bool] = True

    def pack(self, weight: Tensor) -> Tensor:
        """Returns a copy of a weight: (outputs, inputs) -> (outputs, inputs)."""
        return super().pack(weight.to(torch.bfloat16))

    def multiply(
        self, x: Tensor, copy: Tensor, bias: Tensor | None, activation: tuple[str, str] = ("none", "")
    ) -> Tensor:
        """Returns x W^T + b, or an activation of it, in float32.

        (..., inputs), (outputs, inputs), (outputs) -> (..., outputs)
        """
        rounded, inner = x.to(torch.bfloat16), activation[0] != "none"
        narrow = bias.to(torch.bfloat16) if inner and bias is not None else None
        y = super().multiply(rounded, copy, narrow, activation)
        return y.to(x.dtype) if inner or bias is None else torch.add(y, bias)


class Bfloat16Linear(PackedLinear):
    """nn.Linear in float32 whose product is in bfloat16; prints as nn.Linear."""

    @property
    def packed(self) -> Packed:
        """The copy of the weight."""
        copy: Packed = vars(self).setdefault("_packed", PackedBfloat16())
        return copy


# The classes that are converted, or are it already
NARROWED = (nn.Linear, FastLinear, PackedLinear, Bfloat16Linear)


def bfloat16_weights(model: Module) -> Module:
    """Computes linear projections of a float32 model in bfloat16; parameters stay as they are.

    Changes the class of the modules in place; names and hooks stay, and `minitx.save` writes the parameters
    as they are. Where gradients are recorded, and for inputs that are not float32 on a CPU, the products are
    those of `fast_linear`. A copy is made again when its parameter changes.

    Exactness: inputs, weights and outputs of projections are rounded to bfloat16, to 3 significant digits.
    Cost: copies of half of the size of the weights.

    Args:
        model: any module, in float32 on a CPU; only `nn.Linear` itself is changed, not its subclasses nor
            experts. Small weights stay as they are.

    Returns:
        The model.

    Raises:
        ArgumentTypeError: not a module.
        ArgumentValueError: a processor for which oneDNN has no products in bfloat16, or a model without a
            large weight in float32 on a CPU.
        RuntimeError: there is no memory for the copies. The model is as before.
    """
    check_type("model", model, nn.Module, "a module")
    if not has_packed(torch.bfloat16):
        processor = torch.backends.cpu.get_cpu_capability()
        expected = "one for which oneDNN has products in bfloat16"
        raise ArgumentValueError("processor", processor, expected)
    return change_and_pack(model, _bfloat16_class, "one with large weights in float32 on a CPU")


def _bfloat16_class(module: Any) -> type[nn.Module] | None:
    """Returns the class of a module that computes in bfloat16; None if it stays as it is."""
    chosen = type(module) in NARROWED and module.weight.dtype == torch.float32
    return Bfloat16Linear if chosen else None


def undo_bfloat16_weights(model: Module) -> Module:
    """Undoes `bfloat16_weights`: drops the copies. Returns the model.

    Raises:
        ArgumentTypeError: not a module.
    """
    change_classes(model, {Bfloat16Linear: FastLinear}.get)
    note_undone(model, "bfloat16_weights")
    return model


def bfloat16_is_faster() -> bool:
    """Whether products in bfloat16 are clearly faster than in float32 on this machine.

    Measured once in a process, in some ten milliseconds, for eight rows with packed weights.
    """
    with _MEASURING:
        return _bfloat16_is_faster()


@cache
def _bfloat16_is_faster() -> bool:
    if not (has_packed(torch.bfloat16) and has_packed(torch.float32)):
        return False
    copies: dict[type[Packed], Packed] = {Packed: Packed(), PackedBfloat16: PackedBfloat16()}

    def _product(kind: type[Packed]) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
        return lambda x, weight, bias: product(x, weight, bias, copies[kind])

    wide, narrow = measure(_product(Packed), _product(PackedBfloat16), rows=8, size=2048)
    return narrow * CLEARLY < wide
