"""The header of a GGUF file: metadata and the table of tensors, checked before a weight is read.

A file begins with "GGUF", the version (4 bytes), the number of tensors and the number of metadata entries
(8 bytes each). The entries follow, each a key, a type and a value; then the tensors' names, shapes, types and
offsets; then, from the next multiple of the alignment on, their values. Numbers are little-endian.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from typing import Any, NoReturn

from minitx.checkpoint.gguf.cursor import Cursor
from minitx.checkpoint.gguf.kinds import KINDS, OTHERS, Kind
from minitx.validation import ArgumentValueError

SUFFIX = ".gguf"
_MAGIC, _VERSIONS = b"GGUF", (2, 3)
_ALIGNMENT, _MOST_ALIGNMENT = 32, 2**20
_MOST_DIMENSIONS = 4  # of ggml
_LARGEST = 2**62  # bytes of a tensor
_SMALLEST_HEADER, _SMALLEST_ENTRY, _SMALLEST_TENSOR = 24, 13, 32  # bytes


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of the file.

    Attributes:
        name: its name in the file.
        shape: its shape, the last dimension contiguous as in PyTorch.
        kind: its type.
        begin: its first byte in the file.
        nbytes: its size in the file.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind
    begin: int
    nbytes: int


@dataclass(frozen=True)
class GgufFile:
    """An open GGUF file.

    Attributes:
        path: of the file.
        version: of the format.
        metadata: key -> number, text, bool, or a list of these that is read when it is iterated.
        tensors: name -> tensor.
        data: the bytes of the file, mapped; writing into them does not change the file.
    """

    path: Path
    version: int
    metadata: dict[str, Any]
    tensors: dict[str, StoredTensor]
    data: mmap


def is_gguf(path: Path | str) -> bool:
    """Whether a path names a GGUF file, by its suffix."""
    try:
        return str(path).lower().endswith(SUFFIX) and Path(path).is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def check_folder(path: Path) -> None:
    """Checks that a path is not a GGUF file, for what transformers reads.

    Raises:
        ArgumentValueError: it is one.
    """
    if is_gguf(path):
        hint = "minitx convert writes a GGUF file as a folder"
        raise ArgumentValueError("name_or_folder", str(path), "a folder or a Hub id", hint)


def open_gguf(path: Path) -> GgufFile:
    """Opens a GGUF file, and checks its whole header.

    Raises:
        ValueError: another format or version, a file for big-endian machines, a file that is cut short or
            damaged, or a tensor of a type that minitx does not read.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        start = file.read(len(_MAGIC))
        if start != _MAGIC:
            raise ValueError(f"{path}: begins with {start!r}, not with {_MAGIC!r}; it is no GGUF file.")
        if size < _SMALLEST_HEADER:
            raise ValueError(f"{path}: has {size} bytes; a GGUF file has at least {_SMALLEST_HEADER}.")
        data = mmap(file.fileno(), 0, access=ACCESS_COPY)
    cursor = Cursor(path, data, len(_MAGIC))
    version = cursor.number("I", "the version")
    _check_version(path, version)
    tensors, entries = cursor.number("Q", "the number of tensors"), cursor.number("Q", "the metadata")
    for count, least, what in ((tensors, _SMALLEST_TENSOR, "tensors"), (entries, _SMALLEST_ENTRY, "entries")):
        if count * least > cursor.left:
            raise ValueError(
                f"{path}: states {count} {what}, more than its {size} bytes can hold; it is damaged."
            )
    metadata: dict[str, Any] = {}
    for _ in range(entries):
        key = cursor.text("a key of the metadata")
        if key in metadata:
            raise ValueError(f"{path}: has the key {key!r} twice; it is damaged.")
        metadata[key] = cursor.value(cursor.number("I", key), key)
    listed = [_tensor_info(cursor) for _ in range(tensors)]
    alignment = _alignment(path, metadata)
    begin = cursor.at + -cursor.at % alignment
    return GgufFile(path, version, metadata, _placed(path, listed, begin, alignment, size), data)


def _check_version(path: Path, version: int) -> None:
    """Checks the version; that of a big-endian file reads as a multiple of 2^24."""
    if version in _VERSIONS:
        return
    if int.from_bytes(version.to_bytes(4, "little"), "big") in (1, *_VERSIONS):
        raise ValueError(
            f"{path}: is written for big-endian machines; llama.cpp's gguf_convert_endian converts it."
        )
    known = " and ".join(map(str, _VERSIONS))
    raise ValueError(f"{path}: has version {version} of the format; minitx reads versions {known}.")


def _alignment(path: Path, metadata: dict[str, Any]) -> int:
    """Returns the alignment of the tensors, a power of two."""
    stated = metadata.get("general.alignment", _ALIGNMENT)
    if type(stated) is not int or not 1 <= stated <= _MOST_ALIGNMENT or stated & (stated - 1):
        raise ValueError(f"{path}: general.alignment must be a power of two, not {stated!r}.")
    return stated


def _tensor_info(cursor: Cursor) -> tuple[str, tuple[int, ...], Kind, int]:
    """Reads name, shape, type and offset of a tensor."""
    name = cursor.text("the name of a tensor")
    count = cursor.number("I", name)
    if not 1 <= count <= _MOST_DIMENSIONS:
        raise ValueError(f"{cursor.path}: {name} has {count} dimensions; expected 1 to {_MOST_DIMENSIONS}.")
    shape = tuple(cursor.number("Q", name) for _ in range(count))[::-1]
    kind, offset = cursor.number("I", name), cursor.number("Q", name)
    if kind not in KINDS:
        known = ", ".join(kind.name for kind in KINDS.values())
        stated = OTHERS.get(kind, f"of number {kind}")
        raise ValueError(
            f"{cursor.path}: {name} has the type {stated}, which minitx does not read. It reads {known}; "
            "llama.cpp's llama-quantize converts a file."
        )
    return name, shape, KINDS[kind], offset


def _placed(
    path: Path,
    listed: Iterable[tuple[str, tuple[int, ...], Kind, int]],
    begin: int,
    alignment: int,
    size: int,
) -> dict[str, StoredTensor]:
    """Returns the tensors with their places in the file, which neither overlap nor pass its end."""
    tensors: dict[str, StoredTensor] = {}
    for name, shape, kind, offset in listed:

        def _refuse(reason: str, name: str = name) -> NoReturn:
            raise ValueError(f"{path}: the tensor {name} {reason}; the file is cut short or damaged.")

        if name in tensors:
            _refuse("is in the file twice")
        count = math.prod(shape)
        if not 0 < count < _LARGEST or shape[-1] % kind.block:
            _refuse(f"of type {kind.name} (blocks of {kind.block}) has the shape {shape}")
        nbytes = count // kind.block * kind.nbytes
        if offset % alignment:
            _refuse(f"begins at {offset}, which is no multiple of {alignment}")
        if begin + offset + nbytes > size:
            _refuse(f"ends at byte {begin + offset + nbytes}, but the file has {size}")
        tensors[name] = StoredTensor(name, shape, kind, begin + offset, nbytes)
    ordered = sorted(tensors.values(), key=lambda tensor: tensor.begin)
    for first, second in pairwise(ordered):
        if first.begin + first.nbytes > second.begin:
            raise ValueError(
                f"{path}: the tensors {first.name} and {second.name} overlap; the file is damaged."
            )
    return tensors
