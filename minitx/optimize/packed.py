"""Linear projections whose weights lie in memory in the order in which oneDNN reads them.

A product with few rows takes the time of reading its weight. oneDNN reads a weight in blocks; from a plain
matrix it gathers them at every call. A packed copy of each weight, made once, is read at the full bandwidth
of the memory: on two cores of an AMD EPYC, products of 2 to 32 rows take half to three quarters of their
time in float32 and half in bfloat16, so that a step over eight sequences, or over the draft of a speculative
decoder, costs little more than one over a single token. Products with many rows gain about 8 %.

The copies take as much memory as the weights. Parameters stay as they are, and a copy is made again when its
parameter changes. Weights made in inference mode are not packed: PyTorch does not count their changes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import cache
from threading import Lock
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from minitx.layers.experts import ExpertsLinear
from minitx.optimize.applied import note_undone
from minitx.optimize.classes import (
    InPlaceOf,
    Module,
    WeightIdentity,
    all_modules,
    change_classes,
    set_class,
    working_modules,
)
from minitx.optimize.linear import (
    LARGE,
    FastExpertsLinear,
    FastLinear,
    is_left_to_operator,
    linear,
    measure,
    onednn,
)
from minitx.validation import ArgumentValueError, check_type, is_transformed, values_unavailable

_MEASURING = Lock()
_ROWS = 64  # for which a weight is packed; its order serves every number of rows


class Packed:
    """The packed copy of one weight. Copies and pickles of it are empty, and packed at their first use."""

    narrow: ClassVar[bool] = False  # whether the copy is in bfloat16, whatever the dtype of the weight

    def __init__(self) -> None:
        self._source = WeightIdentity()
        self._copy: Tensor | None = None

    def of(self, weight: Tensor, owner: Tensor | None = None) -> Tensor | None:
        """Returns the copy, made again if the weight is another or was changed in place.

        Args:
            weight: (outputs, inputs).
            owner: the parameter of which it is a view; None: itself.

        Returns:
            (outputs, inputs), opaque to other operations than oneDNN's; None if it cannot be packed.
        """
        if not self._source.is_of(weight, owner):
            packable = can_be_packed(weight)
            self._copy = self.pack(weight.detach()) if packable else None
            self._source = WeightIdentity(weight, owner)
            if packable and owner is None:
                _AT[weight.data_ptr(), self.narrow] = self
        return self._copy

    @property
    def weight(self) -> Tensor | None:
        """The parameter of which this is a copy, (outputs, inputs); None: it is no longer there."""
        return self._source.owner

    def pack(self, weight: Tensor) -> Tensor:
        """Returns a copy of a weight: (outputs, inputs) -> (outputs, inputs)."""
        copy: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
        return copy

    def multiply(
        self, x: Tensor, copy: Tensor, bias: Tensor | None, activation: tuple[str, str] = ("none", "")
    ) -> Tensor:
        """Returns x W^T + b, or an activation of it, by the copy.

        (..., inputs), (outputs, inputs), (outputs) -> (..., outputs)
        """
        return onednn(x, copy, bias, *activation)

    def __deepcopy__(self, memo: dict[int, Any]) -> Packed:
        return type(self)()

    def __reduce__(self) -> tuple[type[Packed], tuple[()]]:
        return type(self), ()


# By the address of the weight, and `narrow`
_AT: WeakValueDictionary[tuple[int, bool], Packed] = WeakValueDictionary()


class PackedLinear(FastLinear):
    """nn.Linear with a packed copy of its weight; prints as nn.Linear."""

    @property
    def packed(self) -> Packed:
        """The copy of the weight."""
        copy: Packed = vars(self).setdefault("_packed", Packed())
        return copy

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)"""
        return product(x, self.weight, self.bias, self.packed)

    def activated(self, x: Tensor, activation: tuple[str, str]) -> Tensor | None:
        """See `FastLinear.activated`: (..., inputs) -> (..., outputs)."""
        copy = copy_for(x, self.weight, self.bias, self.packed)
        return None if copy is None else self.packed.multiply(x, copy, self.bias, activation)


