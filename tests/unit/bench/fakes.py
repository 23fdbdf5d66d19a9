"""Engines that compute nothing: each gives fixed answers and records its calls."""

from __future__ import annotations

import os
import signal
import time
from typing import Any, ClassVar

import torch
from torch import Tensor

from minitx.bench.engine import Engine, Rows, Setup, UnsuitableError
from minitx.bench.workloads import Call

VOCAB = 32
LOG: list[str] = []


class Fake(Engine):
    """Continues each row by counting upwards from its last token."""

    name: ClassVar[str] = "fake"
    calls: ClassVar[frozenset[Call]] = frozenset(("generate", "prefill", "encode", "sample", "train_step"))
    seconds: ClassVar[float] = 0.0

    def load(self, setup: Setup) -> None:
        self.loaded = True

    def generate(self, rows: Rows, new_tokens: int | list[int], num_beams: int = 1) -> Rows:
        LOG.append(self.name)
        time.sleep(self.seconds)
        counts = [new_tokens] * len(rows) if isinstance(new_tokens, int) else new_tokens
        return [[self.token(row, i) for i in range(n)] for row, n in zip(rows, counts, strict=True)]

    def token(self, row: list[int], index: int) -> int:
        return (row[-1] + index + 1) % VOCAB

    def prefill(self, rows: Rows, written: Rows | None = None) -> Tensor:
        whole = [row + more for row, more in zip(rows, written or [[] for _ in rows], strict=True)]
        logits = torch.zeros(len(rows), VOCAB)
        for i, row in enumerate(whole):
            logits[i, (row[-1] + 1) % VOCAB] = 10.0
        return logits

    def encode(self, rows: Rows) -> Tensor:
        return torch.tensor([[float(sum(row)), 1.0] for row in rows])

    def train_step(self, rows: Rows) -> float:
        return 3.0


class Slow(Fake):
    """The same answers, later."""

    name: ClassVar[str] = "slow"
    seconds: ClassVar[float] = 0.01


class Wrong(Fake):
    """Another token at the third place of every row."""

    name: ClassVar[str] = "wrong"

    def token(self, row: list[int], index: int) -> int:
        return 0 if index == 2 else super().token(row, index)

    def encode(self, rows: Rows) -> Tensor:
        return super().encode(rows) * 1.01

    def train_step(self, rows: Rows) -> float:
        return 3.1


class Rounded(Wrong):
    """The same differences, of an engine that is not exact."""

    name: ClassVar[str] = "rounded"
    exact: ClassVar[bool] = False


class Nonsense(Rounded):
    """An engine that is not exact, with logits that have nothing to do with the reference's."""

    name: ClassVar[str] = "nonsense"

    def prefill(self, rows: Rows, written: Rows | None = None) -> Tensor:
        return -super().prefill(rows, written)


class Missing(Fake):
    """Needs a package that is not installed."""

    name: ClassVar[str] = "missing"
    packages: ClassVar[tuple[str, ...]] = ("no-such-package-of-minitx",)


class Failing(Fake):
    """Raises an error of its library."""

    name: ClassVar[str] = "failing"

    def generate(self, rows: Rows, new_tokens: int | list[int], num_beams: int = 1) -> Rows:
        raise KeyError("a kernel")


class Compiled(Fake):
    """Compiles at the first call."""

    name: ClassVar[str] = "compiled"

    def generate(self, rows: Rows, new_tokens: int | list[int], num_beams: int = 1) -> Rows:
        if not self.compile_seconds:
            self.compile_seconds = 2.5
        return super().generate(rows, new_tokens, num_beams)


class Killed(Fake):
    """Its process is killed, as where memory runs out."""

    name: ClassVar[str] = "killed"

    def generate(self, rows: Rows, new_tokens: int | list[int], num_beams: int = 1) -> Rows:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().generate(rows, new_tokens, num_beams)


class Mortal(Fake):
    """Its process ends at the third call of `generate`."""

    name: ClassVar[str] = "mortal"
    count: int = 0

    def generate(self, rows: Rows, new_tokens: int | list[int], num_beams: int = 1) -> Rows:
        self.count += 1
        if self.count == 3:
            os._exit(3)
        return super().generate(rows, new_tokens, num_beams)


class Brittle(Fake):
    """Its process ends when the referee asks for logits."""

    name: ClassVar[str] = "brittle"

    def prefill(self, rows: Rows, written: Rows | None = None) -> Tensor:
        os._exit(5)


class Loud(Fake):
    """Prints, as libraries in C do."""

    name: ClassVar[str] = "loud"

    def generate(self, rows: Rows, new_tokens: int | list[int], num_beams: int = 1) -> Rows:
        os.write(1, b"a kernel was chosen\n")
        return super().generate(rows, new_tokens, num_beams)


class Choosy(Fake):
    """Suits no machine."""

    name: ClassVar[str] = "choosy"

    def load(self, setup: Setup) -> None:
        raise UnsuitableError("it needs another processor")


REGISTRY: dict[str, Any] = {
    kind.name: kind for kind in (Fake, Slow, Wrong, Rounded, Nonsense, Missing, Failing, Compiled)
}
