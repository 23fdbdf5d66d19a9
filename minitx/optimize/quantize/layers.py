"""The classes of quantised projections: buffers beside the parameters, which stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from minitx.layers.experts import ExpertsLinear
from minitx.optimize.classes import TracksWeight, WeightIdentity
from minitx.optimize.quantize.products import check_levels, int8_linear
from minitx.optimize.quantize.weight_only import int4_weight_linear, int8_weight_linear
from minitx.validation import ArgumentValueError

WEIGHT, SCALE = "quantized_weight", "quantized_scale"  # the buffers
_AGAIN = "call minitx.optimize.quantize.undo_quantization(model), change it, and quantise it again"
_COPY = "copy the model outside torch.inference_mode(), in which PyTorch counts no changes of weights"


@dataclass(frozen=True)
class Origin:
    """What a projection was before it was quantised.

    Attributes:
        kind: of its class before.
        source: identifies the weight and its values, as `source_of` returns it.
        scheme: name of the pass, such as "int8_dynamic".
        error: relative error of the weight: norm(W - quantised W) / norm(W).
        bytes_before: of the weight.
        levels: largest magnitude of the integers that products multiply; None for those of other passes.
    """

    kind: type[nn.Module]
    source: WeightIdentity
    scheme: str
    error: float
    bytes_before: int
    levels: int | None = None


def source_of(weight: Tensor) -> WeightIdentity:
    """Returns what tells whether a weight was replaced, converted, moved or changed in place."""
    return WeightIdentity(weight)


class Quantized(TracksWeight, nn.Module):
    """Base of quantised projections; they print as the class that they take the place of."""

    quantized_from: Origin

    def own_dtype(self, x: Tensor) -> torch.dtype:
        """Returns the dtype of the parameters, after it has checked that they are those that were quantised.

        Args:
            x: the input.

        Raises:
            ArgumentValueError: the weight has changed since, or gradients are recorded.
        """
        weight = cast(Tensor, self._parameters["weight"])
        if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
            expected = "one without quantised projections where gradients are recorded"
            hint = "run it in torch.inference_mode(), or undo_quantization(model) before training"
            raise ArgumentValueError("model", self, expected, hint)
        if not (torch.compiler.is_compiling() or self.quantized_from.source.is_of(weight)):
            expected = "the one that was quantised, in its dtype and on its device"
            raise ArgumentValueError("weight", weight, expected, _COPY if weight.is_inference() else _AGAIN)
        return weight.dtype

    def is_current(self) -> bool:
        """Whether the integers belong to the weight as it is."""
        return self.quantized_from.source.is_of(cast(Tensor, self._parameters["weight"]))

    def weight_moved(self) -> None:
        """Notes that a current weight lies in other memory now, with the same values."""
        source = source_of(cast(Tensor, self._parameters["weight"]))
        self.quantized_from = replace(self.quantized_from, source=source)

    def change_former_class(self, choose: Callable[[Any], type[nn.Module] | None]) -> None:
        """Changes the class that `undo_quantization` gives back; None: it stays."""
        if kind := choose(self.quantized_from.kind):
            self.quantized_from = replace(self.quantized_from, kind=kind)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Converts the parameters alone, as `to` and `half` do: the scales have the dtype of the kernel."""
        kept = {name: self._buffers.pop(name) for name in (WEIGHT, SCALE)}
        try:
            return super()._apply(fn, recurse)  # type: ignore[no-any-return, no-untyped-call]
        finally:
            self._buffers.update(kept)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_is_current": self.is_current()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        is_current = state.pop("_is_current")
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if self.quantized_from.levels is not None:
            check_levels(self.quantized_from.levels)
        if is_current:
            self.weight_moved()


class Int8Linear(Quantized, nn.Linear):
    """nn.Linear by products of int8; prints as nn.Linear."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)"""
        dtype, buffers = self.own_dtype(x), cast(dict[str, Tensor], self._buffers)
        return int8_linear(x, buffers[WEIGHT], buffers[SCALE], self.bias, dtype)


class Int8ExpertsLinear(Quantized, ExpertsLinear):
    """ExpertsLinear by products of int8; prints as ExpertsLinear."""

    def forward(self, x: Tensor, expert: int) -> Tensor:
        """(tokens, inputs) -> (tokens, outputs), through one expert"""
        dtype, buffers = self.own_dtype(x), cast(dict[str, Tensor], self._buffers)
        bias = None if self.bias is None else self.bias[expert]
        return int8_linear(x, buffers[WEIGHT][expert], buffers[SCALE][expert], bias, dtype)


class Int8WeightLinear(Quantized, nn.Linear):
    """nn.Linear with a weight in int8; prints as nn.Linear."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)"""
        dtype, buffers = self.own_dtype(x), cast(dict[str, Tensor], self._buffers)
        return int8_weight_linear(x, buffers[WEIGHT], buffers[SCALE], self.bias, dtype)


class Int8WeightExpertsLinear(Quantized, ExpertsLinear):
    """ExpertsLinear with weights in int8; prints as ExpertsLinear."""

    def forward(self, x: Tensor, expert: int) -> Tensor:
        """(tokens, inputs) -> (tokens, outputs), through one expert"""
        dtype, buffers = self.own_dtype(x), cast(dict[str, Tensor], self._buffers)
        bias = None if self.bias is None else self.bias[expert]
        return int8_weight_linear(x, buffers[WEIGHT][expert], buffers[SCALE][expert], bias, dtype)


class Int4WeightLinear(Quantized, nn.Linear):
    """nn.Linear with a weight in int4; prints as nn.Linear."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)"""
        dtype, buffers = self.own_dtype(x), cast(dict[str, Tensor], self._buffers)
        outputs = len(self.weight)
        return int4_weight_linear(x, buffers[WEIGHT], buffers[SCALE], self.bias, dtype, outputs)


class Int4WeightExpertsLinear(Quantized, ExpertsLinear):
    """ExpertsLinear with weights in int4; prints as ExpertsLinear."""

    def forward(self, x: Tensor, expert: int) -> Tensor:
        """(tokens, inputs) -> (tokens, outputs), through one expert"""
        dtype, buffers = self.own_dtype(x), cast(dict[str, Tensor], self._buffers)
        bias, outputs = None if self.bias is None else self.bias[expert], self.weight.shape[1]
        return int4_weight_linear(x, buffers[WEIGHT][expert], buffers[SCALE][expert], bias, dtype, outputs)