class PackedExpertsLinear(InPlaceOf, ExpertsLinear):
    """ExpertsLinear with a packed copy of each expert's weight; prints as ExpertsLinear."""

    @property
    def packed(self) -> list[Packed]:
        """The copy of each expert's weight."""
        copies: list[Packed] | None = vars(self).get("_packed")
        if copies is None:
            copies = vars(self)["_packed"] = [Packed() for _ in range(len(self.weight))]
        return copies

    def forward(self, x: Tensor, expert: int) -> Tensor:
        """(tokens, inputs) -> (tokens, outputs), through one expert"""
        weight, bias = self.weight[expert], None if self.bias is None else self.bias[expert]
        return product(x, weight, bias, self.packed[expert], self.weight)


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: PackedLinear,
    FastLinear: PackedLinear,
    ExpertsLinear: PackedExpertsLinear,
    FastExpertsLinear: PackedExpertsLinear,
}
_BEFORE: dict[type[nn.Module], type[nn.Module]] = {
    PackedLinear: FastLinear,
    PackedExpertsLinear: FastExpertsLinear,
}
PACKED = frozenset((*_CLASSES, *_BEFORE))  # the classes that are packed, or are it already


def pack_weights(model: Module) -> Module:
    """Packs a copy of the weight of every linear projection in the order in which oneDNN reads it.

    Changes the class of the modules in place; parameters, names and hooks stay. Outputs have the same
    precision, with sums in another order. Where gradients are recorded, and for inputs that oneDNN does not
    take, the products are those of `fast_linear`.

    Args:
        model: any module, in float32 or bfloat16 on a CPU; only `nn.Linear` itself and experts are changed,
            not their subclasses. Small weights stay as they are, and those made in inference mode.

    Returns:
        The model.

    Raises:
        ArgumentTypeError: not a module.
        ArgumentValueError: a model without a weight that can be packed: other dtypes, another device.
        RuntimeError: there is no memory for the copies. The model is as before.
    """
    expected = "one with large weights in float32 or bfloat16 on a CPU, for which oneDNN has products"
    return change_and_pack(model, _packed_class, expected, "not made in inference mode")


def _packed_class(module: nn.Module) -> type[nn.Module] | None:
    """Returns the class of a packed module: its own if it is packed already; None if it is not packed."""
    is_packed = isinstance(module, PackedLinear | PackedExpertsLinear)
    return type(module) if is_packed else _CLASSES.get(type(module))


def change_and_pack(
    model: Module, choose: Callable[[Any], type[nn.Module] | None], expected: str, hint: str = ""
) -> Module:
    """Changes the classes of modules in place and packs their weights: all, or none if anything fails.

    Args:
        model: any module.
        choose: returns the class of a module, its own if it has it already; None: the module stays as it is.
        expected: what a model without a weight that can be packed should have been, for the error.
        hint: likewise.

    Returns:
        The model.

    Raises:
        ArgumentTypeError: not a module.
        ArgumentValueError: a model without a weight that can be packed.
    """
    check_type("model", model, nn.Module, "a module")
    chosen = {module: kind for module in all_modules(model) if (kind := choose(module))}
    before = {module: type(module) for module in chosen}
    for module, kind in chosen.items():
        vars(module).pop("_packed", None)  # which may be of values that were written through `parameter.data`
        set_class(module, kind)
    try:  # the parts of a fused projection are packed if they are used
        if not sum(_pack(module) for module in working_modules(model) if module in chosen):
            raise ArgumentValueError("model", model, expected, hint)
    except Exception:
        for module, kind in before.items():
            set_class(module, kind)
        raise
    note_undone(model, "screen_head")  # whose copies were dropped
    return model


def undo_pack_weights(model: Module) -> Module:
    """Undoes `pack_weights`: drops the copies. Returns the model.

    Raises:
        ArgumentTypeError: not a module.
    """
    change_classes(model, _BEFORE.get)
    for name in ("screen_head", "pack_weights"):
        note_undone(model, name)
    return model


def has_weights_to_pack(model: nn.Module, kinds: Collection[type[nn.Module]] = PACKED) -> bool:
    """Whether a module has a large weight, of a projection of some classes, that oneDNN packs.

    Args:
        model: any module.
        kinds: the classes; without them those that `pack_weights` takes.
    """
    modules: Iterator[Any] = working_modules(model)
    weights = (module.weight for module in modules if type(module) in kinds)
    return any(can_be_packed(w[0] if w.dim() > 2 else w) for w in weights)


