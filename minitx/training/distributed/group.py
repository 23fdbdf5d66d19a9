"""The process group of torchrun."""

from __future__ import annotations

import os

import torch
from torch import distributed

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def has_several_processes() -> bool:
    """Whether this process is one of several, of torchrun or of an initialised process group."""
    if not distributed.is_available():
        return False
    if distributed.is_initialized():
        return distributed.get_world_size() > 1
    return all(name in os.environ for name in _TORCHRUN) and int(os.environ["WORLD_SIZE"]) > 1


def join() -> torch.device:
    """Joins the other processes of torchrun, and returns the device of this one.

    `train` joins by itself; call it before, where the model is to be built on the device of this process.
    Alone, without torchrun, it returns the device only.

    Returns:
        The GPU that has the number of this process on its machine, or the CPU.
    """
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if has_several_processes() and not distributed.is_initialized():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    return device
