"""Records of a run, TensorBoard's files, the progress bar and the loss curve."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from minitx.training import TrainConfig, loss_curve, read_metrics, train
from minitx.training.metrics import Metrics
from minitx.validation import ArgumentValueError
from tests.unit.training.tiny import NextToken, Texts, tiny_gpt

RECORDS = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}, {"step": 2, "evaluation_loss": 1.5}]


def test_records_are_written_at_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Metrics(path) as metrics:
        for number, record in enumerate(RECORDS, 1):
            metrics.add(record)
            assert read_metrics(path) == RECORDS[:number] == metrics.records
    assert read_metrics(path, 1) == RECORDS[:1]
    assert Metrics(path, 1).records == RECORDS[:1] == read_metrics(path)
    assert read_metrics(tmp_path / "none") == []


@pytest.mark.parametrize("line", ["{", "[]", '{"loss": 1}', "3"])
def test_lines_that_are_no_records(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: not a record"):
        read_metrics(path)
    path.write_text(f'{{"step": 1}}\n{line}')  # the last was not completed
    assert read_metrics(path) == [{"step": 1}]


def test_tensorboard_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    config = TrainConfig(steps=1, tensorboard=True)
    with pytest.raises(ImportError, match=r"tensorboard=True needs TensorBoard .*pip install .*tensorboard"):
        train(tiny_gpt(), Texts(), NextToken(), config, folder=tmp_path)


def test_tensorboard_gets_the_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            calls.append((folder, purge_step))

        def add_scalar(self, *values: Any) -> None:
            calls.append(values)

        def close(self) -> None:
            calls.append("closed")

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    config = TrainConfig(steps=1, tensorboard=True)
    result = train(tiny_gpt(), Texts(), NextToken(), config, folder=tmp_path, evaluation=Texts())
    assert calls[0] == (str(tmp_path / "tensorboard"), 1)
    assert calls[1] == ("evaluation_loss", result.best_loss, 1)
    assert ("loss", result.loss, 1) in calls
    assert calls[-1] == "closed"


def test_the_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    train(tiny_gpt(), Texts(), NextToken(), TrainConfig(steps=3), progress=True)
    shown = capsys.readouterr().err
    assert "3/3" in shown
    assert "loss 4." in shown
    assert "tokens/s" in shown
    train(tiny_gpt(), Texts(), NextToken(), TrainConfig(steps=3))  # not a terminal
    train(tiny_gpt(), Texts(), NextToken(), TrainConfig(steps=3), progress=False)
    assert capsys.readouterr().err == ""


def test_the_loss_curve(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Metrics(path) as metrics:
        for record in RECORDS:
            metrics.add(record)
    svg, again = loss_curve(path, tmp_path / "a.svg"), loss_curve(RECORDS, str(tmp_path / "b.svg"))
    assert svg.read_bytes() == again.read_bytes()
    assert svg.read_bytes().startswith(b"<?xml")
    assert loss_curve(RECORDS[:2], tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ArgumentValueError, match="records with losses"):
        loss_curve([{"step": 1}], tmp_path / "d.png")
    with pytest.raises(ArgumentValueError, match="png or"):
        loss_curve(RECORDS, tmp_path / "d.txt")
