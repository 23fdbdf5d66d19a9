"""The processes of a run: `World` is one process alone, and the interface of several.

The loop asks its world for its share of the data, for sums over all processes, and for the folder of the
run. With one process all of these are trivial; `processes.py` has the world of several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from minitx.training.config import TrainConfig
from minitx.training.state import RunFolder, open_run


class World:
    """One process that trains alone.

    Attributes:
        rank: number of this process in the data-parallel group.
        size: number of processes in the data-parallel group.
        is_first: whether this process writes metrics and shows the progress bar.
        is_alone: whether there are no other processes.
    """

    rank, size, is_first, is_alone = 0, 1, True, True

    def shard(self, model: nn.Module, config: TrainConfig) -> None:
        """Distributes the parameters of a model among the processes, in place."""

    def sum(self, *numbers: float) -> tuple[float, ...]:
        """Returns sums over the data-parallel group, the same in each."""
        return numbers

    def largest(self, number: int) -> int:
        """Returns the largest number of all processes."""
        return number

    def share(self, function: Callable[[], Any]) -> Any:
        """Calls a function in the first process, and returns its result in all of them.

        Args:
            function: returns something that JSON has.

        Raises:
            FirstProcessError: the function failed in the first process, which raises its own error.
        """
        return function()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Adds to an error which process it is of, and whether another one is the cause."""
        yield

    def whole(self, model: nn.Module) -> nn.Module:
        """Returns a model with whole parameters, to be saved by the first process; all must call it."""
        return model

    @contextmanager
    def open_run(self, path: Path, config: TrainConfig, *, resume: bool) -> Iterator[RunFolder]:
        """Opens the folder of a run; arguments and errors are those of `minitx.training.state.open_run`."""
        with open_run(path, config, resume=resume) as folder:
            yield folder
