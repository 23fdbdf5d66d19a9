"""Arrays as the page reads them: deflated, in base64, in less precision where a page would be too large."""

from __future__ import annotations

import base64
import ctypes
import sys
import zlib
from typing import Any, Literal

import torch
from torch import Tensor

Precision = Literal["f32", "f16", "u8", "u6", "u4"]
VALUES = {"u8": 256, "u6": 64, "u4": 16}  # that a number can have


def pack(values: Tensor, precision: Precision = "f32") -> dict[str, Any]:
    """Returns an array for the page.

    Args:
        values: float or integer, of at least one element; of two dimensions at least for "u8" to "u4".
        precision: "f32"; "f16"; or "u8", "u6" or "u4", 256, 64 or 16 values from the smallest to the largest
            one of each matrix of the last two dimensions, so that the largest error of "u8" is 1/510 of their
            distance.

    Returns:
        "precision", "shape" and "data", in base64; of "u8" to "u4", "low" and "step", one float32 for each
        matrix.
    """
    values = values.detach().cpu().float()
    packed: dict[str, Any] = {"precision": precision, "shape": list(values.shape)}
    if precision in VALUES:
        low = values.amin(dim=(-2, -1), keepdim=True)
        step = (values.amax(dim=(-2, -1), keepdim=True) - low) / (VALUES[precision] - 1)
        levels = ((values - low) / step.clamp(min=1e-30)).round().to(torch.uint8)
        return {**packed, "low": pack(low)["data"], "step": pack(step)["data"], "data": _encoded(levels)}
    return {**packed, "data": _encoded(values.half() if precision == "f16" else values)}


def unpack(packed: dict[str, Any]) -> Tensor:
    """Returns the float32 values of a packed array, as the page has them."""
    shape = packed["shape"]
    if packed["precision"] in VALUES:
        levels = _decoded(packed["data"], torch.uint8, shape)
        low, step = (_decoded(packed[name], torch.float32, [*shape[:-2], 1, 1]) for name in ("low", "step"))
        return levels.float() * step + low
    dtype = torch.float16 if packed["precision"] == "f16" else torch.float32
    return _decoded(packed["data"], dtype, shape).float()


def size_of(packed: Any) -> int:
    """Returns the number of characters of all arrays in a part of the page's data."""
    if isinstance(packed, dict):
        return sum(map(size_of, packed.values()))
    if isinstance(packed, list):
        return sum(map(size_of, packed))
    return len(packed) if isinstance(packed, str) else 0


def _encoded(values: Tensor) -> str:
    values = values.contiguous()
    size = values.numel() * values.element_size()
    content = ctypes.string_at(values.data_ptr(), size)
    width = values.element_size()
    if sys.byteorder == "big":  # the page reads little-endian numbers
        content = b"".join(content[i : i + width][::-1] for i in range(0, len(content), width))
    return base64.b64encode(zlib.compress(content, 9)).decode()


def _decoded(text: str, dtype: torch.dtype, shape: list[int]) -> Tensor:
    content = bytearray(zlib.decompress(base64.b64decode(text)))
    return torch.frombuffer(content, dtype=dtype).view(shape)
