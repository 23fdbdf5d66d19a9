"""The weight files of a folder, safetensors or `.bin`, opened without reading a tensor.

`open_folder` returns names, shapes and dtypes, so that every check comes before the first byte of a weight.
"""

from __future__ import annotations

import io
import json
import pickletools
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from minitx.io import read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
BIN, BIN_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
GENERATION = "generation_config.json"
# Files of weights, in any framework's format; a pickle can hold anything and is never copied.
WEIGHTS = frozenset(
    ".bin .ckpt .gguf .h5 .msgpack .onnx .ot .pickle .pkl .pt .pth .safetensors .tflite".split()  # noqa: SIM905 - words
)

_PARTS, _SMALLEST_PART = 16, 2**18  # of a `.bin` file that is mapped again, and bytes of the smallest

# dtype in a safetensors header -> torch.dtype
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_LOCAL_HEADER, _SIZES_FOLLOW = 30, 8  # bytes before the name of a record in a zip archive, and a flag

# class of storages in a `.bin` file -> bytes of an element
_STORAGES = {
    "torch DoubleStorage": 8,
    "torch FloatStorage": 4,
    "torch HalfStorage": 2,
    "torch BFloat16Storage": 2,
    "torch LongStorage": 8,
    "torch IntStorage": 4,
    "torch ShortStorage": 2,
    "torch CharStorage": 1,
    "torch ByteStorage": 1,
    "torch BoolStorage": 1,
    "torch.storage UntypedStorage": 1,
}


@dataclass
class Tensors:
    """The tensors of one checkpoint.

    Attributes:
        shapes: name -> meta tensor with its shape and dtype.
        files: name -> name of the file that holds it.
        metadata: metadata of the safetensors header.
        handles: file -> an open safetensors file, or the tensors of a `.bin` file.
        spans: file -> name -> first byte and end of the tensor; filled for files read with `mapped=False`.
        folder: folder of the files.
        mapped: whether tensors are mapped from the files, so that pages are read when they are used.
        copied: `.bin` file -> its tensors, mapped once more for copies, and how many bytes were copied.
    """

    shapes: dict[str, Tensor] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    handles: dict[str, Any] = field(default_factory=dict)
    spans: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    folder: Path = Path()
    mapped: bool = True
    copied: dict[str, tuple[dict[str, Tensor], int]] = field(default_factory=dict)

    def read(self, name: str, *, mapped: bool = True) -> Tensor:
        """Returns a tensor.

        Args:
            name: name of the tensor.
            mapped: map it from the file if the format allows it. False reads it into memory: for a tensor
                that is copied into another order anyway, the mapped pages would stay beside the copy.

        Raises:
            ValueError: the file has become shorter since it was opened.
        """
        file = self.files[name]
        handle = self.handles[file]
        if isinstance(handle, dict):
            stored: Tensor = handle[name]
            return stored if mapped or not self.mapped else self._copy(file, name, stored)
        if not (mapped and self.mapped) and self.shapes[name].numel():
            path = self.folder / file
            if file not in self.spans:
                self.spans[file] = read_spans(path)
            return read_tensor(path, name, self.spans[file][name], self.shapes[name])
        tensor: Tensor = handle.get_tensor(name)
        return tensor

    def _copy(self, file: str, name: str, stored: Tensor) -> Tensor:
        """Returns a copy of a tensor of a `.bin` file; the tensor itself if the file is small.

        Pages that are read stay in memory as long as their mapping. So they are read from another mapping
        than that of the model, which is renewed after a part of the file.
        """
        path = self.folder / file
        part = path.stat().st_size // _PARTS
        if part < _SMALLEST_PART or not zipfile.is_zipfile(path):
            return stored
        state, size = self.copied.get(file, ({}, part))
        if size >= part:
            state, size = open_bin(path)[0], 0
        copy = state[name].clone()
        self.copied[file] = (state, size + copy.nbytes)
        return copy


