"""Finds out whether this process trains alone."""

from __future__ import annotations

from torch import nn

from minitx.training.distributed.group import has_several_processes
from minitx.training.distributed.world import World


def find_world(model: nn.Module) -> World:
    """Returns the world that this process trains a model in: alone, or with the others of torchrun."""
    if not has_several_processes():
        return World()
    from minitx.training.distributed.processes import Processes

    return Processes(model)
