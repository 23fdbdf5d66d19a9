"""FSDP2 in two processes: errors of all of them, one model in two runs, Muon, and targets in one of them."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.optim import _muon
from torch.testing import assert_close

import minitx
from minitx.training import GeneratorAndDiscriminator, ReplacedTokens, Run, TrainConfig, train
from minitx.training.objectives.base import Batch, Loss
from minitx.validation import ArgumentValueError
from tests.unit.training.tiny import NextToken, Texts, parameters, tiny_gpt
from tests.unit.training.workers import WITHOUT_DROPOUT, keep, kept, spawn, whole_parameters

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
SIZES["max_position_embeddings"] = 16
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
    model = GeneratorAndDiscriminator(*pair, share_embeddings=False)
    run = Run(model, rows(), Hidden(), TrainConfig(steps=2, batch_size=batch_size, learning_rate=1e-2))
    run.step(), run.step()
    return model


# --- Muon ----------------------------------------------------------------------------------------------


def newton_schulz(
    gradient: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """The iteration of `torch.optim.Muon` in the dtype of the gradient, which is not rounded to bfloat16."""
    a, b, c = coefficients
    update = gradient / gradient.norm().clamp(min=eps)
    update = update.T if update.shape[0] > update.shape[1] else update
    for _ in range(steps):
        gram = update @ update.T
        update = a * update + (b * gram + c * gram @ gram) @ update
    return update.T if gradient.shape[0] > gradient.shape[1] else update


def step_muon(batch_size: int) -> nn.Module:
    """Returns a model after three steps of Muon."""
    model = tiny_gpt(0.0, torch.float64)
    config = TrainConfig(steps=3, batch_size=batch_size, learning_rate=1e-2, optimizer="muon")
    run = Run(model, Texts(), NextToken(), config)
    for _ in range(3):
        run.step()
    return model


# --- runs ----------------------------------------------------------------------------------------------


class Spoiled(NextToken):
    """The loss is NaN in a step; `state` counts the micro-batches."""

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        loss = super().loss(model, batch)
        counts["losses"] += 1
        return Loss(loss.total * (math.nan if counts["losses"] == 3 else 1.0), loss.count)


counts = {"losses": 0}
CONFIG = TrainConfig(steps=4, batch_size=2, log_every=1)


def run_twice(folder: Path) -> None:
    """The first run ends with a NaN and continues; the second is of the same model."""
    model = tiny_gpt(0.0, torch.float64)
    try:
        train(model, Texts(), Spoiled(), CONFIG, folder=folder / "run", progress=False)
    except FloatingPointError as error:
        notes = error.__notes__
    train(model, Texts(), Spoiled(), CONFIG, folder=folder / "run", resume=True, progress=False)
    keep(folder, "once", notes, whole_parameters(model))
    train(model, Texts(), NextToken(), CONFIG, folder=folder / "second", progress=False)
    keep(folder, "twice", None, whole_parameters(model))
    with pytest.raises(ArgumentValueError, match="precision='bfloat16' must be 'float32'"):
        Run(model, Texts(), NextToken(), TrainConfig(steps=1, precision="bfloat16"))


def in_two(folder: Path, names: list[str]) -> None:
    """Runs cases in two processes."""
    distributed.distributed_c10d._set_pg_timeout(timedelta(seconds=30), distributed.group.WORLD)
    if "replaced" in names:
        keep(folder, "replaced", None, whole_parameters(step_replaced(1)))
    if "muon" in names:
        keep(folder, "rounded", None, whole_parameters(step_muon(2)))
        _muon._zeropower_via_newtonschulz = newton_schulz
        keep(folder, "muon", None, whole_parameters(step_muon(2)))
    if "runs" in names:
        run_twice(folder)


def test_a_process_without_hidden_tokens(tmp_path: Path) -> None:
    """It takes part in the sums of the generator's gradients."""
    spawn(in_two, tmp_path, 2, ["replaced"])
    assert_close(kept(tmp_path, "replaced")[1], parameters(step_replaced(2)), rtol=0, atol=1e-9)


def test_muon_is_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It orthogonalises full matrices."""
    spawn(in_two, tmp_path, 2, ["muon"])
    one, two = parameters(step_muon(4)), kept(tmp_path, "rounded")[1]
    assert_close(two, one, rtol=0, atol=1e-2)  # Newton-Schulz in bfloat16
    monkeypatch.setattr(_muon, "_zeropower_via_newtonschulz", newton_schulz)
    one, two = parameters(step_muon(4)), kept(tmp_path, "muon")[1]
    assert_close(two, one, rtol=0, atol=1e-9)


def test_one_model_in_two_runs(tmp_path: Path) -> None:
    """A NaN in all processes writes a checkpoint; and a distributed model can be trained once more."""
    spawn(in_two, tmp_path, 2, ["runs"])
    notes, parameters_once = kept(tmp_path, "once")
    assert any("The checkpoint after step 2 is in" in note for note in notes)
    parameters_twice = kept(tmp_path, "twice")[1]
    assert any(not torch.equal(parameters_twice[n], p) for n, p in parameters_once.items())
