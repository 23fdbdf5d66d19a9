"""What engines share whose model is a module of PyTorch with minitx's and transformers' arguments."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minitx.bench.engine import Engine, Rows, Setup
from minitx.bench.workloads import Workload
from minitx.io import read_json

LEARNING_RATE = 1e-4
NO_COMPILER = "torch.compile needs a C++ compiler, such as g++"
CLASSIFIER = "ForSequenceClassification"  # end of the names of architectures with a head for texts


class TorchEngine(Engine):
    """An engine whose model is a module of PyTorch.

    Attributes:
        setup: of `load`.
        model: that `load` has loaded.
        optimizer: of the training steps; None before the first.
        pipeline: that classifies texts, with a model of its own; None before the first.
    """

    setup: Setup
    model: Any
    optimizer: torch.optim.Optimizer | None = None
    pipeline: Any = None

    def reason(self, setup: Setup, workload: Workload) -> str | None:
        """Returns why it cannot run a workload: texts are classified with a head and a tokenizer."""
        if (missing := super().reason(setup, workload)) or workload.call != "classify":
            return missing
        if not any(name.endswith(CLASSIFIER) for name in _architectures(setup)):
            return "the checkpoint has no head that classifies texts"
        return None if (setup.folder / "tokenizer.json").is_file() else "the checkpoint has no tokenizer.json"

    def train_step(self, rows: Rows) -> float:
        """Takes a step of AdamW; returns the loss before it."""
        if self.optimizer is None:
            self.model.requires_grad_(True)
            parameters = self.model.parameters()
            self.optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0)
        ids = torch.tensor(rows, device=self.setup.device)
        loss = self.model(input_ids=ids, labels=ids).loss
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def classify(self, texts: Sequence[str]) -> Tensor:
        """Returns the scores of the labels, (N, labels)."""
        if self.pipeline is None:
            self.pipeline = self.make_pipeline()
        answers = self.pipeline(list(texts), top_k=None)
        ordered = [sorted(answer, key=lambda pair: str(pair["label"])) for answer in answers]
        return torch.tensor([[pair["score"] for pair in answer] for answer in ordered])

    def make_pipeline(self) -> Any:
        """Returns the library's pipeline "text-classification", with its defaults."""
        raise self._missing("classify")


def _architectures(setup: Setup) -> list[str]:
    return read_json(setup.folder / "config.json").get("architectures") or []


def has_compiler(setup: Setup) -> bool:
    """Returns whether there is the compiler that torch.compile needs for a CPU; a CUDA device needs none."""
    named = os.environ.get("CXX") or "g++"
    return setup.device != "cpu" or any(map(shutil.which, (named, "clang++", "cl")))
