"""What a quantising pass has done to a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from minitx.optimize.quantize.layers import SCALE, WEIGHT, Quantized
from minitx.validation import check_type

LEFT = "quantization_left"  # attribute of the model: name of a projection -> why it stays as it is


@dataclass(frozen=True)
class QuantizedLayer:
    """One quantised projection.

    Attributes:
        name: of the module.
        scheme: the pass, such as "int8_dynamic".
        bytes_before: of its weight.
        bytes_after: of integers and scales.
        error: relative error of the weight: norm(W - quantised W) / norm(W).
    """

    name: str
    scheme: str
    bytes_before: int
    bytes_after: int
    error: float


@dataclass(frozen=True)
class QuantizationReport:
    """The quantised projections of a model, and those that stay as they are. `print` shows it.

    Attributes:
        layers: the quantised projections.
        left: name of a projection that stays as it is -> the reason.
    """

    layers: tuple[QuantizedLayer, ...]
    left: Mapping[str, str] = field(default_factory=dict)

    @property
    def bytes_before(self) -> int:
        """Bytes of the weights of the quantised projections."""
        return sum(layer.bytes_before for layer in self.layers)

    @property
    def bytes_after(self) -> int:
        """Bytes of their integers and scales."""
        return sum(layer.bytes_after for layer in self.layers)

    def __str__(self) -> str:
        lines = []
        for scheme in dict.fromkeys(layer.scheme for layer in self.layers):
            layers = [layer for layer in self.layers if layer.scheme == scheme]
            before, after = (sum(sizes) for sizes in zip(*map(_bytes, layers), strict=True))
            worst = max(layers, key=lambda layer: layer.error)
            lines += [
                f"{scheme}: {len(layers)} projections, {before / 1e6:.1f} -> {after / 1e6:.1f} MB",
                f"  largest error of a weight: {100 * worst.error:.2f} % ({worst.name})",
            ]
        for reason, number in Counter(self.left.values()).items():
            names = [name for name, why in self.left.items() if why == reason]
            more = f" and {number - 1} more" if number > 1 else ""
            lines.append(f"as before: {names[0]}{more} ({reason})")
        return "\n".join(lines) or "no projection is quantised"


def _bytes(layer: QuantizedLayer) -> tuple[int, int]:
    return layer.bytes_before, layer.bytes_after


def quantization_report(model: nn.Module) -> QuantizationReport:
    """Returns what is quantised in a model, how far the weights are from what they were, and what stays.

    Args:
        model: any module.

    Raises:
        ArgumentTypeError: not a module.
    """
    check_type("model", model, nn.Module, "a module")
    layers = []
    for name, module in model.named_modules():
        if isinstance(module, Quantized):
            origin = module.quantized_from
            after = sum(module.get_buffer(buffer).nbytes for buffer in (WEIGHT, SCALE))
            layers.append(QuantizedLayer(name, origin.scheme, origin.bytes_before, after, origin.error))
    return QuantizationReport(tuple(layers), dict(vars(model).get(LEFT, {})))
