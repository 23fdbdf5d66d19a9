"""The folder of a run: its config, its metrics and its checkpoints, which hold all that a resumed run needs.

    config.toml               the settings, and the identity of the run
    metrics.jsonl             loss and learning rate, one JSON object per line
    checkpoints/step-000100/  a checkpoint
    model/                    the trained model

A checkpoint is a model that `minitx.load` loads, and beside it training.safetensors (parameters, optimizer
and random states), training.json (step, position of the sampler, evaluations), config.toml, checksums.json.
It is written under another name, and renamed when all its files are on the disk. Older ones are removed after
that, so a run that is killed, or that fills the disk, keeps its last complete checkpoint.
"""

from __future__ import annotations

import os
import shutil
import tomllib
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from minitx.checkpoint.write import write_tensors
from minitx.io import naming, read_json, write_atomically, write_json
from minitx.training.config import TrainConfig
from minitx.training.toml import dump_toml
from minitx.transaction import sync, transaction
from minitx.validation import ArgumentError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CONFIG, METRICS, CHECKPOINTS, MODEL = "config.toml", "metrics.jsonl", "checkpoints", "model"
TENSORS, VALUES, _SUMS = "training.safetensors", "training.json", "checksums.json"
SHARDS = "training"  # of several processes, instead of training.safetensors
_PREFIX, _TEMPORARY, _LOCK = "step-", ".writing-", ".lock"
_BLOCK = 2**24  # bytes that are read at once


@dataclass(frozen=True)
class State:
    """All that a run needs to continue, apart from the model's and the data's definition.

    Attributes:
        step: number of finished steps.
        tensors: parameters, states of the optimizers, and random states, by name.
        values: position of the sampler, evaluations and running sums, in types that JSON has.
    """

    step: int
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]


