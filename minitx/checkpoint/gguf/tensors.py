"""The tensors of a GGUF file under the names and in the form of a Hugging Face checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from einops import EinopsError
from torch import Tensor

from minitx.checkpoint.files import Tensors, summarize
from minitx.checkpoint.gguf.changes import Change, Same
from minitx.checkpoint.gguf.dequantize import dequantize
from minitx.checkpoint.gguf.families import Family
from minitx.checkpoint.gguf.header import GgufFile, StoredTensor

_WIDEST = 8  # bytes of a value, at whose multiples a mapped tensor begins
_SUFFIXES = ("weight", "bias")
_NARROW = (torch.float16, torch.bfloat16)


class Part(NamedTuple):
    """The origin of one tensor of the checkpoint.

    Attributes:
        tensor: in the file; of experts, the bytes and the shape of one.
        change: from the file's values to the checkpoint's.
    """

    tensor: StoredTensor
    change: Change


@dataclass
class GgufTensors(Tensors):
    """The tensors of a GGUF file; a quantised one becomes float32 when it is read.

    Attributes:
        file: the open file.
        parts: name in the checkpoint -> its origin.
        heads: numbers of query and of key/value heads.
    """

    file: GgufFile | None = None
    parts: dict[str, Part] = field(default_factory=dict)
    heads: tuple[int, int] = (1, 1)

    def read(self, name: str, *, mapped: bool = True) -> Tensor:
        """Returns a tensor: float32 and float64 as they are, narrower and quantised ones as float32.

        Args:
            name: name in the checkpoint.
            mapped: map values that are stored as they are needed.

        Raises:
            ValueError: the file has become shorter since it was opened.
        """
        assert self.file is not None
        tensor, change = self.parts[name]
        values = read_plain(self.file, tensor, mapped=mapped and self.mapped and isinstance(change, Same))
        return change.apply(values, self.heads)


def read_plain(file: GgufFile, tensor: StoredTensor, *, mapped: bool = False) -> Tensor:
    """Returns the values of a tensor in the form of the file.

    Args:
        file: the open file.
        tensor: one of its tensors, or a part of one.
        mapped: map the values if they are stored as they are needed.

    Raises:
        ValueError: the file has become shorter since it was opened.
    """
    kind = tensor.kind
    if mapped and kind.is_plain and kind.dtype not in _NARROW and not tensor.begin % _WIDEST:
        data = torch.frombuffer(file.data, dtype=torch.uint8, count=tensor.nbytes, offset=tensor.begin)
    else:
        buffer = bytearray(tensor.nbytes)
        with file.path.open("rb") as stream:
            stream.seek(tensor.begin)
            if stream.readinto(buffer) < len(buffer):
                raise ValueError(f"{file.path}: ends within {tensor.name}; fetch it again.")
        data = torch.frombuffer(buffer, dtype=torch.uint8)
    values = dequantize(data, kind).view(tensor.shape)
    return values.float() if values.dtype in _NARROW else values


def checkpoint_tensors(
    file: GgufFile,
    family: Family,
    layers: int,
    heads: tuple[int, int],
    *,
    unused: tuple[str, ...],
    mapped: bool,
) -> GgufTensors:
    """Returns the tensors of a file by the names of the checkpoint, without reading one.

    Args:
        file: the open file.
        family: of its architecture.
        layers: number of layers.
        heads: numbers of query and of key/value heads.
        unused: tensors that the config has taken in.
        mapped: map values that are stored as they are needed.

    Raises:
        ValueError: a tensor that the architecture does not have, or whose shape does not fit.
    """
    tensors = GgufTensors(folder=file.path, mapped=mapped, file=file, heads=heads)
    known = set(unused)
    for name, stored, change in _parts(file, family, layers):
        known.add(stored.name)
        try:
            like = torch.empty(stored.shape, dtype=_read_dtype(stored), device="meta")
            shape = change.apply(like, heads)
        except EinopsError:
            raise ValueError(
                f"{file.path}: {stored.name} has the shape {stored.shape}, which {heads[0]} heads and "
                f"{heads[1]} key/value heads do not divide; the file is damaged."
            ) from None
        tensors.shapes[name], tensors.files[name] = shape, file.path.name
        tensors.parts[name] = Part(stored, change)
    if unknown := sorted(set(file.tensors) - known):
        raise ValueError(
            f"{file.path}: has tensors that minitx does not know for {family.model_type}: "
            f"{summarize(unknown)}."
        )
    return tensors


def _read_dtype(tensor: StoredTensor) -> torch.dtype:
    """Returns the dtype in which a tensor is read."""
    return torch.float32 if tensor.kind.dtype in _NARROW else tensor.kind.dtype


def _parts(file: GgufFile, family: Family, layers: int) -> Iterator[tuple[str, StoredTensor, Change]]:
    """Yields the tensors of the checkpoint: name, origin, and change."""
    for module in family.tensors:
        place = family.place(module)
        for layer in range(layers) if "{i}" in module else (0,):
            for suffix in _SUFFIXES:
                stored = f"{module}.{suffix}".format(i=layer, e="{e}")
                name = f"{place.name}.{suffix}"
                for tensor, expert in _experts(file, stored, stacked="{e}" in name):
                    yield name.format(i=layer, e=expert), tensor, place.change


def _experts(file: GgufFile, name: str, *, stacked: bool) -> Iterator[tuple[StoredTensor, int]]:
    """Yields the tensors of a name of the file with the expert: all parts of a stacked one, or one by one."""
    if "{e}" in name:
        for expert in range(len(file.tensors)):
            if (filled := name.format(e=expert)) not in file.tensors:
                return
            yield file.tensors[filled], expert
    elif name in file.tensors and not stacked:
        yield file.tensors[name], 0
    elif name in file.tensors:
        whole = file.tensors[name]
        size = whole.nbytes // whole.shape[0]
        if len(whole.shape) > 1 and size * whole.shape[0] == whole.nbytes:
            for expert in range(whole.shape[0]):
                begin = whole.begin + expert * size
                yield replace(whole, shape=whole.shape[1:], begin=begin, nbytes=size), expert
