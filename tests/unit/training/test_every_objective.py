"""Every objective in the loop: a run that is interrupted, and steps of several micro-batches."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from minitx.tokenizer import Tokenizer
from minitx.training import Interrupted, Loss, Objective, Run, TrainConfig, train
from minitx.training.objectives.base import Batch, Example
from tests.unit.training.every_objective import CASES, Case
from tests.unit.training.tiny import assert_equal, parameters
from tests.unit.training.words import word_tokenizer


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return word_tokenizer(tmp_path_factory.mktemp("words"))


class Acting:
    """A dataset that sends a signal when it is asked for an example for the n-th time."""

    def __init__(self, examples: list[Example], call: int = 0) -> None:
        self.examples, self.calls, self.call = examples, 0, call

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        self.calls += 1
        if self.calls == self.call:
            os.kill(os.getpid(), signal.SIGINT)
        return self.examples[index]


@pytest.mark.parametrize(("optimizer", "precision"), [("adamw", "float32"), ("muon", "bfloat16")])
@pytest.mark.parametrize("name", CASES)
def test_ten_steps_are_five_and_five(
    words: Tokenizer, tmp_path: Path, name: str, optimizer: str, precision: str
) -> None:
    """Bit for bit, with dropout; the signal comes in the middle of an epoch and of an accumulation."""
    case = CASES[name]
    objective = case.make(words)
    options: dict[str, Any] = {"batch_size": 2, "accumulation": 2, "learning_rate": 1e-2}
    config = TrainConfig(steps=10, optimizer=optimizer, precision=precision, **options)
    whole, parts = case.model(), case.model()
    begun = parameters(whole)
    expected = train(whole, case.examples, objective, config)
    assert any(not torch.equal(begun[key], p) for key, p in whole.named_parameters())
    with pytest.raises(Interrupted, match="after step 5 of 10"):
        train(case.model(), Acting(case.examples, 19), objective, config, folder=tmp_path / "run")
    torch.manual_seed(7)  # the global generator is no part of a run
    for p in parts.parameters():
        p.data.fill_(0.5 if p.requires_grad else 0.0)  # the bias of BART's head is not trained
    result = train(parts, case.examples, objective, config, folder=tmp_path / "run", resume=True)
    assert result.loss == expected.loss
    assert_equal(parameters(whole), parameters(parts))


# --- accumulation ----------------------------------------------------------------------------------


def rows_of(batch: Batch, chosen: list[int], count: int) -> Batch:
    """Returns some of `count` examples of a batch, which has one row each or, as DPO's, two."""
    rows = torch.tensor(chosen)
    return {
        key: x if x.dim() == 0 else x[torch.cat([rows + n for n in range(0, len(x), count)])]
        for key, x in batch.items()
    }


class Split(Objective):
    """Takes batches that are rows of a single one, so that both have the same random numbers."""

    def __init__(self, objective: Objective, whole: Batch, count: int) -> None:
        self.objective, self.whole, self.count = objective, whole, count

    def __call__(self, examples: Any, generator: torch.Generator) -> Batch:
        return rows_of(self.whole, [example["number"] for example in examples], self.count)

    def totals(self, batches: Any) -> Batch:
        return self.objective.totals(batches)

    def loss(self, model: torch.nn.Module, batch: Batch) -> Loss:
        return self.objective.loss(model, batch)


def accumulated(
    case: Case, objective: Split, sizes: tuple[int, int]
) -> tuple[list[float], dict[str, Tensor]]:
    """The losses of three steps, and the parameters after them."""
    model = case.model(dropout=0.0, dtype="float64")
    config = TrainConfig(steps=3, batch_size=sizes[0], accumulation=sizes[1], schedule="constant")
    run = Run(model, [{"number": n} for n in range(objective.count)], objective, config)
    sums = [run.step() for _ in range(3)]
    mean = run.evaluate([{"number": n} for n in range(objective.count)])
    return [*(s.loss / s.targets for s in sums), mean, *(s.targets for s in sums)], parameters(model)


@pytest.mark.parametrize("sizes", [(1, 6), (2, 3)], ids=str)
@pytest.mark.parametrize("name", [name for name in CASES if name not in ("pairs", "packed")])
def test_accumulation_is_one_batch(words: Tokenizer, name: str, sizes: tuple[int, int]) -> None:
    """Of all micro-batches, whose numbers of targets differ: the same losses and steps in float64.

    Pairs are told from those of their own batch; packing puts examples into the rows that are free.
    """
    case = CASES[name]
    inner = case.make(words)
    whole = inner(case.examples[:6], torch.Generator().manual_seed(0))
    rows = next(iter(whole.values())).shape[0]
    objective = Split(inner, whole, rows if name == "answers" else 6)
    if name == "answers":
        sizes = (rows // 2, 2) if rows % 2 == 0 else (1, rows)
    expected, steps = accumulated(case, objective, (objective.count, 1))
    found, parts = accumulated(case, objective, sizes)
    assert found == pytest.approx(expected, rel=1e-9)
    for key, parameter in steps.items():
        torch.testing.assert_close(parts[key], parameter, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_totals_of_a_process_without_batches(words: Tokenizer, name: str) -> None:
    """An evaluation may have fewer batches than there are processes, which sum their totals."""
    objective = CASES[name].make(words)
    totals = objective.totals([objective(CASES[name].examples[:2], torch.Generator())])
    assert {key: 0 * total for key, total in totals.items()} == objective.totals([])


def test_packed_examples_of_several_batches(words: Tokenizer) -> None:
    """The rows differ, and the loss does not: no token attends to another document."""
    case = CASES["packed"]
    objective, model = case.make(words), case.model(0.0, "float64")
    whole = objective.loss(model, objective(case.examples[:6], torch.Generator()))
    parts = [objective.loss(model, objective(case.examples[n : n + 2], torch.Generator())) for n in (0, 2, 4)]
    assert sum(part.count for part in parts) == whole.count
    assert abs(sum(part.total for part in parts) - whole.total) < 1e-9
