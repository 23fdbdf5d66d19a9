"""Tensors in .safetensors files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from minitx.io import write_atomically
from minitx.validation import ArgumentValueError, check_output, check_path

_SUFFIX = ".safetensors"


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors, all or nothing; the folder is created if it does not exist.

    Raises:
        ArgumentTypeError, ArgumentValueError, OSError: a path that cannot be written to.
    """
    target = check_output("path", path, (_SUFFIX,))
    target.parent.mkdir(parents=True, exist_ok=True)
    contents = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(target, lambda temporary: save_file(contents, temporary))


def read_tensors(path: str | Path, names: Collection[str]) -> dict[str, Tensor]:
    """Reads all tensors of a file, and checks that it has those of these names.

    Raises:
        ArgumentTypeError, ArgumentValueError: not a path, a file of another format, or one without them.
        FileNotFoundError: no such file.
    """
    source = check_path("path", path)
    if not source.is_file():
        raise FileNotFoundError(f"{source}: no such file.")
    try:
        tensors = load_file(source)
    except SafetensorError as error:
        raise ArgumentValueError("path", str(source), "a complete .safetensors file", str(error)) from None
    if missing := sorted({*names} - tensors.keys()):
        hint = f"it has {', '.join(sorted(tensors)[:6]) or 'no tensors'}"
        raise ArgumentValueError("path", str(source), f"a file with the tensor {missing[0]}", hint)
    return tensors
