"""`scripts/gpu` on the CPU at tiny sizes: the sections run, a failure is reported, results are written."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import decoding, parity, run, training

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def one_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (parity, training):
        monkeypatch.setattr(module, "QUICK_TYPES", ("llama",))
    monkeypatch.setattr(decoding, "QUICK", ("sample, all filters", "beam"))


def test_sections_pass_and_results_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sections = ["parity", "decoding", "training", "speed"]
    assert run.main([*sections, "--device", "cpu", "--quick", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "all sections passed" in printed
    (file,) = tmp_path.glob("*.json")
    results = json.loads(file.read_text())
    assert results["machine"]["torch"] == torch.__version__
    assert list(results["sections"]) == sections
    rows = {name: section["rows"] for name, section in results["sections"].items()}
    assert 0 < rows["parity"][0]["float32"] < 1e-5 < rows["parity"][0]["bfloat16"]
    for name in ("equal rows", "with graphs"):
        assert [row[name] for row in rows["decoding"]] == [1.0, 1.0]
    assert rows["training"][0]["after"] < rows["training"][0]["before"]
    assert [row["name"] for row in rows["speed"]][1:] == ["minitx, batch 1", "minitx, batch 2"]
    assert "| llama | True |" in file.with_suffix(".md").read_text()


def test_a_failure_does_not_stop_the_other_sections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(section: run.Section) -> None:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(parity, "run", broken)
    monkeypatch.setattr(training, "TOLERANCE", -1.0)
    monkeypatch.setattr(decoding, "generate", lambda *_: {"ok": 1 / 0})
    sections = ["parity", "decoding", "training"]
    assert run.main([*sections, "--device", "cpu", "--quick", "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "failed: parity, decoding, training" in printed
    assert "no kernel" in printed
    assert "ZeroDivisionError" in printed


def test_what_is_left_out_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(run.BUDGETS, "parity", -1)
    section = run.run("parity", torch.device("cpu"), True)
    assert section["notes"] == ["out of time: 1 of 1 were left out"]


def test_without_a_device_it_tells_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["scripts/gpu"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts" / "gpu"))
    assert ended.value.code == 0
    assert "skipped: PyTorch finds no CUDA device" in capsys.readouterr().out
