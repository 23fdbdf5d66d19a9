"""Weights that torchao quantised, as transformers writes them to safetensors; torchao is not needed.

A quantised weight is several tensors in the file, such as `a.b._weight_qdata` and `a.b._weight_scale` of
`a.b.weight`, and an entry of the header under its name: a JSON object with the class, the attributes and the
names of the parts. minitx reads the two classes whose integers are stored one by one, and dequantises them:
(q - zero point) * scale, rounded to the dtype that the weight had.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from minitx.checkpoint.files import Tensors

# Classes with one integer in each int8, of 8 bits or fewer
READ = ("Int8Tensor", "IntxUnpackedToInt8Tensor")
_PLAIN = "Tensor"
_REQUIRED, _OPTIONAL = {"qdata", "scale"}, {"zero_point"}
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_ACTIVATIONS = ("act_quant_kwargs", "activation_quantization")


@dataclass(frozen=True)
class Quantized:
    """One quantised weight.

    Attributes:
        parts: "qdata", "scale" and, if it has one, "zero_point" -> name in the file.
        blocks: along each dimension, how many values share a scale.
        dtype: of the weight.
        activations: whether the inputs of its projection are quantised too, where torchao runs it.
    """

    parts: Mapping[str, str]
    blocks: tuple[int, ...]
    dtype: torch.dtype
    activations: bool

    def dequantize(self, qdata: Tensor, scale: Tensor, zero_point: Tensor | None) -> Tensor:
        """Returns the weight; the integers have its shape, the others one value for each block."""
        counts = [size // block for size, block in zip(qdata.shape, self.blocks, strict=True)]
        split = [n for pair in zip(counts, self.blocks, strict=True) for n in pair]
        shared = [n for count in counts for n in (count, 1)]
        values = qdata.to(self.dtype).view(split)
        if zero_point is not None:
            values = values - zero_point.to(self.dtype).view(shared)
        return (values * scale.view(shared)).view(qdata.shape).to(self.dtype)  # a scale may be wider


@dataclass
class TorchaoTensors(Tensors):
    """Tensors of a checkpoint, those that torchao quantised dequantised when they are read.

    Attributes:
        stored: the tensors of the files.
        quantized: name of a weight -> how it is stored.
    """

    stored: Tensors = field(default_factory=Tensors)
    quantized: dict[str, Quantized] = field(default_factory=dict)

    def read(self, name: str, *, mapped: bool = True) -> Tensor:
        """Returns a tensor; the arguments and errors are those of `Tensors.read`."""
        if name not in self.quantized:
            return self.stored.read(name, mapped=mapped)
        weight = self.quantized[name]
        parts = {part: self.stored.read(stored, mapped=False) for part, stored in weight.parts.items()}
        return weight.dequantize(parts["qdata"], parts["scale"], parts.get("zero_point"))


def with_torchao(tensors: Tensors) -> Tensors:
    """Returns tensors with torchao's weights in place of their parts; other tensors stay.

    Raises:
        ValueError: a class of torchao that minitx does not read, or a damaged entry of the header.
    """
    described = {name: entry for name, text in tensors.metadata.items() if (entry := _entry(text))}
    if not described:
        return tensors
    quantized = {
        name: _quantized(tensors, name, entry)
        for name, entry in described.items()
        if entry["_type"] != _PLAIN
    }
    parts = {stored for weight in quantized.values() for stored in weight.parts.values()}
    merged = TorchaoTensors(folder=tensors.folder, mapped=tensors.mapped, stored=tensors, quantized=quantized)
    merged.shapes = {name: shape for name, shape in tensors.shapes.items() if name not in parts}
    merged.files = {name: file for name, file in tensors.files.items() if name not in parts}
    for name, weight in quantized.items():
        qdata = weight.parts["qdata"]
        merged.shapes[name] = tensors.shapes[qdata].to(weight.dtype)
        merged.files[name] = tensors.files[qdata]
    kept = {*tensors.metadata} - {*described, "tensor_names"}
    merged.metadata = {name: tensors.metadata[name] for name in sorted(kept)}
    return merged


def _entry(text: str) -> dict[str, Any] | None:
    """Returns an entry of torchao; None for any other text of the header."""
    if not text.startswith("{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and isinstance(value.get("_type"), str) else None


def _quantized(tensors: Tensors, name: str, entry: Mapping[str, Any]) -> Quantized:
    """Returns how a weight is stored, checked against the tensors."""

    def _error(reason: str) -> ValueError:
        return ValueError(f"{tensors.folder}: {name} is a {entry['_type']} of torchao, {reason}.")

    if entry["_type"] not in READ:
        raise _error(f"which minitx does not read; it reads {' and '.join(READ)}")
    data, listed = entry.get("_data"), entry.get("_tensor_data_names")
    if not isinstance(data, dict) or not isinstance(listed, list) or not {*map(str, listed)} >= _REQUIRED:
        raise _error("whose entry in the header is damaged")
    if further := sorted({*map(str, listed)} - _REQUIRED - _OPTIONAL):
        raise _error(f"with {', '.join(further)}, which minitx does not read")
    module, _, leaf = name.rpartition(".")
    parts = {part: f"{module}._{leaf}_{part}" for part in listed}
    if missing := [stored for stored in parts.values() if stored not in tensors.shapes]:
        raise _error(f"but the files have no {', '.join(missing)}")
    dtype = data.get("dtype")
    dtype = _DTYPES.get(str(dtype.get("_data"))) if isinstance(dtype, dict) else None
    if dtype is None:
        raise _error(f"of dtype {data.get('dtype')!r}; expected one of {', '.join(_DTYPES)}")
    blocks, shapes = data.get("block_size"), {part: tensors.shapes[stored] for part, stored in parts.items()}
    size = shapes["qdata"].shape
    if (
        not isinstance(blocks, list)
        or len(blocks) != len(size)
        or not all(type(b) is int and b > 0 and not n % b for n, b in zip(size, blocks, strict=True))
    ):
        raise _error(f"whose block_size {blocks!r} does not divide its shape {tuple(size)}")
    count = math.prod(size) // math.prod(blocks)
    if any(shape.numel() != count for part, shape in shapes.items() if part != "qdata"):
        raise _error(f"which needs {count} scales and zero points")
    if shapes["qdata"].dtype != torch.int8 or not shapes["scale"].is_floating_point():
        raise _error("whose integers must be int8, and its scales floating-point")
    activations = any(data.get(key) is not None for key in _ACTIVATIONS)
    return Quantized(parts, tuple(blocks), dtype, activations)