class RunFolder:
    """The folder of a run that is in progress; `open_run` opens it.

    Attributes:
        path: of the folder.
        identity: of the run, which all its checkpoints hold.
        config: its settings.
    """

    def __init__(self, path: Path, identity: str, config: TrainConfig) -> None:
        self.path, self.identity, self.config = path, identity, config

    @property
    def metrics(self) -> Path:
        """The file of the metrics."""
        return self.path / METRICS

    @property
    def model(self) -> Path:
        """The folder of the trained model."""
        return self.path / MODEL

    def checkpoint(self, step: int) -> Path:
        """Returns the folder of the checkpoint after a step."""
        return self.path / CHECKPOINTS / f"{_PREFIX}{step:06d}"

    def temporary(self, step: int) -> Path:
        """Returns the folder in which the checkpoint after a step is written."""
        path = self.checkpoint(step)
        return path.with_name(f"{_TEMPORARY}{path.name}")

    def steps(self) -> list[int]:
        """Returns the steps after which there are complete checkpoints, in order."""
        names = [path.name.removeprefix(_PREFIX) for path in self.path.glob(f"{CHECKPOINTS}/{_PREFIX}*")]
        return sorted(int(name) for name in names if name.isdecimal())

    def save(self, state: State, write_model: Callable[[Path], Any], best: int | None = None) -> Path:
        """Writes a checkpoint, then removes all but the latest `config.keep` and the best one.

        Args:
            state: of the run.
            write_model: writes the model to a folder.
            best: step of the checkpoint with the lowest evaluation loss.

        Returns:
            Its folder; one that exists already is left as it is.

        Raises:
            OSError: a full disk, or no permission; the earlier checkpoints stay.
        """
        target = self.checkpoint(state.step)
        if not target.exists():
            self._clean()
            temporary = self.temporary(state.step)
            try:
                with naming(target):
                    temporary.mkdir(parents=True)
                    write_model(temporary)
                    self._write_state(temporary, state)
                    os.rename(temporary, target)
                    sync(target.parent)
                    sync(self.path)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        for step in self.steps()[: -self.config.keep]:
            if step not in (best, state.step):
                self._remove(step)
        return target

    def load(self, step: int) -> State:
        """Reads the checkpoint after a step.

        Raises:
            ValueError: a damaged file, or a checkpoint of another run.
        """
        path = self.checkpoint(step)
        try:
            values = self.read_values(path)
            tensors = self.read_tensors(path)
        except (OSError, ValueError, SafetensorError) as error:
            earlier = [other for other in self.steps() if other < step]
            remedy = f"step {earlier[-1]}" if earlier else "the beginning"
            raise ValueError(
                f"{path} is damaged ({error}); remove that folder to continue from {remedy}."
            ) from error
        if values.get("run") != self.identity or values.get("step") != step:
            raise ValueError(
                f"{path} is a checkpoint of another run, or of another step, than its place in {self.path}; "
                "move it back where it belongs."
            )
        return State(step, tensors, values)

    def write_tensors(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Writes the tensors of a checkpoint."""
        with transaction(folder) as files:
            write_tensors({files.path(TENSORS): tensors}, tensors, [lambda: tensors], {"format": "pt"})

    def read_values(self, folder: Path) -> dict[str, Any]:
        """Checks the files of a checkpoint, and reads all but its tensors."""
        check_sums(folder)
        values: dict[str, Any] = read_json(folder / VALUES)
        return values

    def read_tensors(self, folder: Path) -> Mapping[str, Tensor]:
        """Reads the tensors of a checkpoint, also those that several processes wrote."""
        if (folder / SHARDS).is_dir():
            from minitx.training.distributed.shards import read_shards

            return read_shards(folder / SHARDS)
        return load_file(folder / TENSORS)

    def _write_state(self, folder: Path, state: State) -> None:
        self.write_tensors(folder, {name: tensor.detach() for name, tensor in state.tensors.items()})
        with transaction(folder) as files:
            values = {"run": self.identity, "step": state.step, **state.values}
            write_json(files.path(VALUES), values)
            files.write_all({CONFIG: config_text(self.identity, self.config)})
        sums = {path.relative_to(folder).as_posix(): checksum(path) for path in _files(folder)}
        write_atomically(folder / _SUMS, lambda path: write_json(path, sums))
        sync(folder)

    def _remove(self, step: int) -> None:
        """Removes a checkpoint; it loses its name first, so that no part of it is taken for a whole one."""
        path = self.checkpoint(step)
        temporary = path.with_name(f"{_TEMPORARY}{path.name}")
        os.rename(path, temporary)
        shutil.rmtree(temporary, ignore_errors=True)

    def _clean(self) -> None:
        """Removes what a process that was killed has left."""
        for path in self.path.glob(f"{CHECKPOINTS}/{_TEMPORARY}*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in _unfinished_files(self.path):
            path.unlink()

    def write_config(self) -> None:
        """Writes config.toml; a run that resumes does so once its checkpoint is loaded."""
        text = config_text(self.identity, self.config)
        write_atomically(self.path / CONFIG, lambda file: file.write_text(text, "utf-8"))


@contextmanager
def open_run(path: Path, config: TrainConfig, *, resume: bool) -> Iterator[RunFolder]:
    """Opens the folder of a run for one process.

    Args:
        path: created if it does not exist.
        config: settings of the run.
        resume: whether the folder holds a run to continue.

    Raises:
        FileExistsError: the folder holds a run, or other files, and `resume` is False.
        NotADirectoryError: a file.
        FileNotFoundError: the folder holds no run, and `resume` is True.
        ArgumentValueError: settings that the run cannot continue with.
        BlockingIOError: another process trains there.
    """
    if resume or path.is_file():
        check_place(path, resume=resume)  # before a folder is created
    place = path / CONFIG
    path.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        check_place(path, resume=resume)
        identity = uuid4().hex
        if resume:
            identity, earlier = read_config(place)
            config.check_continues(earlier)
        folder = RunFolder(path, identity, config)
        folder._clean()
        if not resume:
            folder.write_config()
        yield folder


def _unfinished_files(folder: Path) -> list[Path]:
    """Returns files of the run that a process that was killed was writing (`write_atomically`)."""
    return [path for name in (CONFIG, METRICS) for path in folder.glob(f".{name}.*.tmp")]


def check_place(path: Path, *, resume: bool) -> None:
    """Checks that a run can begin in a folder, or continue.

    Raises:
        FileExistsError, FileNotFoundError, NotADirectoryError: as `open_run`.
    """
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path} is a file; pass a folder for the run.")
    place = path / CONFIG
    if resume and not place.exists():
        raise FileNotFoundError(f"{path} holds no run to resume; begin one without resume=True (--resume).")
    if not resume and place.exists():
        raise FileExistsError(
            f"{path} holds a run; continue it with resume=True (--resume), or pass another folder."
        )
    own = {path / _LOCK, *_unfinished_files(path)}
    if not resume and path.exists() and {*path.iterdir()} - own:
        raise FileExistsError(f"{path} is not empty; pass a new folder for the run.")


def config_text(identity: str, config: TrainConfig) -> str:
    """Returns the content of a config.toml."""
    return dump_toml({"run": identity, "training": config.to_dict()})


def read_config(path: Path) -> tuple[str, TrainConfig]:
    """Reads the identity of a run and its settings.

    Raises:
        ValueError: not the config.toml of a run.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
        return str(values["run"]), TrainConfig.from_dict(values["training"])
    except (KeyError, AttributeError, ValueError, ArgumentError) as error:
        raise ValueError(f"{path} is not the config of a run ({error!r}); was it edited?") from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Excludes other processes from a folder; the system releases the lock of one that dies."""
    with (folder / _LOCK).open("a") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlockingIOError(
                    f"another process trains in {folder}; wait for it, or pass another folder."
                ) from None
            except OSError:  # a file system without locks
                pass
        yield


# --- checksums -------------------------------------------------------------------------------------


def checksum(path: Path) -> str:
    """Returns the CRC-32 of a file, in hexadecimal."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return f"{value:08x}"


def check_sums(folder: Path) -> None:
    """Checks that the files of a checkpoint are those that were written.

    Raises:
        ValueError: a file has other content.
        OSError: a file is missing.
    """
    for name, expected in read_json(folder / _SUMS).items():
        if checksum(folder / name) != expected:
            raise ValueError(f"the checksum of {name} is not the one in {_SUMS}")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _SUMS)
