"""`minitx convert`: any checkpoint that minitx reads, written as safetensors."""

from __future__ import annotations

import os
import shutil
import tempfile
from argparse import Namespace
from pathlib import Path

from minitx.commands.common import bar, dtype_of, print_json, source_of
from minitx.inspect.summary import human
from minitx.pipelines.embed import modules
from minitx.weights.load import load
from minitx.weights.save import save, stored_tensors

# Files of weights, in any framework's format; a pickle can hold anything and is never copied.
WEIGHTS = frozenset(
    (".bin", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".ot", ".pickle", ".pkl", ".pt", ".pth")
) | {".safetensors", ".tflite"}
LARGEST_COPY = 200_000_000


def run(args: Namespace) -> int:
    source, destination = complete_source(args), Path(args.destination)
    refuse(source, destination)
    model = load(source, head=args.head, dtype=dtype_of(args), model_type=args.model_type)
    assert model.checkpoint is not None
    size = sum(t.numel() * t.element_size() for t in stored_tensors(model, model.checkpoint).values())
    destination.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", suffix=".tmp", dir=destination.parent))
    try:
        with bar(size, "writing", "B", quiet=args.json) as progress:
            save(model, stage, max_shard_size=args.max_shard_size, progress=progress)
        copied, left = copy_rest(source, stage)
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
    from minitx.weights.hub import fetch_tokenizer

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


def is_weights(path: Path) -> bool:
    return path.suffix.lower() in WEIGHTS or path.name.endswith(".index.json")


def copy_rest(source: Path, stage: Path) -> tuple[list[str], list[str]]:
    """Copies what else belongs to the checkpoint -> (copied, left out).

    That is every file beside the weights that is not weights, and the folders that modules.json names.
    """
    copied: list[str] = []
    left: list[str] = []
    for path in sorted(source.iterdir()):
        if path.name.startswith(".") or not path.is_file() or (stage / path.name).exists():
            continue
        if is_weights(path) or path.stat().st_size > LARGEST_COPY:
            if not is_model_weights(path):
                left.append(path.name)
            continue
        copy(path, stage / path.name)
        copied.append(path.name)
    listed = modules(source / "modules.json") if (source / "modules.json").is_file() else []
    for place in sorted({place for _, place in listed} - {"", "."}):
        for path in sorted((source / place).rglob("*")):
            if path.is_file():
                name = path.relative_to(source)
                copy(path, stage / name)
                copied.append(name.as_posix())
    return copied, left


def is_model_weights(path: Path) -> bool:
    """The files that were read, or that hold the same once more."""
    return path.name.startswith(("pytorch_model", "model.safetensors", "model-"))


def copy(path: Path, to: Path) -> None:
    """The content; a link, as in the Hub's cache, becomes a file."""
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)


def move(stage: Path, destination: Path) -> None:
    """Everything to its place: at once into a new folder, file by file into one that exists."""
    mask = os.umask(0)
    os.umask(mask)
    stage.chmod(0o777 & ~mask)  # mkdtemp makes private folders
    if not destination.exists():
        os.rename(stage, destination)
        return
    # Weights last: until they are there, nobody takes the folder for a complete model.
    files = sorted((path for path in stage.rglob("*") if path.is_file()), key=is_weights)
    for path in files:
        target = destination / path.relative_to(stage)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)
