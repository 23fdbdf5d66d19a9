"""FSDP2 in two processes: errors of all of them, one model in two runs, Muon, and targets in one of them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.testing import assert_close

import minitx
from minitx.training import GeneratorAndDiscriminator, ReplacedTokens, Run, TrainConfig
from minitx.training.objectives.base import Batch
from tests.unit.training.tiny import parameters
from tests.unit.training.workers import WITHOUT_DROPOUT, keep, kept, spawn, whole_parameters

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
ELECTRA = {"model_type": "electra", "vocab_size": 32, "embedding_size": 16, **SIZES, **WITHOUT_DROPOUT}


# --- replaced tokens -----------------------------------------------------------------------------------


class Hidden(ReplacedTokens):
    """Batches that are examples already."""

    def __init__(self) -> None:
        object.__setattr__(self, "generator_weight", 1.0)
        object.__setattr__(self, "discriminator_weight", 50.0)

    def __call__(self, examples: Any, generator: torch.Generator) -> Batch:
        return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}

    def options(self) -> dict[str, Any]:
        return {}


def rows() -> list[dict[str, Tensor]]:
    """Returns rows of which only the first hides a token."""
    ids = torch.arange(16).reshape(2, 8) + 5
    labels = torch.full_like(ids, -100)
    labels[0, 3] = 9
    ids[0, 3] = 4
    draws = torch.full(ids.shape, 0.5)
    values = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, "draws": draws}
    return [{name: tensor[row] for name, tensor in values.items()} for row in range(2)]


def step_replaced(batch_size: int) -> nn.Module:
    """Returns both models after two steps."""
    heads = ("masked-lm", "replaced-token-detection")
    pair = [minitx.from_config(ELECTRA, head=head, seed=0, dtype=torch.float64) for head in heads]
    model = GeneratorAndDiscriminator(*pair)
    run = Run(model, rows(), Hidden(), TrainConfig(steps=2, batch_size=batch_size, learning_rate=1e-2))
    run.step(), run.step()
    return model


def replaced_worker(folder: Path) -> None:
    distributed.distributed_c10d._set_pg_timeout(timedelta(seconds=30), distributed.group.WORLD)
    keep(folder, "replaced", None, whole_parameters(step_replaced(1)))


def test_a_process_without_hidden_tokens(tmp_path: Path) -> None:
    """It takes part in the sums of the generator's gradients."""
    spawn(replaced_worker, tmp_path, 2)
    assert_close(kept(tmp_path, "replaced")[1], parameters(step_replaced(2)), rtol=0, atol=1e-9)
