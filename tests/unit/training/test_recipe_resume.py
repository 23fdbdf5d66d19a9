"""`minitx train --resume` with a recipe's file, messages of its folders, and labels without an example."""

from __future__ import annotations

from pathlib import Path

import pytest

from minitx.cli.app import main
from minitx.training import plan_recipe, read_recipe
from minitx.training.recipe.end import at_command_line
from minitx.training.recipe.file import changes
from tests.unit.training.test_recipe import labelled, write


def test_values_that_differ_from_those_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write(tmp_path))
    assert main(["train", path, "--set", "train.steps=1", "--set", "train.weight_decay=0.5"]) == 0
    folder = tmp_path / "tiny"
    assert changes(read_recipe(folder)) == []
    overrides = ["train.steps=2"]
    assert changes(read_recipe(path, overrides), overrides) == ["train.weight_decay=None instead of 0.5"]
    capsys.readouterr()
    assert main(["train", path, "--resume", "--set", "train.steps=2"]) == 0
    assert "differs from that of the run: train.weight_decay=None instead of 0.5;" in capsys.readouterr().err
    assert main(["train", path]) == 2
    expected = f"continue it with minitx train {folder} --resume, or pass another folder"
    assert expected in capsys.readouterr().err


def test_a_folder_without_a_run() -> None:
    message = "x holds no run to resume; begin one without resume=True (--resume)."
    assert at_command_line(message) == "x holds no run to resume; begin one without --resume."


def test_a_plan_names_labels_without_an_example(tmp_path: Path) -> None:
    rows = "text,label\na,yes\nb,no\n"
    path = labelled(tmp_path, rows, objective={"name": "sequence-labels"}, labels=["no", "yes", "perhaps"])
    plan = plan_recipe(path, progress=False)
    assert plan.unused_labels == ("perhaps",)
    assert "unused labels     perhaps\n" in str(plan)