def read_spans(path: Path) -> dict[str, tuple[int, int]]:
    """Returns name -> (first byte, end) of every tensor of a safetensors file.

    The file begins with the size of its header in 8 bytes; the header in JSON and the tensors follow.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    begin = 8 + size
    return {
        name: (begin + entry["data_offsets"][0], begin + entry["data_offsets"][1])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def read_tensor(path: Path, name: str, span: tuple[int, int], like: Tensor) -> Tensor:
    """Reads one tensor of a safetensors file into memory."""
    begin, end = span
    data = bytearray(end - begin)
    with path.open("rb") as file:
        file.seek(begin)
        if file.readinto(data) < len(data):
            raise ValueError(
                f"{path}: not a complete safetensors file (it ends within {name}); fetch it again."
            )
    return torch.frombuffer(data, dtype=like.dtype).view(like.shape)


def open_folder(folder: Path, *, mapped: bool = True) -> Tensors:
    """Opens the weights of a folder: safetensors before `.bin`, one file before shards.

    Args:
        folder: folder of the files.
        mapped: map tensors from the files; False reads each into memory.

    Raises:
        FileNotFoundError: no weights, or a shard named by the index is missing.
        ValueError: a truncated or damaged file, an index that points outside the folder, or a `.bin` that
            holds anything but tensors.
    """
    for name in (SINGLE, INDEX, BIN, BIN_INDEX):
        path = folder / name
        if path.is_file():
            break
    else:
        present = ", ".join(sorted(p.name for p in folder.iterdir())[:20]) or "nothing"
        raise FileNotFoundError(
            f"{folder} has no weights: expected {SINGLE}, {INDEX}, {BIN} or {BIN_INDEX}; found {present}."
        )
    if name in (SINGLE, BIN):
        return open_files(folder, [name], mapped=mapped)
    weight_map = read_index(path)
    tensors = open_files(folder, sorted(set(weight_map.values())), mapped=mapped)
    if missing := sorted(set(weight_map) - set(tensors.shapes)):
        raise ValueError(f"{path}: tensors that no shard holds: {summarize(missing)}.")
    return tensors


def read_index(path: Path) -> dict[str, str]:
    """Reads an index: tensor name -> name of the shard that holds it.

    Raises:
        ValueError: not an index, or one that points outside its folder.
    """
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise ValueError(f"{path}: has no 'weight_map' from tensor names to file names.")
    for name in sorted(set(weight_map.values())):
        parts = name.split("/")  # of a shard in a subfolder
        if {"", ".", ".."} & {*parts} or {"\\", "\0", ":"} & {*name}:
            raise ValueError(f"{path}: names {name!r}; a shard must be inside the folder.")
        if any(len(part.encode()) > 255 for part in parts) or len(parts) > 10:
            raise ValueError(f"{path}: names a shard of {len(name)} characters, {name[:40]!r}...")
    return weight_map


def open_files(folder: Path, names: Iterable[str], *, mapped: bool = True) -> Tensors:
    """Opens weight files by name; a tensor may be in one of them only."""
    tensors = Tensors(folder=folder, mapped=mapped)
    for name in names:
        path = folder / name
        if not is_file(path):
            raise FileNotFoundError(f"{path} is missing; the index of its folder names it.")
        path.open("rb").close()  # the libraries report a file without permission as missing or damaged
        if path.suffix == ".bin":
            handle, shapes = open_bin(path, mapped=mapped)
        else:
            handle, shapes = open_safetensors(path, tensors.metadata)
        tensors.handles[name] = handle
        if twice := sorted(set(shapes) & set(tensors.shapes)):
            raise ValueError(f"{path}: tensors that another shard holds too: {summarize(twice)}.")
        for tensor, shape in shapes.items():
            tensors.shapes[tensor], tensors.files[tensor] = shape, name
    return tensors


def open_safetensors(path: Path, metadata: dict[str, str]) -> tuple[Any, dict[str, Tensor]]:
    """Opens a safetensors file and adds to its metadata; returns the file and name -> meta tensor."""
    from safetensors import SafetensorError, safe_open

    try:
        handle: Any = safe_open(path, framework="pt")  # the library has no types
        metadata.update(handle.metadata() or {})
        shapes = {}
        for name in handle.keys():  # noqa: SIM118 - not a dict
            part = handle.get_slice(name)
            if part.get_dtype() not in DTYPES:
                raise ValueError(f"{path}: {name} is stored as {part.get_dtype()}, which minitx cannot read.")
            shapes[name] = torch.empty(part.get_shape(), dtype=DTYPES[part.get_dtype()], device="meta")
    except (SafetensorError, OSError, RuntimeError) as error:
        raise ValueError(f"{path}: not a complete safetensors file ({error}); fetch it again.") from None
    return handle, shapes


def open_bin(path: Path, *, mapped: bool = True) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Opens a `.bin` file; returns its tensors and name -> meta tensor.

    `weights_only` unpickles tensors only, so that no code in the file can run. Plain values beside them, such
    as the number of a training step, are left out.
    """
    state: Any = None
    try:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except RuntimeError:  # files from before torch 1.6 are not zip archives and cannot be mapped
            state = torch.load(path, map_location="cpu", weights_only=True)
        check_records(path)
    except Exception as error:  # torch raises anything for damaged bytes, struct.error included
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path}: not a file of plain tensors, or damaged ({reason}). Nothing in it was run."
        ) from None
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if isinstance(state, Mapping):
        plain_values = (int, float, str, type(None))
        state = {name: value for name, value in state.items() if not isinstance(value, plain_values)}
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path}: expected a state dict, tensor names to tensors.")
    for name, value in state.items():
        plain = value.layout is torch.strided and value.device.type == "cpu" and not value.is_nested
        if not plain or value.dtype not in DTYPES.values():
            kind = str(value.layout if value.layout is not torch.strided else value.dtype)
            raise ValueError(f"{path}: {name} is a {kind} tensor on {value.device}; expected a dense tensor.")
        if value.nbytes > value.untyped_storage().nbytes():
            raise ValueError(f"{path}: {name} repeats its values; expected a tensor that holds each of them.")
    return state, {str(name): torch.empty_like(value, device="meta") for name, value in state.items()}


