"""`minitx bench` and `minitx bench compare`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from minitx.bench import session
from minitx.bench.results.files import read
from tests.unit.bench.fakes import REGISTRY
from tests.unit.bench.test_runner import folder  # noqa: F401 - a fixture
from tests.unit.test_cli import Run, fails, run  # noqa: F401 - a fixture

QUICK = ("--rounds", 1, "--threads", 1, "--no-memory", "--no-roofline", "--new-tokens", 3)


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "Session", partial(session.Session, isolated=False))  # fakes are patched
    monkeypatch.setattr(session, "ENGINES", {**session.ENGINES, **REGISTRY})
    monkeypatch.setattr("minitx.bench.runner.SHORTEST", 0.0)  # short calls are not repeated


def test_bench(run: Run, folder: Path, tmp_path: Path) -> None:  # noqa: F811
    paths = [tmp_path / name for name in ("a.jsonl", "a.md", "a.csv", "a.png")]
    outputs = [word for path in paths for word in ("-o", path)]
    engines = ("--engine", "transformers", "--engine", "minitx", "--engine", "missing")
    code, out, err = run("bench", "decode", "--model", folder, *engines, *QUICK, *outputs)
    assert code == 0
    assert "1.00x" in out
    assert "skipped: the package no-such-package-of-minitx is not" in out
    assert "minitx: written: " in err
    assert all(path.stat().st_size > 100 for path in paths)
    rows = read(paths[0]).rows
    assert [row.engine for row in rows] == ["transformers", "minitx", "missing"]
    assert [len(row.samples) for row in rows] == [1, 1, 0]
    assert (rows[0].new_tokens, rows[0].threads, rows[0].batch) == (3, 1, 1)


def test_bench_prints_json_alone(run: Run, folder: Path) -> None:  # noqa: F811
    code, out, err = run("bench", "--model", folder, "--engine", "fake", "--length", 7, "--json", *QUICK)
    assert (code, err) == (0, "")
    first, *rows = map(json.loads, out.splitlines())
    assert first["machine"]["threads"] == 1
    assert [(row["workload"], row["engine"], row["length"]) for row in rows] == [("decode", "fake", 7)]


def test_a_wrong_answer_has_an_exit_code(run: Run, folder: Path) -> None:  # noqa: F811
    engines = ("--engine", "fake", "--engine", "wrong")
    code, out, _ = run("bench", "decode", "--model", folder, *engines, *QUICK)
    assert code == 1
    assert "WRONG" in out
    assert "the first difference is at row 0, token 2" in out


def test_what_was_measured_is_kept_where_the_rest_is_interrupted(
    run: Run,  # noqa: F811
    folder: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(self: object, rows: object, new_tokens: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(REGISTRY["fake"], "sample", interrupted)
    path = tmp_path / "a.jsonl"
    words = ("bench", "decode", "sample", "--model", folder, "--engine", "fake", "--batch", 1)
    code, out, _ = run(*words, *QUICK, "--output", path)
    assert code == 130
    assert "decode: greedy" in out
    assert [row.workload for row in read(path).rows] == ["decode"]


def test_the_other_files_are_written_where_one_cannot_be(
    run: Run,  # noqa: F811
    folder: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(run: object, path: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("minitx.bench.results.files.draw", refused)
    picture, lines = tmp_path / "a.png", tmp_path / "a.jsonl"
    words = ("bench", "decode", "--model", folder, "--engine", "fake,slow")
    code, out, err = run(*words, *QUICK, "-o", picture, "-o", lines)
    assert code == 2
    assert "decode: greedy" in out
    assert f"error: {picture} was not written: no space left" in err
    assert err.count("written: ") == 2
    assert [row.engine for row in read(lines).rows] == ["fake", "slow"]


def test_list(run: Run) -> None:  # noqa: F811
    code, out, _ = run("bench", "--list")
    assert code == 0
    assert "decode-mixed" in out
    assert "transformers-unsorted" in out
    assert set(json.loads(run("bench", "--list", "--json")[1])) == {"workloads", "models", "engines"}


def test_mistakes_are_named(run: Run, folder: Path, tmp_path: Path) -> None:  # noqa: F811
    assert "did you mean decode?" in fails(run, "bench", "decod")
    assert "did you mean minitx?" in fails(run, "bench", "--engine", "minitxx")
    assert "did you mean minitx/tiny-decoder?" in fails(run, "bench", "--model", "minitx/tiny-decoderr")
    assert "encode needs an encoder" in fails(run, "bench", "encode", "--model", folder)
    assert "--new-tokens 3 must be left out" in fails(run, "bench", "embed", "--new-tokens", 3)
    assert "an engine, which --engine names" in fails(run, "bench", "--engine", "fake", "minitx")
    assert ".png" in fails(run, "bench", "--output", tmp_path / "a.txt")


def test_compare(run: Run, folder: Path, tmp_path: Path) -> None:  # noqa: F811
    paths = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    rounds = ("--engine", "fake", "--output", paths[0], "--rounds", 6)
    assert run("bench", "decode", "--model", folder, *QUICK, *rounds)[0] == 0
    first, row = paths[0].read_text().splitlines()
    for path, factor in zip(paths, (1, 10), strict=True):
        samples = [factor * (1 + 0.01 * number) for number in range(6)]
        path.write_text(f"{first}\n{json.dumps(json.loads(row) | {'samples': samples})}\n")
    code, out, _ = run("bench", "compare", paths[0], paths[0])
    assert code == 0
    assert "noise" in out
    assert "slower" in run("bench", "compare", *paths)[1]
    assert run("bench", "compare", *paths)[0] == 0
    code, out, _ = run("bench", "compare", *paths, "--fail", "--json")
    assert code == 1
    assert json.loads(out)[0]["outcome"] == "slower"
    assert "No such file" in fails(run, "bench", "compare", paths[0], tmp_path / "absent.jsonl")
    assert "examples:" in run("bench", "compare", "--help")[1]
