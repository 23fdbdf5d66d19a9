"""Checksums of tensors: whether a run resumes with the data and the frozen parameters of its beginning."""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by size in bytes


def tensor_checksum(tensor: Tensor) -> int:
    """Returns a checksum of the shape, the dtype and the values, the same on every device.

    The values of each row are added as integers, so that few numbers come from a device.

    Args:
        tensor: of a dtype of 1, 2, 4 or 8 bytes.
    """
    tensor = tensor.detach().contiguous()
    sums = tensor.view(_INTEGERS[tensor.element_size()]).sum(dim=-1, dtype=torch.int64)
    return _checksum(tensor, sums)


def batch_checksum(batch: Mapping[str, Tensor]) -> int:
    """Returns a checksum of the tensors of a batch, with all their values, and of their names."""
    parts = [f"{name} {_checksum(x, x)}" for name, x in sorted(batch.items())]
    return zlib.crc32(" ".join(parts).encode())


def _checksum(tensor: Tensor, values: Tensor) -> int:
    """Returns a checksum of the shape and dtype of a tensor, and of values."""
    values = values.detach().cpu().contiguous()
    content = ctypes.string_at(values.data_ptr(), values.nbytes) if values.numel() else b""
    return zlib.crc32(content, zlib.crc32(f"{tensor.dtype} {tuple(tensor.shape)}".encode()))
