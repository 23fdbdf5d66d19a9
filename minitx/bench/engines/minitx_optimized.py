"""minitx with its optimizing passes."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import torch

import minitx
from minitx.bench.engine import Rows, Setup, UnsuitableError
from minitx.bench.engines.minitx_plain import Minitx
from minitx.bench.torch_engine import NO_COMPILER, has_compiler
from minitx.bench.workloads import Call, Workload
from minitx.optimize import report
from minitx.optimize.quantize import int4_weights, int8_weights
from minitx.validation import ArgumentValueError

TRIAL = 4  # new tokens of the generation that compiles: the first is the prompt's, the last may be uncompiled


class MinitxOptimized(Minitx):
    """minitx after minitx.optimize(model).

    Its version names the passes that were applied.
    """

    name: ClassVar[str] = "minitx-optimized"
    calls: ClassVar[frozenset[Call]] = frozenset(
        ("encode", "embed", "classify", "prefill", "generate", "sample")
    )

    def version(self) -> str:
        """Returns the version of minitx, with the passes of the loaded model."""
        done = report(self.model) if "model" in vars(self) else None
        passes = ", ".join(applied.name for applied in done.applied) if done else ""
        return f"{super().version()} ({passes})" if passes else super().version()

    def load(self, setup: Setup) -> None:
        """Loads the checkpoint and applies the passes, whose time is that of a compilation."""
        super().load(setup)
        start = time.perf_counter()
        try:
            self.model = self.optimized(self.model)
        except ArgumentValueError as error:
            raise UnsuitableError(error.expected.removeprefix("left out: ")) from error
        self.compile_seconds = time.perf_counter() - start

    def make_pipeline(self) -> Any:
        """Returns the pipeline, with a model that has the passes too."""
        pipeline = super().make_pipeline()
        self.optimized(pipeline.model)
        return pipeline

    def optimized(self, model: Any) -> Any:
        """Applies the passes that pay on this machine."""
        return minitx.optimize(model, verbose=False)


class MinitxInt8(MinitxOptimized):
    """minitx after minitx.optimize(model, int8=True)."""

    name: ClassVar[str] = "minitx-int8"
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "bfloat16")
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    exact: ClassVar[bool] = False
    weight_bytes: ClassVar[float | None] = 1

    def optimized(self, model: Any) -> Any:
        """Lets projections multiply integers, and applies the other passes that pay."""
        return minitx.optimize(model, int8=True, verbose=False)


class MinitxBfloat16(MinitxOptimized):
    """minitx after minitx.optimize(model, dtype=torch.bfloat16)."""

    name: ClassVar[str] = "minitx-bfloat16"
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    exact: ClassVar[bool] = False
    limit: ClassVar[float] = 0.1
    weight_bytes: ClassVar[float | None] = 2

    def optimized(self, model: Any) -> Any:
        """Lets projections multiply in bfloat16, and applies the other passes that pay."""
        return minitx.optimize(model, dtype=torch.bfloat16, verbose=False)


class MinitxInt8Weights(MinitxInt8):
    """minitx with int8 weights; inputs in bfloat16."""

    name: ClassVar[str] = "minitx-int8-weights"

    def optimized(self, model: Any) -> Any:
        """Rounds the weights."""
        return int8_weights(model)


class MinitxInt4Weights(MinitxInt8):
    """minitx with int4 weights in groups of 32; inputs in bfloat16."""

    name: ClassVar[str] = "minitx-int4-weights"
    limit: ClassVar[float] = 0.75  # random weights amplify the rounding: 0.4 in a GPT-2, 0.66 in a T5
    weight_bytes: ClassVar[float | None] = 0.625  # with the scale and the zero point of each group

    def optimized(self, model: Any) -> Any:
        """Rounds the weights."""
        return int4_weights(model)


class MinitxCompiled(MinitxOptimized):
    """minitx after minitx.optimize(model, compile=True).

    A step is compiled when it first runs, once for one row and once for several. The first call for a number
    of rows therefore generates a few tokens before, whose seconds are those of the compilation.
    """

    name: ClassVar[str] = "minitx-compiled"
    calls: ClassVar[frozenset[Call]] = frozenset(("prefill", "generate", "sample"))
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "bfloat16")
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    seen: set[int]

    def reason(self, setup: Setup, workload: Workload) -> str | None:
        """Returns why it cannot run a workload: steps alone are compiled, by a C++ compiler."""
        if setup.family == "encoder":
            return "an encoder generates nothing, and only the steps of a generation are compiled"
        if missing := super().reason(setup, workload):
            return missing
        if workload.call == "prefill":
            return "only the steps of a generation are compiled; minitx-optimized runs the same prefill"
        return None if has_compiler(setup) else NO_COMPILER

    def load(self, setup: Setup) -> None:
        """Loads the checkpoint and applies the passes; the steps are compiled by the first call."""
        super().load(setup)
        self.seen = set()

    def optimized(self, model: Any) -> Any:
        """Lets steps be compiled, and applies the other passes that pay."""
        return minitx.optimize(model, compile=True, verbose=False)

    def _run(self, rows: Rows, new_tokens: int | list[int], strategy: Any) -> Rows:
        """Generates, after a trial that compiles for this number of rows."""
        batch = len(rows) * getattr(strategy, "num_beams", 1)
        if batch not in self.seen:
            self.seen.add(batch)
            start = time.perf_counter()
            if isinstance(new_tokens, int):
                super()._run(rows, TRIAL, strategy)
            else:  # rows that end one after the other run alone in the end
                super()._run(rows[:2], [TRIAL, 2 * TRIAL][: len(rows)], strategy)
            self.compile_seconds += time.perf_counter() - start
        return super()._run(rows, new_tokens, strategy)


class MinitxCompiledInt8(MinitxCompiled):
    """minitx after minitx.optimize(model, int8=True, compile=True)."""

    name: ClassVar[str] = "minitx-compiled-int8"
    exact: ClassVar[bool] = False
    weight_bytes: ClassVar[float | None] = 1

    def optimized(self, model: Any) -> Any:
        """Lets steps be compiled and projections multiply integers, and applies the other passes that pay."""
        return minitx.optimize(model, int8=True, compile=True, verbose=False)
