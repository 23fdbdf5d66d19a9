"""The process of a `minitx.bench.remote.RemoteEngine`: runs one engine's calls as they are asked for."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Mapping
from typing import IO, Any

import torch

from minitx.bench.alone import setup_of
from minitx.bench.calls import timed
from minitx.bench.engine import Engine, Setup, UnsuitableError, make_engine
from minitx.bench.remote import receive, send
from minitx.bench.workloads import Workload


def main() -> None:
    """Answers on the pipes that were stdin and stdout; what libraries print is written to stderr."""
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    worker = Worker()
    if hasattr(select, "poll"):  # which Windows has not: there a call is finished first
        threading.Thread(target=_end_with_parent, args=(worker, asked.fileno()), daemon=True).start()
    with asked, answers:
        serve(worker, asked, answers)


def _end_with_parent(worker: Worker, pipe: int) -> None:
    """Ends this process in the middle of a call where the process that asked for it has ended."""
    poll = select.poll()
    poll.register(pipe, 0)  # no events: it waits for the other end to be closed
    poll.poll()
    if worker.busy:
        os._exit(1)


def serve(worker: Worker, asked: IO[bytes], answers: IO[bytes]) -> None:
    """Answers messages until the pipe is closed; errors are answers too.

    Args:
        worker: runs the calls.
        asked: messages of `RemoteEngine`.
        answers: receives an answer to each.
    """
    while True:
        try:
            message = receive(asked)
        except EOFError:
            break
        worker.busy = True
        try:
            answer = getattr(worker, message.pop("call"))(**message)
            reply = {"answer": answer, "compile_seconds": worker.engine.compile_seconds}
        except Exception as error:  # of any library
            unsuitable = isinstance(error, UnsuitableError)
            reply = {"error": type(error).__name__, "message": str(error), "unsuitable": unsuitable}
        send(answers, reply)
        worker.busy = False
    worker.close()


class Worker:
    """Runs the calls of one engine.

    Attributes:
        engine: the engine.
        setup: the model that it has loaded.
        busy: whether a call is running.
    """

    engine: Engine
    setup: Setup
    busy: bool = False

    def load(self, engine: str, setup: Mapping[str, Any]) -> str:
        """Loads the checkpoint into a new engine; returns the engine's version."""
        self.setup = setup_of(setup)
        torch.set_num_threads(self.setup.threads)
        self.engine = make_engine("engine", {"engine": engine})
        self.engine.load(self.setup)
        return self.engine.version()

    def timed(self, workload: Mapping[str, Any], inputs: list[Any], calls: int) -> tuple[float, Any]:
        """Runs a workload; returns the seconds of a call and the answer."""
        return timed(self.engine, self.setup, Workload(**workload), inputs, calls)

    def prefill(self, rows: list[list[int]], written: list[list[int]] | None) -> torch.Tensor:
        """Returns the logits of the next token, (R, V)."""
        return self.engine.prefill(rows, written)

    def close(self) -> None:
        """Releases the model."""
        if "engine" in vars(self):
            self.engine.close()
