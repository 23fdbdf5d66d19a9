"""minitx after `minitx.optimize`."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import minitx
from minitx.bench.engine import Setup
from minitx.bench.engines.minitx_plain import Minitx
from minitx.bench.workloads import Call, Workload


class MinitxOptimized(Minitx):
    """minitx after minitx.optimize(model).

    Attributes:
        options: keyword arguments of `minitx.optimize`.
    """

    name: ClassVar[str] = "minitx-optimized"
    calls: ClassVar[frozenset[Call]] = frozenset(("encode", "embed", "prefill", "generate", "sample"))
    options: ClassVar[dict[str, Any]] = {}

    def reason(self, setup: Setup, workload: Workload) -> str | None:
        """Returns why it cannot run a workload: without `minitx.optimize` none."""
        if not callable(getattr(minitx, "optimize", None)):
            return "minitx.optimize(model) does not exist in this version"
        return super().reason(setup, workload)

    def load(self, setup: Setup) -> None:
        """Loads the checkpoint and applies the passes, whose time is that of a compilation."""
        super().load(setup)
        start = time.perf_counter()
        optimize: Any = minitx.optimize
        self.model = optimize(self.model, **self.options)
        self.compile_seconds = time.perf_counter() - start


class MinitxInt8(MinitxOptimized):
    """minitx after minitx.optimize, with int8 weights."""

    name: ClassVar[str] = "minitx-int8"
    exact: ClassVar[bool] = False
    weight_bytes: ClassVar[float | None] = 1
    options: ClassVar[dict[str, Any]] = {"passes": ["int8"]}


class MinitxBfloat16(MinitxOptimized):
    """minitx after minitx.optimize, with bfloat16 weights."""

    name: ClassVar[str] = "minitx-bfloat16"
    exact: ClassVar[bool] = False
    weight_bytes: ClassVar[float | None] = 2
    options: ClassVar[dict[str, Any]] = {"passes": ["bfloat16"]}
