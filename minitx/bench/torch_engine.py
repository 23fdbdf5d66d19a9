"""What engines share whose model is a module of PyTorch with minitx's and transformers' arguments."""

from __future__ import annotations

from typing import Any

import torch

from minitx.bench.engine import Engine, Rows, Setup

LEARNING_RATE = 1e-4


class TorchEngine(Engine):
    """An engine whose model is a module of PyTorch.

    Attributes:
        setup: of `load`.
        model: that `load` has loaded.
        optimizer: of the training steps; None before the first.
    """

    setup: Setup
    model: Any
    optimizer: torch.optim.Optimizer | None = None

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
