"""Writes safetensors files tensor by tensor, so that one tensor at a time lies in memory beside the model.

The bytes are those of the safetensors library. A file begins with the size of its header (8 bytes) and the
header in JSON; the tensors follow, those of wide dtypes first so that each is aligned.

`check_target` checks first that nothing in the folder would contradict the files of a save.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from minitx.checkpoint.files import BIN, BIN_INDEX, DTYPES, GENERATION, INDEX, SINGLE, read_index, summarize
from minitx.checkpoint.lora.settings import ADAPTER_CONFIG
from minitx.checkpoint.sentence import ENCODER_OPTIONS, MODULES, SETTINGS, encoder_folder
from minitx.io import leads_out, read_json
from minitx.transaction import StagedFiles
from minitx.validation import ArgumentValueError

_ALIGNMENT = 8
_PART = 1 << 20  # bytes of a tensor that are made contiguous at once
# the library's order of dtypes, which is also that of their sizes
_ORDER = ("I64", "F64", "F32", "I32", "BF16", "F16", "I16", "I8", "U8", "BOOL")
_NAMES = {DTYPES[name]: name for name in _ORDER}

# the files, beside shards and poolings, that `load` and `embed` read without being named by another file
_READ = (SINGLE, INDEX, BIN, BIN_INDEX, GENERATION, ADAPTER_CONFIG, MODULES, SETTINGS, *ENCODER_OPTIONS)


def write_tensors(
    files: Mapping[Path, Iterable[str]],
    shapes: Mapping[str, Tensor],
    groups: Iterable[Callable[[], Mapping[str, Tensor]]],
    metadata: Mapping[str, str],
    progress: Callable[[int], None] | None = None,
) -> None:
    """Writes tensors to one or several files.

    Args:
        files: path -> names of its tensors.
        shapes: name -> a tensor with its shape and dtype, such as a meta tensor.
        groups: functions that each return some tensors by name; every tensor is in a group.
        metadata: texts for the header of each file.
        progress: called with the number of bytes after each tensor.
    """
    places: dict[str, tuple[Path, int]] = {}
    for path, names in files.items():
        content, offsets = header({name: shapes[name] for name in names}, metadata)
        path.write_bytes(content)
        places |= {name: (path, len(content) + offset) for name, offset in offsets.items()}
    opened: Path | None = None
    with ExitStack() as stack:  # one file at a time: the shards may be more than a process may open
        for group in groups:
            for name, tensor in group().items():
                path, offset = places[name]
                if path != opened:
                    stack.close()
                    file, opened = stack.enter_context(path.open("r+b")), path
                file.seek(offset)
                size = write_values(file, tensor)
                if progress is not None:
                    progress(size)


def header(shapes: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """Returns the first bytes of a file, and the offset of each tensor after them.

    Raises:
        ArgumentValueError: a dtype that minitx does not write, such as a float8 or complex one.
    """
    for name, tensor in shapes.items():
        if tensor.dtype not in _NAMES:
            hint = "convert it first: model.float()"
            raise ArgumentValueError(name, tensor.dtype, f"of dtype {', '.join(map(str, _NAMES))}", hint)
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offsets: dict[str, int] = {}
    end = 0
    for name in sorted(shapes, key=lambda name: (_ORDER.index(_NAMES[shapes[name].dtype]), name)):
        tensor = shapes[name]
        offsets[name], end = end, end + nbytes(tensor)
        span = [offsets[name], end]
        entries[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": span}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text, offsets


def write_values(file: BinaryIO, tensor: Tensor) -> int:
    """Writes the values of a tensor; returns their number of bytes."""
    values = tensor.detach().resolve_conj().resolve_neg().cpu()
    parts = (values,)
    if not values.is_contiguous():  # a copy of a whole one would be the largest object beside the model
        rows = max(1, _PART * len(values) // nbytes(values))
        parts = values.split(rows)  # type: ignore[no-untyped-call]
    for part in parts:
        ordered = part.contiguous()
        if size := nbytes(ordered):
            file.write(memoryview((ctypes.c_char * size).from_address(ordered.data_ptr())))
    return nbytes(tensor)


def nbytes(tensor: Tensor) -> int:
    """Returns the size of a tensor's values in bytes."""
    return tensor.numel() * tensor.element_size()


def check_target(folder: Path, config: Mapping[str, Any], names: Collection[str]) -> None:
    """Checks that no other model, nor a file of one that would be read with this one, is in a folder.

    Args:
        folder: the folder to save to.
        config: the config.json to write.
        names: the files to write, relative to the folder.

    Raises:
        FileExistsError: the folder has such files.
    """
    path, model_type = folder / "config.json", config.get("model_type")
    present = model_type
    with suppress(ValueError):  # a damaged file is no model
        present = read_json(path).get("model_type") if path.is_file() else model_type
    if present != model_type:
        raise FileExistsError(
            f"{folder} holds a model of type {present!r}, and this one is of type {model_type!r}; "
            "save to another folder, or remove that model first."
        )
    poolings = "*_Pooling/config.json" if MODULES in names else ""
    if stale := sorted(files_to_load(folder, poolings) - set(names)):
        raise FileExistsError(
            f"{folder} already holds {summarize(stale)}, which would be read with this model; save to an "
            "empty folder, or remove them first."
        )


def write_tokenizer(files: StagedFiles, contents: Mapping[str, str | bytes]) -> None:
    """Writes the files of a tokenizer: name -> content.

    Raises:
        FileExistsError: the folder has other chat templates, which would be read with this tokenizer.
    """
    folder = files.folder
    templates = [folder / "chat_template.jinja", *folder.glob("additional_chat_templates/*.jinja")]
    present = {path.relative_to(folder).as_posix() for path in templates if path.exists()}
    if stale := sorted(present - set(contents)):
        raise FileExistsError(
            f"{folder} already holds {summarize(stale)}, which would be read with this tokenizer; save to an "
            "empty folder, or remove them first."
        )
    files.write_all(contents)


def files_to_load(folder: Path, poolings: str) -> set[str]:
    """Returns the files of a folder that loading a model reads, but config.json and the tokenizer's.

    Args:
        folder: the folder.
        poolings: pattern of the poolings, which a modules.json may name; "" for none.
    """
    names = {name for name in _READ if (folder / name).exists()}
    for pattern in filter(None, ("model-*-of-*.safetensors", poolings)):
        names |= {path.relative_to(folder).as_posix() for path in folder.glob(pattern)}
    for index in (INDEX, BIN_INDEX):
        with suppress(ValueError, OSError):
            names |= {name for name in set(read_index(folder / index).values()) if (folder / name).exists()}
    return names


def replaced_weights(folder: Path) -> list[Path]:
    """Returns the weights in the subfolder of a folder's encoder, which a save replaces by its own."""
    inner = encoder_folder(folder)
    if inner == folder or leads_out(inner, folder):
        return []
    names = files_to_load(inner, "")
    return [inner / name for name in names if name.endswith((".safetensors", ".bin", INDEX, BIN_INDEX))]
