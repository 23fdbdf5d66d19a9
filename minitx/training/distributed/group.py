"""The process group of torchrun, and work that the first of its processes does for all."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from minitx.validation import ArgumentValueError, check_choice

T = TypeVar("T")
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_LONGEST = timedelta(days=30)  # that the others wait for the first process; torchrun ends them if it fails
_SOON = timedelta(seconds=3)  # in which the first process has an error that all have


class FirstProcessError(RuntimeError):
    """Work of the first process failed, which raises its own error; the others raise this one."""


def has_several_processes() -> bool:
    """Whether this process is one of several, of torchrun or of an initialised process group."""
    if not distributed.is_available():
        return False
    if distributed.is_initialized():
        return distributed.get_world_size() > 1
    return all(name in os.environ for name in _TORCHRUN) and int(os.environ["WORLD_SIZE"]) > 1


def join(device_type: str | None = None) -> torch.device:
    """Joins the other processes of torchrun, and returns the device of this one.

    `train` joins by itself; call it before, where the model is to be built on the device of this process.
    Alone, without torchrun, it returns the device only.

    Args:
        device_type: "cuda", the GPU that has the number of this process on its machine; "cpu"; None: a GPU
            where there are any.

    Raises:
        ArgumentValueError: more processes than GPUs.
    """
    has_gpus = torch.cuda.is_available()
    if device_type is None:
        device_type = "cuda" if has_gpus else "cpu"
    device = torch.device(check_choice("device_type", device_type, ("cpu", "cuda")))
    if device_type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if (count := torch.cuda.device_count()) <= device.index:
            hint = "start fewer processes (--nproc-per-node), or train on the CPU"
            raise ArgumentValueError("device", str(device), f"one of the {count} GPUs of this machine", hint)
        torch.cuda.set_device(device)
    if has_several_processes() and not distributed.is_initialized():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if has_gpus else "gloo")
        if not has_gpus:  # NCCL could wait for processes that are elsewhere
            atexit.register(leave)
    return device


def leave() -> None:
    """Leaves the process group, if this process is in one: a thread of it that outlives Python aborts."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def joined(*, quiet: bool = False) -> Iterator[None]:
    """Joins the process group of torchrun, and leaves it at the end; one that is initialised stays.

    After an error the group stays too: NCCL would wait for processes that are elsewhere.

    Args:
        quiet: let the first process alone print; errors that leave the block are not printed here.
    """
    joins = has_several_processes() and not distributed.is_initialized()
    if joins:
        join("cpu")  # of a machine with GPUs, the group serves both
    with ExitStack() as stack:
        if quiet and not is_first():
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        yield
    if joins:
        distributed.destroy_process_group()


def is_first() -> bool:
    """Whether this process is the first one, or the only one."""
    return not has_several_processes() or distributed.get_rank() == 0


def is_repeated(error: Exception) -> bool:
    """Whether this is not the first process, and that one has the same error, which it prints.

    The first process never waits, since others may have no error of theirs, as after `from_first`; the others
    wait a moment for the first one. It is no collective operation, which would wait for processes without an
    error.

    Args:
        error: of this process.
    """
    if not has_several_processes():
        return False
    text = f"{type(error).__name__}: {error}"
    store = distributed.distributed_c10d._get_default_store()
    try:
        if is_first():
            store.set(text, "")
            return False
        store.wait([text], _SOON)
    except RuntimeError:  # the first process does not have this error, or has ended
        return False
    return True


def number_of_processes() -> int:
    """Returns the number of processes of the group; 1 without one."""
    return distributed.get_world_size() if has_several_processes() else 1


def from_first(function: Callable[[], T]) -> T:
    """Calls a function in the first process, and returns its result in all of them, which wait for it.

    Args:
        function: of any duration; returns an object that can be pickled.

    Raises:
        FirstProcessError: the function failed in the first process, which raises its own error.
    """
    if not has_several_processes():
        return function()
    group = distributed.new_group(backend="gloo", timeout=_LONGEST)
    error: BaseException | None = None
    message: list[Any] = [None, None]  # the result and the error, as sent
    if is_first():
        try:
            message[0] = function()
        except BaseException as raised:
            error, message[1] = raised, f"{type(raised).__name__}: {raised}"
    distributed.broadcast_object_list(message, 0, group)
    distributed.destroy_process_group(group)
    if error is not None:
        raise error
    if message[1] is not None:
        raise FirstProcessError(f"the first process failed: {message[1]}")
    result: T = message[0]
    return result
