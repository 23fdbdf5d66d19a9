"""Checkpoints in the formats of other libraries, written once for a run of the benchmark.

The processes of the engines share them, and the fresh ones that measure memory find them through the
environment: a conversion there would be counted as memory of the engine.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

VARIABLE = "MINITX_BENCH_CONVERSIONS"


def converted(kind: str, folder: Path, write: Callable[[Path], object]) -> Path:
    """Returns the place of a converted checkpoint, which is written if it was not yet.

    The files are deleted when the process ends that wrote the first.

    Args:
        kind: name of the format.
        folder: of the checkpoint.
        write: writes the converted checkpoint, a file or a folder, to a path that does not exist.
    """
    target = conversion_folder() / f"{kind}-{_digest(folder)}"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=conversion_folder()) as unfinished:
            write(Path(unfinished) / "model")
            (Path(unfinished) / "model").rename(target)
    return target


def conversion_folder() -> Path:
    """Returns the folder of the conversions of this run; it is deleted when the process ends that made it."""
    if (place := os.environ.get(VARIABLE)) and Path(place).is_dir():
        return Path(place)
    made = tempfile.mkdtemp(prefix="minitx-bench-")
    os.environ[VARIABLE] = made
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def _digest(folder: Path) -> str:
    """Returns a name for the present content of a checkpoint: of its files, their sizes and times."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr((str(folder.resolve()), facts)).encode()).hexdigest()[:16]
