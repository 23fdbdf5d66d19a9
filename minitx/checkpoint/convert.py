"""Conversion of a whole checkpoint folder: weights as safetensors, and copies of the files beside them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from minitx.checkpoint.files import WEIGHTS, summarize
from minitx.checkpoint.gguf.header import is_gguf
from minitx.checkpoint.hub import TEMPLATES, TOKENIZER
from minitx.checkpoint.load import load
from minitx.checkpoint.lora.base import tokenizer_folder
from minitx.checkpoint.record import Checkpoint
from minitx.checkpoint.save import stored_tensors, write_checkpoint
from minitx.checkpoint.sentence import check_links, module_places, upper_folder
from minitx.checkpoint.write import nbytes
from minitx.io import leads_out
from minitx.models import Model
from minitx.transaction import read_consistently, transaction

LARGEST_COPY = 200_000_000


@dataclass(frozen=True)
class Conversion:
    """A finished conversion.

    Attributes:
        bytes: size of the weights.
        weights: names of the safetensors files.
        copied: names of the files that were copied, relative to the source.
        not_copied: names of the files that were left out: weights in other formats, very large files, links
            out of the source.
    """

    bytes: int
    weights: list[str]
    copied: list[str]
    not_copied: list[str]


def convert(
    source: Path,
    destination: Path,
    *,
    max_shard_size: int | None = None,
    contents: Mapping[str, str | bytes] | None = None,
    progress: Callable[[int], AbstractContextManager[Callable[[int], Any]]] | None = None,
    **options: Any,
) -> Conversion:
    """Loads a checkpoint and writes it to another folder, with its tokenizer and the files beside it.

    If anything fails, the destination is as before.

    Args:
        source: folder of the checkpoint, or a GGUF file.
        destination: a new folder, or one without weights.
        max_shard_size: bytes of the largest weight file; None keeps the shards of the source.
        contents: further files to write, name -> content, such as those of the tokenizer of a GGUF file.
        progress: from the number of bytes to a context manager of the function that is called with the
            bytes written.
        options: keyword arguments of `load` (`head`, `dtype`, ...).

    Raises:
        FileExistsError: the destination holds weights or files that would be replaced.
        ValueError: the destination is the source; or as `load`.
    """
    check_destination(source, destination)
    access = {key: options[key] for key in ("token", "offline") if key in options}
    tokenizer = tokenizer_folder(source, **access)
    stack = ExitStack()

    def read() -> tuple[Model, dict[str, IO[bytes]], list[str]]:
        """Loads the model and opens the files to copy, all of them of one save."""
        stack.close()
        paths, left_out = ({}, []) if is_gguf(source) else companions(source, destination)
        paths |= tokenizer_files(tokenizer)
        check_clashes(destination, ["config.json", *paths, *(contents or {})])
        opened: dict[str, IO[bytes]] = {
            name: stack.enter_context(path.open("rb")) for name, path in paths.items()
        }
        return load(source, **options), opened, left_out

    with stack:
        further = {tokenizer, upper_folder(source)} - {source}
        model, opened, left_out = read_consistently(source, read, *further)
        checkpoint: Checkpoint = model.checkpoint
        size = sum(map(nbytes, stored_tensors(model, checkpoint)[0].values()))
        with transaction(destination) as files, nullcontext() if progress is None else progress(size) as step:
            weights = write_checkpoint(files, model, checkpoint, max_shard_size, step)
            files.write_all(contents or {})
            written = set(files.names())
            for name in opened.keys() - written:
                with files.path(name).open("wb") as copy:  # a link becomes a file
                    shutil.copyfileobj(opened[name], copy)
            check_clashes(destination, files.names())
    copied = [name for name in opened if name not in written or name in checkpoint.sentence_files]
    return Conversion(size, sorted(weights), copied, left_out)


def tokenizer_files(folder: Path) -> dict[str, Path]:
    """Returns the files of a tokenizer by name; raises ValueError about links out of the folder."""
    names = [*TOKENIZER, *(f"{TEMPLATES}{path.name}" for path in (folder / TEMPLATES).glob("*.jinja"))]
    check_links(folder, names)
    return {name: folder / name for name in names if (folder / name).is_file()}


def check_destination(source: Path, destination: Path) -> None:
    """Checks that weights can be written to the destination.

    Raises:
        FileExistsError: it is a file, or holds weights already.
        ValueError: it is the source.
    """
    if destination.exists() and not destination.is_dir():
        raise FileExistsError(f"{destination} is a file; expected a folder, or none yet.")
    if not destination.exists():
        return
    if destination.samefile(source):
        raise ValueError(f"{destination} is the source itself; name another folder.")
    present = [path.name for path in destination.iterdir() if is_weights(path)]
    if present:
        raise FileExistsError(
            f"{destination} already holds weights ({', '.join(sorted(present)[:3])}); name an empty folder."
        )


def check_clashes(destination: Path, names: Iterable[str]) -> None:
    """Checks that no file of the destination would be replaced, else raises FileExistsError."""
    present = sorted({name for name in names if os.path.lexists(destination / name)})
    if present:
        raise FileExistsError(
            f"{destination} already has {summarize(present)}, which would be replaced; name an empty folder."
        )


def is_weights(path: Path) -> bool:
    """Whether a file holds weights, or the index of sharded ones."""
    return path.suffix.lower() in WEIGHTS or path.name.endswith(".index.json")


def is_pickle(path: Path) -> bool:
    """Whether a file holds weights in another format than safetensors."""
    return is_weights(path) and ".safetensors" not in path.name


def companions(source: Path, destination: Path) -> tuple[dict[str, Path], list[str]]:
    """Returns the files to copy, by their name in the destination, and the names of those to leave out.

    These are the files beside the weights and those of the modules that modules.json lists; the folder of
    modules.json may be that above the weights.
    """
    paths: dict[str, Path] = {}
    left_out: list[str] = []
    upper = upper_folder(source)
    for path in [path for folder in dict.fromkeys((source, upper)) for path in sorted(folder.iterdir())]:
        if path.name.startswith((".", "adapter_")) or not path.is_file():
            continue  # an adapter is merged
        small = not is_weights(path) and path.stat().st_size <= LARGEST_COPY
        if small and not leads_out(path, upper):
            paths.setdefault(path.name, path)
        elif not path.name.startswith(("pytorch_model", "model.safetensors", "model-")):  # the loaded ones
            left_out.append(path.name)
    inside = destination.resolve()
    for place in module_places(upper):
        if leads_out(upper / place, upper):
            left_out.append(place)
            continue
        for path in sorted((upper / place).rglob("*")):
            if path.is_file() and inside not in path.parent.resolve().joinpath(path.name).parents:
                name = path.relative_to(upper).as_posix()
                if is_pickle(path) or leads_out(path, upper):
                    left_out.append(name)
                else:
                    paths.setdefault(name, path)
    return paths, left_out
