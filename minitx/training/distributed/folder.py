"""The folder of a run of several processes, on a file system that they share.

The first process writes the model and the JSON files, as one process alone does; each process writes its
shards of the tensors. A checkpoint of any number of processes, one included, is read by any other number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from minitx.training.config import TrainConfig
from minitx.training.distributed.shards import read_full, read_shards, write_shards
from minitx.training.distributed.world import World
from minitx.training.state import SHARDS, TENSORS, RunFolder, State


class SharedFolder(RunFolder):
    """The folder of a run, in each of its processes.

    Args:
        path: of the folder.
        identity: of the run.
        config: its settings.
        world: the processes.
        model: whose parameters are distributed.
    """

    def __init__(
        self, path: Path, identity: str, config: TrainConfig, world: World, model: nn.Module
    ) -> None:
        super().__init__(path, identity, config)
        self.world, self.module = world, model

    def save(self, state: State, write_model: Callable[[Path], Any], best: int | None = None) -> Path:
        """Writes a checkpoint; arguments and errors are those of `RunFolder.save`. All processes call it."""
        target = self.checkpoint(state.step)
        exists = self.world.share(target.exists)
        if self.world.is_first:
            super().save(state, write_model, best)
        elif not exists:
            temporary = self.temporary(state.step)
            write_model(temporary)
            self.write_tensors(temporary, state.tensors)
        self.world.largest(0)  # the others wait until the first process has finished
        return target

    def write_tensors(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Writes the shards of this process."""
        write_shards(folder / SHARDS, tensors)

    def read_values(self, folder: Path) -> dict[str, Any]:
        """Reads and checks what JSON holds, in the first process."""
        values: dict[str, Any] = self.world.share(lambda: super(SharedFolder, self).read_values(folder))
        return values

    def read_tensors(self, folder: Path) -> Mapping[str, Tensor]:
        """Reads the shards of this process."""
        parameters = dict(self.module.named_parameters())
        if (folder / SHARDS).is_dir():
            return read_shards(folder / SHARDS, parameters)
        return read_full(folder / TENSORS, parameters)
