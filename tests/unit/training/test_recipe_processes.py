"""`minitx train` in several processes: the first one prepares the data and prints, and all train."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import minitx
from minitx.training import read_metrics, run_recipe
from minitx.training.distributed import group, join
from minitx.training.recipe import parts
from minitx.validation import ArgumentValueError
from tests.unit.training.test_recipe import GPT, write
from tests.unit.training.workers import meet_errors, spawn, train_recipes, whole_parameters

ROOT = Path(__file__).parents[3]
EXACT = GPT | dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)


def blocks(folder: Path) -> Path:
    """A recipe of a tokenizer and of token blocks, whose model has no dropout."""
    return write(
        folder,
        model={"config": EXACT, "dtype": "float64"},
        data={"files": "text.txt", "block_length": 8},
        train={"epochs": 2, "batch_size": 2, "log_every": 1},
    )


def assert_same(folder: Path, one: str, other: str) -> None:
    """Losses and models of two runs, up to rounding."""
    losses = [[row["loss"] for row in read_metrics(folder / name / "metrics.jsonl")] for name in (one, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    models = [whole_parameters(minitx.load(folder / name / "model")) for name in (one, other)]
    for name, tensor in models[0].items():
        assert torch.allclose(tensor, models[1][name], rtol=0, atol=1e-9), name


def test_two_processes_are_one(tmp_path: Path) -> None:
    """The first one alone reads the recipe, trains the tokenizer, writes the tokens, prints and plans."""
    run_recipe(blocks(tmp_path), ["train.accumulation=2"], folder=tmp_path / "one", progress=False)
    commands = {
        "run": ["train", "tiny.toml"],
        "again": ["train", "tiny.toml"],
        "key": ["train", "tiny.toml", "--folder", "other", "--set", "train.stepz=1"],
        "plan": ["train", "tiny.toml", "--folder", "other", "--dry-run"],
        "complete": ["train", "tiny", "--resume"],
        "seed": ["train", "tiny", "--resume", "--set", "train.seed=5"],
        "longer": ["train", "tiny", "--resume", "--set", "train.epochs=3"],
    }
    spawn(train_recipes, tmp_path, 2, commands)
    first, second = ({n: (tmp_path / f"{n}-{rank}.txt").read_text() for n in commands} for rank in (0, 1))
    codes = {"run": 0, "again": 2, "key": 2, "plan": 2, "complete": 0, "seed": 2, "longer": 0}
    assert second == {name: f"{code}\n" for name, code in codes.items()}
    assert "The model is in tiny/model." in first["run"]
    expected = "continue it with torchrun ... -m minitx train tiny --resume"
    assert first["again"].startswith(f"2\nminitx: error: tiny holds a run; {expected}")
    assert "train.stepz is no key of a recipe; did you mean steps?" in first["key"]
    assert "a plan (--dry-run) is measured in one process; run it without torchrun." in first["plan"]
    assert first["seed"].startswith("2\nminitx: error: ")  # an error of each process
    assert first["longer"].startswith("0\n")
    longer = ["train.accumulation=2", "train.epochs=3"]
    run_recipe(tmp_path / "one", longer, resume=True, progress=False)
    assert_same(tmp_path, "one", "tiny")


def test_the_first_process_does_not_wait_for_errors_of_others(tmp_path: Path) -> None:
    """After an error of its own the others end, and would never send one."""
    spawn(meet_errors, tmp_path, 2)


def test_a_signal_to_torchrun_ends_all_with_a_checkpoint(tmp_path: Path) -> None:
    """One process continues the run."""
    blocks(tmp_path)
    module = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    command = [*module, "minitx", "train", "tiny.toml", "--set", "train.epochs=9999"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "tiny" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    lines = [line for line in err.splitlines() if line.startswith("minitx: ")]
    assert (out, len(lines)) == ("", 1), err
    reason, _, remedy = lines[0].partition("; ")
    assert reason.startswith("minitx: training was interrupted after step ")
    assert remedy == "continue with torchrun ... -m minitx train tiny --resume"
    step = int(reason.split()[6])
    assert (tmp_path / "tiny" / "checkpoints" / f"step-{step:06d}").is_dir()
    result = run_recipe(tmp_path / "tiny", [f"train.epochs={step}"], resume=True, progress=False)
    assert result.steps > step


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(parts, "has_several_processes", lambda: True)
    monkeypatch.setattr(group, "has_several_processes", lambda: False)  # no group to join
    monkeypatch.setattr(parts, "check_device", torch.device)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert parts.local_device("cuda") == torch.device("cuda", 1)
    assert chosen == [torch.device("cuda", 1)]
    assert parts.local_device("cpu") == torch.device("cpu")
    with pytest.raises(ArgumentValueError, match=r"model.device='cuda:0' must be 'cuda', without a number"):
        parts.local_device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ArgumentValueError, match="device='cuda:2' must be one of the 2 GPUs of this machine"):
        join("cuda")