def check_records(path: Path) -> None:
    """Checks that each storage of a `.bin` archive has the size of its record.

    torch maps a storage as a range of bytes of the file, and does not compare it with the record.

    Raises:
        ValueError: another size, a record that begins or ends elsewhere than the archive states, or
            compressed records, which may be of any size; torch writes none.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        records = {record.filename: record for record in archive.infolist()}
        if len(records) != len(archive.infolist()):
            raise ValueError("it has two records of one name")
        if any(record.compress_type != zipfile.ZIP_STORED for record in records.values()):
            raise ValueError("its records are compressed, which torch.save never does")
        names = [name for name in records if name.endswith("/data.pkl") and name.count("/") == 1]
        if not names:
            raise ValueError("it has no data.pkl")
        sizes = storage_sizes(archive.read(names[0]))
    folder = names[0].removesuffix("data.pkl") + "data/"
    with path.open("rb") as file:
        for key, size in sizes.items():
            record = records.get(folder + key)
            if record is None or record.file_size != size:
                present = "none" if record is None else f"one of {record.file_size}"
                raise ValueError(f"storage {key} needs a record of {size} bytes, and has {present}")
            check_place(file, record)


def check_place(file: BinaryIO, record: zipfile.ZipInfo) -> None:
    """Checks that the header after the values of a record is where the header before them places it."""
    file.seek(record.header_offset)
    header = file.read(_LOCAL_HEADER)
    name_length, extra_length = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    name = file.read(name_length)
    file.seek(extra_length + record.file_size, io.SEEK_CUR)
    next_bytes = b"PK\7\x08" if record.flag_bits & _SIZES_FOLLOW else b"PK"
    if name != record.filename.encode() or not file.read(4).startswith(next_bytes):
        raise ValueError(f"record {record.filename} is not where the archive states")


def storage_sizes(content: bytes) -> dict[str, int]:
    """Returns the size of each storage that a pickle names, by the key of its record; runs nothing in it.

    A storage is named as ("storage", class, key, device, number of elements).
    """
    sizes: dict[str, int] = {}
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for opcode, argument, _ in pickletools.genops(content):
        before, items = opcode.stack_before, []
        if pickletools.markobject in before:
            mark = len(stack) - 1 - stack[::-1].index(pickletools.markobject)
            items = stack[mark + 1 :]
            del stack[mark - before.index(pickletools.markobject) :]
        elif before:
            items = stack[-len(before) :]
            del stack[-len(before) :]
        match opcode.name:
            case "MARK":
                stack.append(pickletools.markobject)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = items[0]
                stack += items
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(items))
            case "BINPERSID":
                _, kind, key, _, count = items[0]
                if kind in _STORAGES:
                    sizes[key] = _STORAGES[kind] * count
                stack.append(None)
            case "STACK_GLOBAL":
                stack.append(" ".join(items))
            case _:
                stack += [argument] * len(opcode.stack_after)
    return sizes


def is_file(path: Path) -> bool:
    """Whether a file exists; False for a name that no file can have."""
    try:
        return path.is_file()
    except OSError:
        return False


def summarize(names: Iterable[str], most: int = 12) -> str:
    """Returns the first names as a list for an error message, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
