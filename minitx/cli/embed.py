"""`minitx embed`: texts to vectors."""

from __future__ import annotations

import ctypes
import os
import sys
from argparse import Namespace
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from minitx.checkpoint.load import load
from minitx.cli.common import (
    MOST_COLUMNS,
    architecture_of,
    bar,
    check_finite,
    device_of,
    dtype_of,
    print_json,
    read_texts,
    say,
    similarity_table,
    source_of,
    tokenizer_of,
)
from minitx.io import write_atomically, write_json
from minitx.pipelines import EmbeddingSettings, embed, embedding_settings

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer

FORMATS = (".npy", ".safetensors", ".json")


def run(args: Namespace) -> int:
    output = None if args.output is None else checked_output(Path(args.output))
    texts = read_texts(args)
    if len(texts) > MOST_COLUMNS and output is None and not args.json:
        raise ValueError(
            f"{len(texts)} texts do not fit into a table; say where the vectors go: --output FILE or --json."
        )
    device = device_of(args)
    folder = source_of(args)
    settings = settings_of(args, folder)
    tokenizer = tokenizer_of(args, folder)
    check_length(settings.max_length, tokenizer)
    architecture = architecture_of(args, folder)
    head = "none" if architecture is None else architecture.headless[-1]  # of some, the encoder alone
    model = load(folder, head=head, dtype=dtype_of(args), device=device, model_type=args.model_type)
    with bar(len(texts), "embedding", "text", quiet=args.json) as progress:
        vectors = embed(
            model,
            tokenizer,
            texts,
            settings=settings,
            batch_size=args.batch_size,
            progress=progress,
        ).cpu()
    check_finite(vectors)
    result = {"model": args.model, **asdict(settings), "texts": texts}
    if output is not None:
        write_vectors(output, vectors, result)
    if args.json:
        shown = {"output": str(output), "shape": list(vectors.shape)}
        print_json(result | (shown if output is not None else {"embeddings": vectors.tolist()}))
    elif output is not None:
        print(f"{sizes(vectors)} in {output}")
    else:
        show(texts, vectors, settings)
    return 0


def checked_output(path: Path) -> Path:
    """The path, before any work is done for it.

    Raises:
        ValueError: not a kind of file that vectors are written to.
        FileNotFoundError: its folder is missing.
        IsADirectoryError: it is a folder.
        PermissionError: nothing can be written into its folder.
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"--output {path}: vectors are written to {', '.join(FORMATS)} files.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--output {path}: there is no folder {path.parent}.")
    if path.is_dir():
        raise IsADirectoryError(f"--output {path}: this is a folder; expected a file.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"--output {path}: nothing can be written into {path.parent}.")
    return path


def check_length(length: int | None, tokenizer: Tokenizer) -> None:
    """
    Raises:
        ValueError: a text would have no token of its own.
    """
    special = tokenizer([""])["input_ids"].shape[1]
    if length is not None and length <= special:
        raise ValueError(
            f"--max-length {length}: the tokenizer puts {special} special tokens around each text, "
            f"so the least is {special + 1}."
        )


def settings_of(args: Namespace, folder: Path) -> EmbeddingSettings:
    """The checkpoint's settings, and what the command line says instead."""
    said = {"pooling": args.pooling, "normalize": args.normalize, "max_length": args.max_length}
    given: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    return replace(embedding_settings(folder), **given)


def show(texts: list[str], vectors: Tensor, settings: EmbeddingSettings) -> None:
    length = ", length 1" if settings.normalize else ""
    say(f"{sizes(vectors)} ({settings.pooling} pooling{length})")
    if len(texts) == 1:
        numbers = ", ".join(f"{value:.4f}" for value in vectors[0, :6].tolist())
        say(f"begins {numbers}, ...; --json or --output gives all of it")
        return
    units = F.normalize(vectors, dim=-1)
    print("\nCosine similarity")
    print(similarity_table(texts, units @ units.T))


def sizes(vectors: Tensor) -> str:
    count, size = vectors.shape
    return f"{count} vector{'s' if count > 1 else ''} of {size} numbers"


def write_vectors(path: Path, vectors: Tensor, result: dict[str, Any]) -> None:
    """Writes all or nothing."""
    kind = path.suffix.lower()
    if kind == ".json":
        document = result | {"embeddings": vectors.tolist()}
        write_atomically(path, lambda temporary: write_json(temporary, document))
    elif kind == ".npy":
        write_atomically(path, lambda temporary: temporary.write_bytes(npy(vectors)))
    else:
        from safetensors.torch import save_file

        write_atomically(path, lambda temporary: save_file({"embeddings": vectors}, temporary))


def npy(array: Tensor) -> bytes:
    """A float tensor as a .npy file (format 1.0), without the need for NumPy."""
    code = {torch.float32: "f4", torch.float64: "f8"}[array.dtype]
    array = array.contiguous()
    order = "<" if sys.byteorder == "little" else ">"
    header = f"{{'descr': '{order}{code}', 'fortran_order': False, 'shape': {tuple(array.shape)}, }}"
    padded = header + " " * (-(len(header) + 11) % 64) + "\n"  # 10 bytes before it, aligned to 64
    start = b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode("ascii")
    return start + ctypes.string_at(array.data_ptr(), array.numel() * array.element_size())
