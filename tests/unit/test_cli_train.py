"""`minitx train`: its outputs, its exit codes, and a run that is interrupted and continues."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path

import pytest

from minitx.cli import app as cli
from minitx.training.loop import Run, Sums
from tests.unit.training.test_recipe import write


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe in the working directory, at 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return Path(write(tmp_path).name)


def test_a_run_ends_with_the_command_that_uses_its_model(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", str(recipe), "--set", "train.steps=2", "--set", "train.seed=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 steps, loss ")
    assert lines[1:] == [
        "The model is in tiny/model. Use it:",
        '  minitx generate tiny/model "Once upon a time" --temperature 0.8',
    ]
    assert cli.main(["generate", "tiny/model", "the", "--max-new-tokens", "2"]) == 0
    capsys.readouterr()
    assert cli.main(["train", "tiny", "--resume", "--set", "train.steps=3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 3


def test_dry_run(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", str(recipe), "--dry-run"]) == 0
    out = capsys.readouterr().out
    for word in (
        "parameters",
        "tokens per epoch",
        "steps",
        "memory",
        "activations",
        "time",
        "[model.config]",
    ):
        assert word in out
    assert max(len(line) for line in out.splitlines() if "/" not in line) <= 80
    assert not Path("tiny").exists()
    assert cli.main(["train", str(recipe), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["steps"] == 4
    assert plan["memory_bytes"] > plan["parameter_bytes"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_an_interruption_names_the_command_that_continues(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, code: int
) -> None:
    step = Run.step
    before = signal.getsignal(number)
    if before == signal.SIG_DFL:  # so that a failure of this test does not end the tests
        monkeypatch.setattr(signal, "SIG_DFL", signal.default_int_handler)
        signal.signal(number, signal.default_int_handler)
    monkeypatch.setattr(Run, "step", lambda run: (os.kill(os.getpid(), number), step(run))[1])
    try:
        assert cli.main(["train", str(recipe), "--folder", "my run"]) == code
    finally:
        signal.signal(number, before)
    out, err = capsys.readouterr()
    again = "minitx train 'my run' --resume"
    assert (out, err) == (
        "",
        f"minitx: training was interrupted after step 1 of 4; continue with {again}\n",
    )
    monkeypatch.setattr(Run, "step", step)
    assert cli.main(["train", "my run", "--resume"]) == 0
    assert capsys.readouterr().out.startswith("4 steps")


def test_an_error_in_a_step_names_the_checkpoint(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    accumulate = Run.accumulate

    def fail(run: Run) -> Sums:
        sums = accumulate(run)
        sums.loss = math.nan if run.finished == 2 else sums.loss
        return sums

    monkeypatch.setattr(Run, "accumulate", fail)
    assert cli.main(["train", str(recipe)]) == 2
    err = capsys.readouterr().err
    assert "the loss of step 3 is infinite or NaN" in err
    assert "The checkpoint after step 2 is in tiny/checkpoints/step-000002" in err
    assert "continue from it with resume=True (--resume)." in err
    monkeypatch.setattr(Run, "accumulate", accumulate)
    assert cli.main(["train", "tiny", "--resume"]) == 0


def test_errors_name_keys_and_options(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--set", "train.stepz=1"], "train.stepz is no key of a recipe; did you mean steps?"),
        (["--set", "steps"], "--set 'steps' must be key=value; such as train.steps=50."),
        (["--resume"], "tiny holds no run to resume; begin one without --resume."),
    ):
        assert cli.main(["train", str(recipe), *arguments]) == 2
        assert f"minitx: error: {message}" in capsys.readouterr().err
