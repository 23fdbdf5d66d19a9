"""Engines in processes of their own, so that the threads of one library do not slow another one down.

A library's threads stay with its process. libgomp, whose threads wait for the next product in a loop, lets
them sleep once a process has more threads than cores: with CTranslate2 or llama.cpp beside it in one process,
minitx decodes at 60 % of its speed. One process runs at a time; the others wait in the read of a pipe.
"""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
import sys
from dataclasses import asdict
from typing import IO, Any

import torch
from torch import Tensor

from minitx.bench.alone import described, place_of
from minitx.bench.conversions import conversion_folder
from minitx.bench.engine import Engine, Rows, Setup, UnsuitableError
from minitx.bench.workloads import Workload

STATED = ("name", "packages", "calls", "families", "dtypes", "devices", "exact", "limit", "weight_bytes")
SIZE = 8  # bytes of the length of a message
PATIENCE = 10  # seconds that a process has to release its model and to end
PROGRAM = """import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process closes this one
sys.path[:] = {path!r}
from minitx.bench.worker import main
main()
"""


class EndedError(Exception):
    """The process of an engine ended during a call.

    Attributes:
        name: of the engine.
    """

    def __init__(self, name: str, code: int) -> None:
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        hint = ", as where memory runs out" if how == "SIGKILL" else ""
        super().__init__(f"its process ended with {how}{hint}")
        self.name = name


class RemoteEngine(Engine):
    """An engine that runs in a new process from `load` to `close`.

    Attributes:
        local: the engine, which loads nothing in this process.
        process: that runs it; None before `load`.
        busy: whether the process has not answered yet.
    """

    process: subprocess.Popen[bytes] | None = None
    busy: bool = False

    def __init__(self, local: Engine) -> None:
        self.local = local
        self._version = ""
        vars(self).update({name: getattr(local, name) for name in STATED})

    def reason(self, setup: Setup, workload: Workload) -> str | None:
        """Returns why the engine cannot run a workload; None if it can."""
        return self.local.reason(setup, workload)

    def version(self) -> str:
        """Returns the versions of its packages, as the engine states them after `load`."""
        return self._version or self.local.version()

    def load(self, setup: Setup) -> None:
        """Starts the process, which loads the checkpoint.

        Raises:
            UnsuitableError: the setup does not suit the engine, or a new process cannot import its class.
        """
        place = place_of(self.local)
        if place.startswith("__main__:") or "<locals>" in place:
            advice = "move it into a module, or take isolated=False"
            raise UnsuitableError(f"a new process cannot import its class {place}; {advice}")
        conversion_folder()  # before the process starts, so that all of a run share one
        command = [sys.executable, "-c", PROGRAM.format(path=sys.path)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            self._version = self._ask("load", **described(self.local, setup))
        except BaseException:
            self.close()
            raise

    def timed(self, workload: Workload, inputs: list[Any], calls: int) -> tuple[float, Any]:
        """Runs a workload in the process, which takes the time; returns what `minitx.bench.calls.timed` does.

        Args:
            workload: the workload.
            inputs: its rows or texts.
            calls: one after the other.
        """
        seconds, answer = self._ask("timed", workload=asdict(workload), inputs=inputs, calls=calls)
        return seconds, answer

    def prefill(self, rows: Rows, written: Rows | None = None) -> Tensor:
        """Returns the logits of the next token, (R, V)."""
        logits: Tensor = self._ask("prefill", rows=rows, written=written)
        return logits

    def close(self) -> None:
        """Ends the process: at once where it is in the middle of a call, else after it released the model."""
        if self.process is None:
            return
        if self.busy:
            self.process.kill()
        stdin, stdout = _pipes(self.process)
        with contextlib.suppress(OSError):  # it has ended already
            stdin.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        stdout.close()

    def _ask(self, call: str, **given: Any) -> Any:
        """Lets the process run a call, and returns its answer or raises its error."""
        if self.process is None:
            raise RuntimeError(f"{self.name} is not loaded")
        if (code := self.process.poll()) is not None:
            raise EndedError(self.name, code)
        stdin, stdout = _pipes(self.process)
        self.busy = True
        try:
            send(stdin, {"call": call, **given})
            reply = receive(stdout)
        except (EOFError, OSError):
            raise EndedError(self.name, self.process.wait()) from None
        self.busy = False
        if "error" not in reply:
            self.compile_seconds = reply["compile_seconds"]
            return reply["answer"]
        if reply["unsuitable"]:
            raise UnsuitableError(reply["message"])
        raise type(reply["error"], (Exception,), {})(reply["message"])


def send(stream: IO[bytes], message: dict[str, Any]) -> None:
    """Writes a message of plain data and tensors."""
    content = io.BytesIO()
    torch.save(message, content)
    data = content.getvalue()
    stream.write(len(data).to_bytes(SIZE, "little") + data)
    stream.flush()


def receive(stream: IO[bytes]) -> dict[str, Any]:
    """Reads a message of `send`; blocks until there is one.

    Raises:
        EOFError: the other process closed the pipe.
    """
    size = int.from_bytes(_read(stream, SIZE), "little")
    message: dict[str, Any] = torch.load(io.BytesIO(_read(stream, size)), weights_only=True)
    return message


def _read(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """Returns the input and the output of a process that was started with both."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the process was started without pipes")
    return process.stdin, process.stdout
