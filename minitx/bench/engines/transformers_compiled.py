"""transformers with a static cache and `torch.compile`, the fast path of its guide to generation."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from minitx.bench.engine import Rows, Setup
from minitx.bench.engines.transformers_eager import Transformers
from minitx.bench.torch_engine import NO_COMPILER, has_compiler
from minitx.bench.workloads import Call, Workload

Result = TypeVar("Result")


class TransformersCompiled(Transformers):
    """transformers with a static cache and torch.compile.

    Text is generated with `cache_implementation="static"` and transformers' own `CompileConfig`: it compiles
    the step of one token and runs the prompt uncompiled. An encoder's forward is compiled with
    `dynamic=True`, so that batches of many lengths share one graph. The first call of each shape counts as
    compilation.
    """

    name: ClassVar[str] = "transformers-compiled"
    calls: ClassVar[frozenset[Call]] = frozenset(("encode", "generate"))
    backend: ClassVar[str] = "inductor"
    seen: set[Hashable]

    def reason(self, setup: Setup, workload: Workload) -> str | None:
        """Returns why it cannot run a workload: no beams, and no batches of many shapes."""
        if missing := super().reason(setup, workload):
            return missing
        if workload.num_beams > 1:
            return "its beam search is not compiled"
        if workload.call == "generate" and (workload.shortest or workload.fewest):
            return "each shape of a padded batch would be compiled anew"
        return None if has_compiler(setup) else NO_COMPILER

    def load(self, setup: Setup) -> None:
        """Loads the checkpoint; the compilation is the first call's."""
        super().load(setup)
        self.seen = set()
        if setup.family == "encoder":
            self.model = torch.compile(self.model, dynamic=True, backend=self.backend)

    def encode(self, rows: Rows) -> Tensor:
        """Returns the mean hidden states, (R, E)."""
        return self._counted(("encode", tuple(map(len, rows))), partial(super().encode, rows))

    def _batch(self, rows: Rows, new_tokens: int, options: dict[str, Any]) -> Rows:
        from transformers import CompileConfig

        config: Any = CompileConfig(backend=self.backend)
        config._compile_all_devices = True  # else a CPU is not compiled for
        compiled = {**options, "cache_implementation": "static", "compile_config": config}
        shape = len(rows), max(map(len, rows)), new_tokens
        return self._counted(shape, partial(super()._batch, rows, new_tokens, compiled))

    def _counted(self, shape: Hashable, run: Callable[[], Result]) -> Result:
        start = time.perf_counter()
        result = run()
        if shape not in self.seen:
            self.seen.add(shape)
            self.compile_seconds += time.perf_counter() - start
        return result
