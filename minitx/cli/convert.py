"""`minitx convert`: any checkpoint that minitx reads, written as safetensors."""

from __future__ import annotations

import os
import shutil
from argparse import Namespace
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from minitx.checkpoint.files import summarize
from minitx.checkpoint.load import load
from minitx.checkpoint.save import save, stored_tensors
from minitx.cli.common import bar, dtype_of, print_json, source_of
from minitx.inspect.summary import human
from minitx.pipelines.text.embed import modules

# Files of weights, in any framework's format; a pickle can hold anything and is never copied.
WEIGHTS = frozenset(
    (".bin", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".ot", ".pickle", ".pkl", ".pt", ".pth")
) | {".safetensors", ".tflite"}
LARGEST_COPY = 200_000_000


def run(args: Namespace) -> int:
    source, destination = complete_source(args), Path(args.destination)
    refuse(source, destination)
    rest, left = the_rest(source, destination)
    refuse_clashes(destination, ["config.json", *rest])
    model = load(source, head=args.head, dtype=dtype_of(args), model_type=args.model_type)
    assert model.checkpoint is not None
    size = sum(t.numel() * t.element_size() for t in stored_tensors(model, model.checkpoint).values())
    destination.parent.mkdir(parents=True, exist_ok=True)
    stage = destination.with_name(f".{destination.name[:100]}.{uuid4().hex}.tmp")
    stage.mkdir()
    try:
        with bar(size, "writing", "B", quiet=args.json) as progress:
            save(model, stage, max_shard_size=args.max_shard_size, progress=progress)
        copied = copy_rest(source, stage, rest)
        weights = sorted(path.name for path in stage.glob("*.safetensors"))
        move(stage, destination)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    if args.json:
        print_json(
            {
                "source": args.model,
                "destination": str(destination),
                "bytes": size,
                "weights": weights,
                "copied": copied,
                "not_copied": left,
            }
        )
        return 0
    files = weights[0] if len(weights) == 1 else f"{len(weights)} safetensors files"
    print(f"{destination}: {human(size)} of weights in {files}")
    for title, names in (("copied", copied), ("not copied", left)):
        if names:
            print(f"{title}:")
            print("\n".join(f"  {name}" for name in names))
    return 0


def complete_source(args: Namespace) -> Path:
    """The model's folder, with the tokenizer in it if it comes from the Hub."""
    from minitx.checkpoint.hub import fetch_tokenizer

    folder = source_of(args)
    if not Path(args.model).is_dir():
        fetch_tokenizer(args.model, revision=args.revision, token=args.token, offline=args.offline)
    return folder


def refuse(source: Path, destination: Path) -> None:
    """
    Raises:
        FileExistsError: the destination is a file, or holds weights already.
        ValueError: it is the source.
    """
    if destination.exists() and not destination.is_dir():
        raise FileExistsError(f"{destination} is a file; expected a folder, or none yet.")
    if not destination.exists():
        return
    if destination.samefile(source):
        raise ValueError(f"{destination} is the source itself; name another folder.")
    there = [path.name for path in destination.iterdir() if is_weights(path)]
    if there:
        raise FileExistsError(
            f"{destination} already holds weights ({', '.join(sorted(there)[:3])}); name an empty folder."
        )


def refuse_clashes(destination: Path, names: Iterable[str]) -> None:
    """
    Raises:
        FileExistsError: a file would be replaced.
    """
    there = sorted({name for name in names if os.path.lexists(destination / name)})
    if there:
        raise FileExistsError(
            f"{destination} already has {summarize(there)}, which would be replaced; name an empty folder."
        )


def is_weights(path: Path) -> bool:
    return path.suffix.lower() in WEIGHTS or path.name.endswith(".index.json")


def is_pickle(path: Path) -> bool:
    """Weights in another format than ours; what a Dense module has as safetensors belongs to the model."""
    return is_weights(path) and ".safetensors" not in path.name


def the_rest(source: Path, destination: Path) -> tuple[list[str], list[str]]:
    """What else belongs to the checkpoint -> (files to copy, files to leave out), relative to `source`.

    That is every file beside the weights that is not weights, and the folders that modules.json names.
    """
    rest: list[str] = []
    left: list[str] = []
    for path in sorted(source.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        if not is_weights(path) and path.stat().st_size <= LARGEST_COPY:
            rest.append(path.name)
        elif not is_model_weights(path):
            left.append(path.name)
    listed = modules(source / "modules.json") if (source / "modules.json").is_file() else []
    inside = destination.resolve()
    for place in sorted({Path(place) for _, place in listed} - {Path()}):
        for path in sorted((source / place).rglob("*")):
            if path.is_file() and inside not in path.parent.resolve().joinpath(path.name).parents:
                name = path.relative_to(source).as_posix()
                (left if is_pickle(path) else rest).append(name)
    return list(dict.fromkeys(rest)), left


def copy_rest(source: Path, stage: Path, rest: list[str]) -> list[str]:
    """Copies those files, except where a file was written already -> the copied ones."""
    copied = []
    for name in rest:
        if not os.path.lexists(stage / name):
            copy(source / name, stage / name)
            copied.append(name)
    return copied


def is_model_weights(path: Path) -> bool:
    """The files that were read, or that hold the same once more."""
    return path.name.startswith(("pytorch_model", "model.safetensors", "model-"))


def copy(path: Path, to: Path) -> None:
    """The content; a link, as in the Hub's cache, becomes a file."""
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)


def move(stage: Path, destination: Path) -> None:
    """Everything to its place: at once into a new folder, file by file into one that exists.

    Replaces nothing, and takes back what it moved if it fails.
    """
    if not destination.exists():
        os.rename(stage, destination)
        return
    # Weights last: until they are there, nobody takes the folder for a complete model.
    files = sorted((path for path in stage.rglob("*") if path.is_file()), key=is_weights)
    refuse_clashes(destination, [path.relative_to(stage).as_posix() for path in files])
    made: list[Path] = []
    try:
        for path in files:
            target = destination / path.relative_to(stage)
            for folder in reversed(target.relative_to(destination).parents):
                if not (destination / folder).is_dir():
                    (destination / folder).mkdir()
                    made.append(destination / folder)
            made.append(target)  # first, so that an interruption finds it
            os.replace(path, target)
    except BaseException:
        for path in reversed(made):
            with suppress(OSError):
                (Path.rmdir if path.is_dir() else Path.unlink)(path)
        raise
