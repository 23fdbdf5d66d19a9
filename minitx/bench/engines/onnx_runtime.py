"""ONNX Runtime: an encoder of transformers, exported as a graph, on its CPU provider."""

from __future__ import annotations

import logging
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from minitx.bench.conversions import converted
from minitx.bench.engine import PADDED_TEXTS, Rows, Setup
from minitx.bench.engines.batches import in_batches, padded
from minitx.bench.engines.texts import TextEngine, unpoolable
from minitx.bench.engines.transformers_eager import quiet
from minitx.bench.workloads import Call, Family, Workload

INPUTS = ("input_ids", "attention_mask")


class OnnxRuntime(TextEngine):
    """ONNX Runtime, for encoders.

    All optimisations of its graph are on, and it has the setup's number of threads.

    The model of transformers is exported by `torch.onnx.export` with any batch and any length, once, in
    `load`; its seconds count as compilation. Rows are sorted by length and padded in batches of 32. Its
    threads do not spin between calls, or they would take the processor from the engine that is timed next.
    """

    name: ClassVar[str] = "onnxruntime"
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx", "onnxscript", "transformers")
    calls: ClassVar[frozenset[Call]] = frozenset(("encode", "embed", "import"))
    families: ClassVar[tuple[Family, ...]] = ("encoder",)
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    imports: ClassVar[str] = "import onnxruntime"
    session: Any

    def reason(self, setup: Setup, workload: Workload) -> str | None:
        """Returns why it cannot run a workload: texts need a tokenizer and mean pooling."""
        if missing := super().reason(setup, workload):
            return missing
        return unpoolable(setup.folder) if workload.call == "embed" else None

    def load(self, setup: Setup) -> None:
        """Exports the checkpoint and loads the graph."""
        import onnxruntime

        self.setup = setup
        start = time.perf_counter()
        path = converted(self.name, setup.folder, partial(export, setup.folder))
        self.compile_seconds = time.perf_counter() - start
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = setup.threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def encode(self, rows: Rows) -> Tensor:
        """Returns the mean hidden states, (R, E)."""
        return in_batches(rows, self._encode, PADDED_TEXTS)

    def _encode(self, rows: Rows) -> Tensor:
        ids, mask = padded(rows)
        feed = {name: tensor.numpy() for name, tensor in zip(INPUTS, (ids, mask), strict=True)}
        hidden = torch.from_numpy(self.session.run(None, feed)[0])
        mean: Tensor = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return mean


class LastHiddenState(nn.Module):
    """An encoder of transformers whose only output is its last hidden state.

    Args:
        model: called with `input_ids` and `attention_mask`, (B, T) each.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Returns the last hidden state, (B, T, E)."""
        hidden: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return hidden


def export(folder: Path, path: Path) -> None:
    """Writes an encoder as ONNX, for any batch and any length.

    Args:
        folder: of the checkpoint.
        path: of the file.
    """
    import transformers

    quiet()
    encoder = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32)
    model = LastHiddenState(encoder.eval())
    ids = torch.zeros(2, 9, dtype=torch.long)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    shape = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of operations of packages that are not installed
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter's own internals
            options: Any = {"input_names": INPUTS, "dynamic_shapes": (shape, shape), "verbose": False}
            program: Any = torch.onnx.export(model, (ids, mask), dynamo=True, **options)
            program.save(path)
    finally:
        log.setLevel(level)
