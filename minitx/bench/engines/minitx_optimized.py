"""minitx with its optimizing passes."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from minitx.bench.engine import Setup
from minitx.bench.engines.minitx_plain import Minitx
from minitx.bench.workloads import Call
from minitx.optimize import fuse_projections, pack_weights, packed_is_faster, unpadded
from minitx.optimize.quantize import int4_weights, int8_dynamic, int8_weights


class MinitxOptimized(Minitx):
    """minitx with fused, packed and unpadded layers.

    Queries, keys and values are one product; weights are packed where that is faster on this machine;
    encoders compute no padding.
    """

    name: ClassVar[str] = "minitx-optimized"
    calls: ClassVar[frozenset[Call]] = frozenset(("encode", "embed", "prefill", "generate", "sample"))

    def load(self, setup: Setup) -> None:
        """Loads the checkpoint and applies the passes, whose time is that of a compilation."""
        super().load(setup)
        start = time.perf_counter()
        self.model = self.optimized(self.model, setup)
        self.compile_seconds = time.perf_counter() - start

    def optimized(self, model: Any, setup: Setup) -> Any:
        """Applies the passes to a model."""
        model = fuse_projections(model)
        if setup.device == "cpu" and packed_is_faster(model.dtype):
            model = pack_weights(model)
        return unpadded(model) if setup.family == "encoder" else model


class MinitxInt8(MinitxOptimized):
    """minitx with int8 products, of weights and inputs."""

    name: ClassVar[str] = "minitx-int8"
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "bfloat16")
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    exact: ClassVar[bool] = False
    weight_bytes: ClassVar[float | None] = 1

    def optimized(self, model: Any, setup: Setup) -> Any:
        """Rounds the weights."""
        model = int8_dynamic(model)
        return unpadded(model) if setup.family == "encoder" else model


class MinitxInt8Weights(MinitxInt8):
    """minitx with int8 weights; inputs in bfloat16."""

    name: ClassVar[str] = "minitx-int8-weights"

    def optimized(self, model: Any, setup: Setup) -> Any:
        """Rounds the weights."""
        return int8_weights(model)


class MinitxInt4Weights(MinitxInt8):
    """minitx with int4 weights in groups of 32; inputs in bfloat16."""

    name: ClassVar[str] = "minitx-int4-weights"
    weight_bytes: ClassVar[float | None] = 0.625  # with the scale and the zero point of each group

    def optimized(self, model: Any, setup: Setup) -> Any:
        """Rounds the weights."""
        return int4_weights(model)
