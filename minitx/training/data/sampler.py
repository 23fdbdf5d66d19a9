"""The order of the examples of a run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from minitx.training.data.randomness import ORDER, batch_generator
from minitx.validation import ArgumentValueError, check_integer

_MOST = 2**63 - 1


class Sampler:
    """Draws the examples of a dataset in a new order in every epoch.

    A batch that reaches the end of an epoch is filled from the next one, so all batches have the same size.
    With several processes, each takes its share of the same global order.

    Args:
        size: number of examples.
        seed: of the orders.
        shuffle: False: every epoch has the order of the dataset.
        rank: number of this process.
        world_size: number of processes.

    Attributes:
        epoch: number of the current epoch, from 0.
        position: number of examples that all processes have taken from it.

    Raises:
        ArgumentTypeError, ArgumentValueError: no examples, or a rank that does not exist.
    """

    def __init__(
        self, size: int, seed: int, *, shuffle: bool = True, rank: int = 0, world_size: int = 1
    ) -> None:
        self.size = check_integer("size", size, 1, hint="the dataset has no examples")
        self.seed = check_integer("seed", seed, 0, _MOST)
        self.world_size = check_integer("world_size", world_size, 1)
        self.rank = check_integer("rank", rank, 0, world_size - 1)
        self.shuffle, self.epoch, self.position = shuffle, 0, 0
        self._order: Tensor | None = None  # of the current epoch

    def take(self, count: int) -> list[int]:
        """Returns the indices of the next `count` examples of this process."""
        indices: list[int] = []
        taken, first = 0, self.rank * count
        while taken < self.world_size * count:
            if self._order is None:
                self._order = self.order(self.epoch)
            part = self._order[self.position : self.position + self.world_size * count - taken]
            # The share of this process is the batch's places from `first` to `first + count`.
            indices += part[max(0, first - taken) : max(0, first + count - taken)].tolist()
            taken, self.position = taken + len(part), self.position + len(part)
            if self.position == self.size:
                self.epoch, self.position, self._order = self.epoch + 1, 0, None
        return indices

    def order(self, epoch: int) -> Tensor:
        """Returns the indices of all examples in the order of an epoch: (size,)."""
        if not self.shuffle:
            return torch.arange(self.size)
        generator = batch_generator(self.seed, epoch, ORDER)
        return torch.randperm(self.size, generator=generator)

    def state(self) -> dict[str, Any]:
        """Returns the position of the sampler, for `load_state`; it holds for any number of processes."""
        return {"size": self.size, "seed": self.seed, "epoch": self.epoch, "position": self.position}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continues at the place of a `state`.

        Raises:
            ArgumentValueError: a dataset of another size, or another seed: the order would be another.
        """
        if state["size"] != self.size:
            expected = f"the dataset of the checkpoint, with {state['size']} examples"
            raise ArgumentValueError("len(dataset)", self.size, expected, "start a new run with other data")
        if state["seed"] != self.seed:
            raise ArgumentValueError("seed", self.seed, f"{state['seed']}, as in the checkpoint")
        self.epoch, self.position, self._order = state["epoch"], state["position"], None
