"""The world of several processes: sums, errors and the folder that they share."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from minitx.training.config import TrainConfig
from minitx.training.distributed.copies import gather, remember_plain
from minitx.training.distributed.folder import SharedFolder
from minitx.training.distributed.group import FirstProcessError, join
from minitx.training.distributed.mesh import data_mesh
from minitx.training.distributed.sharding import shard
from minitx.training.distributed.world import World
from minitx.training.state import RunFolder, open_run
from minitx.validation import ArgumentValueError


class Processes(World):
    """This process and the others of its process group, which train one model.

    Args:
        model: the same one in every process, on the device of the process; with
            `minitx.training.distributed.tensor_parallel` several processes share its matrices and its data.

    Raises:
        ArgumentValueError: a model on a device whose collectives the process group does not have.
    """

    is_alone = False

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        join("cuda" if self.device.type == "cuda" else "cpu")
        self.check_device(model)
        self.mesh = data_mesh(model, self.device.type)
        self.rank, self.size = (0, 1) if self.mesh is None else (self.mesh.get_local_rank(), self.mesh.size())
        self.is_first = distributed.get_rank() == 0

    def check_device(self, model: nn.Module) -> None:
        """Checks that the process group has collectives on the device of the model."""
        backends = distributed.get_backend_config()
        if f"{self.device.type}:" not in backends:
            expected = f"on a device of the process group ({backends})"
            hint = "minitx.training.distributed.join() returns the device, and makes the group"
            raise ArgumentValueError("model", self.device, expected, hint)

    def shard(self, model: nn.Module, config: TrainConfig) -> None:
        """Distributes the parameters of a model among the processes, in place."""
        remember_plain(model)
        if self.mesh is not None:
            # A loss changes no output in place, which the warning is about.
            warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)
            shard(model, self.mesh, config.precision)

    def sum(self, *numbers: float) -> tuple[float, ...]:
        """Returns sums over the data-parallel group, the same in each."""
        if self.mesh is None:
            return numbers
        values = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        distributed.all_reduce(values, group=self.mesh.get_group())
        return tuple(values.tolist())

    def largest(self, number: int) -> int:
        """Returns the largest number of all processes."""
        value = torch.tensor(number, device=self.device)
        distributed.all_reduce(value, distributed.ReduceOp.MAX)
        return int(value)

    def share(self, function: Callable[[], Any]) -> Any:
        """Calls a function in the first process, and returns its result in all of them.

        Args:
            function: returns something that JSON has.

        Raises:
            FirstProcessError: the function failed in the first process, which raises its own error.
        """
        error, message = None, {}
        if self.is_first:
            try:
                message = {"result": function()}
            except BaseException as raised:
                error, message = raised, {"error": f"{type(raised).__name__}: {raised}"}
        received = json.loads(self.broadcast(json.dumps(message)))
        if error is not None:
            raise error
        if "error" in received:
            raise FirstProcessError(f"the first process failed: {received['error']}")
        return received["result"]

    def broadcast(self, text: str) -> str:
        """Returns the text of the first process."""
        data = text.encode()
        size = torch.tensor(len(data), device=self.device)
        distributed.broadcast(size, 0)
        content: Tensor = torch.zeros(int(size), dtype=torch.uint8, device=self.device)
        if self.is_first:
            content.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        distributed.broadcast(content, 0)
        return bytes(content.tolist()).decode()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Adds to an error which process it is of, and whether another one is the cause."""
        try:
            yield
        except BaseException as error:
            rank, size = distributed.get_rank(), distributed.get_world_size()
            error.add_note(f"In process {rank} of {size}, numbered from 0.")
            if is_lost(error):
                error.add_note("The reason is that another process has ended; see its own error.")
            raise

    def whole(self, model: nn.Module) -> nn.Module:
        """Returns a copy with whole parameters in the first process, elsewhere the model itself."""
        return gather(model) or model

    @contextmanager
    def open_run(self, path: Path, config: TrainConfig, *, resume: bool) -> Iterator[RunFolder]:
        """Opens the folder of a run in the first process, for all of them.

        Raises:
            FirstProcessError: the first process could not open it, and raises the error of
                `minitx.training.state.open_run`.
        """
        with ExitStack() as stack:

            def _open() -> str:
                return stack.enter_context(open_run(path, config, resume=resume)).identity

            identity = self.share(_open)
            yield SharedFolder(path, identity, config, self, self.model)


def is_lost(error: BaseException) -> bool:
    """Whether an error is that of a collective operation without one of its processes."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(name in text for name in ("gloo", "nccl", "tcpstore"))