def packed_is_faster(dtype: torch.dtype = torch.float32) -> bool:
    """Whether products with packed weights are clearly faster on this machine.

    Measured once in a process and dtype, in some ten milliseconds, for eight rows on one thread.

    Args:
        dtype: float32 or bfloat16.
    """
    if not has_packed(dtype):
        return False
    with _MEASURING:  # threads that ask at once wait for one measurement
        return _packed_is_faster(dtype)


@cache
def _packed_is_faster(dtype: torch.dtype) -> bool:
    packed = Packed()

    def _packed_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return product(x, weight, bias, packed)

    plain, faster = measure(linear, _packed_product, rows=8, dtype=dtype, size=2048)
    return faster * 1.1 < plain


def product(
    x: Tensor, weight: Tensor, bias: Tensor | None, packed: Packed, owner: Tensor | None = None
) -> Tensor:
    """Returns x W^T + b with the packed copy, or with another product where oneDNN does not take it.

    Args:
        x: (..., inputs)
        weight: (outputs, inputs)
        bias: (outputs), or None.
        packed: the copy of the weight.
        owner: the parameter of which the weight is a view; None: itself.

    Returns:
        (..., outputs)
    """
    if is_left_to_operator(x, weight, bias):
        compiled: Tensor = torch.ops.minitx.packed_linear(x, weight, bias, packed.narrow)
        return compiled
    copy = copy_for(x, weight, bias, packed, owner)
    return linear(x, weight, bias) if copy is None else packed.multiply(x, copy, bias)


def copy_for(
    x: Tensor, weight: Tensor, bias: Tensor | None, packed: Packed, owner: Tensor | None = None
) -> Tensor | None:
    """Returns the packed copy if oneDNN takes the product, and no gradient is recorded; else None.

    The arguments are those of `product`.

    Returns:
        (outputs, inputs)
    """
    if values_unavailable(x) or is_transformed() or type(x) is not Tensor or not x.is_cpu:
        return None
    copy = packed.of(weight, owner)
    plain = (
        copy is None
        or x.dtype != weight.dtype
        or x.shape[-1] != weight.shape[1]
        or x.numel() == 0
        or (bias is not None and bias.dtype != weight.dtype)
        or (torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)))
        or torch.is_autocast_enabled("cpu")
        or not torch.backends.mkldnn.enabled
    )
    return None if plain else copy


def packed_at(weight: Tensor, narrow: bool) -> tuple[Tensor, Packed] | None:
    """Returns the parameter that lies where a weight does, and its packed copy; None: it has none.

    Args:
        weight: (outputs, inputs), the parameter itself or another tensor of the same memory.
        narrow: whether the copy is in bfloat16, whatever the dtype of the weight.
    """
    packed = _AT.get((weight.data_ptr(), narrow))
    parameter = None if packed is None else packed.weight
    if packed is None or parameter is None or parameter.data_ptr() != weight.data_ptr():
        return None
    same = parameter.shape == weight.shape and parameter.dtype == weight.dtype
    return (parameter, packed) if same else None


def can_be_packed(weight: Tensor) -> bool:
    """Whether a weight is large and of a form that oneDNN packs: (outputs, inputs)."""
    return bool(
        weight.numel() >= LARGE
        and weight.is_cpu
        and type(weight) in (Tensor, nn.Parameter)
        and weight.layout == torch.strided
        and weight.is_contiguous()
        and not weight.is_inference()  # whose changes are not counted
        and has_packed(weight.dtype)
    )


def has_packed(dtype: torch.dtype) -> bool:
    """Whether oneDNN is available for a dtype on this processor."""
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.enabled:
        return False
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _pack(module: nn.Module) -> int:
    """Packs the weights of a module; returns the number of those that can be packed."""
    if isinstance(module, PackedLinear):
        return int(module.packed.of(module.weight) is not None)
    if isinstance(module, PackedExpertsLinear):
        owner = module.weight
        copies = [packed.of(weight, owner) for packed, weight in zip(module.packed, owner, strict=True)]
        return sum(copy is not None for copy in copies)
    return 0
