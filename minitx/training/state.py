"""The folder of a run: its config, its metrics and its checkpoints, which hold all that a resumed run needs.

    config.toml               the settings, and the identity of the run
    metrics.jsonl             loss and learning rate, one JSON object per line
    checkpoints/step-000100/  a checkpoint
    model/                    the trained model

A checkpoint is a model that `minitx.load` loads, and beside it training.safetensors (parameters, optimizer
and random states), training.json (step, place in the data, evaluations), config.toml, and checksums.json. It
is written under another name, and renamed when all its files are on the disk. Older ones are removed after
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

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from minitx.checkpoint.write import write_tensors
from minitx.io import naming, read_json, write_atomically, write_json
from minitx.training.config import TrainConfig
from minitx.training.data.randomness import mix
from minitx.training.toml import dump_toml
from minitx.transaction import sync, transaction
from minitx.validation import ArgumentError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CONFIG, METRICS, CHECKPOINTS, MODEL = "config.toml", "metrics.jsonl", "checkpoints", "model"
_TENSORS, _VALUES, _SUMS = "training.safetensors", "training.json", "checksums.json"
_PREFIX, _TEMPORARY, _LOCK = "step-", ".writing-", ".lock"
_BLOCK = 2**24  # bytes that are read at once


@dataclass(frozen=True)
class State:
    """All that a run needs to continue, apart from the model's and the data's definition.

    Attributes:
        step: number of finished steps.
        tensors: parameters, states of the optimizers, and random states, by name.
        values: place in the data, evaluations and running sums, in types that JSON has.
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
            temporary = target.with_name(f"{_TEMPORARY}{target.name}")
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
            check_sums(path)
            values = read_json(path / _VALUES)
            tensors = load_file(path / _TENSORS)
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

    def _write_state(self, folder: Path, state: State) -> None:
        tensors = {name: tensor.detach() for name, tensor in state.tensors.items()}
        with transaction(folder) as files:
            write_tensors({files.path(_TENSORS): tensors}, tensors, [lambda: tensors], {"format": "pt"})
            values = {"run": self.identity, "step": state.step, **state.values}
            write_json(files.path(_VALUES), values)
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


@contextmanager
def open_run(path: Path, config: TrainConfig, *, resume: bool) -> Iterator[RunFolder]:
    """Opens the folder of a run for one process.

    Args:
        path: created if it does not exist.
        config: settings of the run.
        resume: whether the folder holds a run to continue.

    Raises:
        FileExistsError: the folder holds a run, or other files, and `resume` is False.
        FileNotFoundError: the folder holds no run, and `resume` is True.
        ArgumentValueError: settings that the run cannot continue with.
        BlockingIOError: another process trains there.
    """
    if resume:
        check_place(path, resume=True)  # before a folder is created
    place = path / CONFIG
    path.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        check_place(path, resume=resume)
        identity = uuid4().hex
        if resume:
            identity, earlier = read_config(place)
            config.check_continues(earlier)
        write_atomically(place, lambda file: file.write_text(config_text(identity, config), "utf-8"))
        yield RunFolder(path, identity, config)


def check_place(path: Path, *, resume: bool) -> None:
    """Checks that a run can begin in a folder, or continue.

    Raises:
        FileExistsError, FileNotFoundError: as `open_run`.
    """
    place = path / CONFIG
    if resume and not place.exists():
        raise FileNotFoundError(f"{path} holds no run to resume; begin one without resume=True (--resume).")
    if not resume and place.exists():
        raise FileExistsError(
            f"{path} holds a run; continue it with resume=True (--resume), or pass another folder."
        )
    if not resume and path.exists() and any(child.name != _LOCK for child in path.iterdir()):
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


# --- tensors ---------------------------------------------------------------------------------------


def tensors_of(model: torch.nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Returns trainable parameters, buffers and states of the optimizers by name.

    Parameters that are not trained are those of the model that a run begins with, and are not repeated.
    """
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters() if p.requires_grad}
    tensors |= {f"buffer.{name}": buffer for name, buffer in _buffers(model).items()}
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            for key, value in state.items():
                tensors[f"optimizer.{key}.{names[id(parameter)]}"] = value
    return tensors


def frozen_checksum(model: torch.nn.Module) -> int:
    """Returns a checksum of the parameters that are not trained."""
    frozen = [p.detach() for p in model.parameters() if not p.requires_grad]
    return mix(*(int(torch.hash_tensor(p).view(torch.int64)) for p in frozen))


def _buffers(model: torch.nn.Module) -> dict[str, Tensor]:
    """Returns the buffers that a state dict of the model has."""
    stored = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name in stored}


@torch.no_grad()
def load_parameters(tensors: Mapping[str, Tensor], model: torch.nn.Module) -> None:
    """Copies the parameters and buffers of `tensors_of` back; nothing changes if they do not fit.

    Raises:
        ValueError: tensors of another model.
    """
    targets: dict[str, Tensor] = {
        f"model.{name}": p for name, p in model.named_parameters() if p.requires_grad
    }
    targets |= {f"buffer.{name}": buffer for name, buffer in _buffers(model).items()}
    stored = {name for name in tensors if name.startswith(("model.", "buffer."))}
    for name in sorted(stored ^ targets.keys()):
        owner = "the checkpoint" if name in stored else "the model"
        raise ValueError(f"the checkpoint is of another model: only {owner} has {name.partition('.')[2]!r}.")
    for name, target in targets.items():
        ours, theirs = (tuple(t.shape) for t in (target, tensors[name]))
        if (ours, target.dtype) != (theirs, tensors[name].dtype):
            raise ValueError(
                f"the checkpoint is of another model: {name.partition('.')[2]!r} has shape {theirs} and "
                f"{tensors[name].dtype} there, and {ours} and {target.dtype} in this model."
            )
    for name, target in targets.items():
        target.copy_(tensors[name])


def load_optimizer(
    tensors: Mapping[str, Tensor], model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Loads the state of an optimizer from `tensors_of`; its settings stay as they are."""
    names = {id(p): name for name, p in model.named_parameters()}
    places = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    keys = {name.split(".")[1] for name in tensors if name.startswith("optimizer.")}
    states: dict[int, dict[str, Tensor]] = {}
    for index, name in enumerate(places):
        values = {key: tensors.get(f"optimizer.{key}.{name}") for key in keys}
        if state := {key: value for key, value in values.items() if value is not None}:
            states[index] = state
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
