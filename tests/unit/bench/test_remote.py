"""Engines in processes of their own: the same answers, their errors, and what remains of them: nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minitx.bench import remote
from minitx.bench.engine import Engine, Setup, make_engine
from minitx.bench.models import empty_model
from minitx.bench.remote import RemoteEngine
from minitx.bench.results.row import Row, Run
from minitx.bench.runner import Plan, Runner
from minitx.bench.session import Session
from minitx.bench.workloads import Workload
from tests.unit.bench.fakes import Brittle, Choosy, Failing, Fake, Killed, Loud, Mortal
from tests.unit.bench.tiny import save_tiny

DECODE = Workload("decode", "greedy", "generate", ("decoder",), 2, 8, new_tokens=4)
ENDED = "its process ended with"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("gpt2", tmp_path_factory.mktemp("gpt2"))


@pytest.fixture
def runner(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    monkeypatch.setattr("minitx.bench.runner.SHORTEST", 0.0)
    setup = Setup(folder, "decoder", threads=1)
    runner = Runner(setup, "tiny", empty_model(folder), Plan(rounds=2, memory=False))
    yield runner
    runner.close()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The processes that are started."""
    processes: list[Any] = []
    popen = remote.subprocess.Popen
    monkeypatch.setattr(
        remote.subprocess, "Popen", lambda *args, **kw: processes.append(popen(*args, **kw)) or processes[-1]
    )
    return processes


def measure(runner: Runner, *engines: Engine) -> list[Row]:
    return runner.measure(DECODE, engines)


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_answers_are_those_of_one_process_and_no_process_remains(folder: Path, started: list[Any]) -> None:
    names = ("minitx", "minitx-optimized")
    options: dict[str, Any] = {"model": str(folder), "batch": 2, "length": 8, "new_tokens": 4, "rounds": 2}
    options |= {"threads": 1, "memory": False, "roofline": False}
    runs = {}
    for isolated in (True, False):
        session = Session(workloads=["decode", "prefill"], engines=names, isolated=isolated, **options)
        runs[isolated] = list(session.run(Run({})))
        assert len(started) == 2  # one for each engine, for both workloads
    assert len({process.pid for process in started} | {os.getpid()}) == 3
    for rows, others in zip(runs[True], runs[False], strict=True):
        assert [row.verdict["kind"] for row in rows] == ["reference", "same"]
        assert [row.verdict for row in rows] == [row.verdict for row in others]
        assert [row.version for row in rows] == [row.version for row in others]
        assert all(row.figure and len(row.samples) == 2 for row in rows)
    assert runs[True][0][1].compile_seconds > 0
    assert not any(exists(process.pid) for process in started)


def test_the_calls_of_an_engine_are_those_of_this_process(folder: Path) -> None:
    setup, local, engine = Setup(folder, "decoder", threads=1), make_engine("minitx"), make_engine("minitx")
    local.load(setup)
    elsewhere = RemoteEngine(engine)
    elsewhere.load(setup)
    try:
        rows = DECODE.rows(61)
        seconds, answer = elsewhere.timed(DECODE, rows, 2)
        assert (seconds > 0, answer) == (True, local.generate(rows, 4))
        assert elsewhere.prefill(rows, [[5], [6]]).equal(local.prefill(rows, [[5], [6]]))
        assert "model" not in vars(engine)  # nothing is loaded here
    finally:
        elsewhere.close()
        elsewhere.close()


def test_a_process_that_ends_is_the_reason_of_its_row(runner: Runner, started: list[Any]) -> None:
    fake, killed, mortal, failing = measure(runner, Fake(), Killed(), Mortal(), Failing())
    assert killed.skipped == f"{ENDED} SIGKILL, as where memory runs out"
    assert mortal.skipped == f"{ENDED} exit code 3"  # in the first round
    assert (mortal.figure, mortal.samples, mortal.verdict) == (None, (), {})
    assert failing.skipped == "it failed: KeyError: 'a kernel'"
    assert (fake.verdict["kind"], len(fake.samples)) == ("reference", 2)
    assert measure(runner, Fake(), Mortal())[1].skipped == mortal.skipped  # in a new process
    assert len(started) == 5
    runner.close()
    assert not any(exists(process.pid) for process in started)


def test_a_reference_whose_process_ends_is_named(runner: Runner) -> None:
    brittle, fake = measure(runner, Brittle(), Fake())
    assert brittle.skipped == f"{ENDED} exit code 5"
    assert fake.skipped == f"{ENDED} exit code 5".replace("its", "brittle, the reference: its")


def test_reasons_of_engines_reach_their_rows(runner: Runner) -> None:
    class Local(Fake):
        name = "local"

    choosy, local, loud = measure(runner, Choosy(), Local(), Loud())
    assert choosy.skipped == "it needs another processor"
    assert "isolated=False" in local.skipped
    assert (loud.skipped, loud.verdict["kind"]) == ("", "reference")  # what it prints is no answer


def test_an_interrupted_call_is_ended(
    runner: Runner, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(stream: Any) -> None:
        raise KeyboardInterrupt

    measure(runner, Fake())
    monkeypatch.setattr(remote, "receive", interrupted)
    monkeypatch.setattr(remote, "PATIENCE", 1e6)  # it does not end by itself
    with pytest.raises(KeyboardInterrupt):
        measure(runner, Fake())
    with pytest.raises(KeyboardInterrupt):
        measure(runner, Loud())  # at its load, which closes it
    runner.close()
    assert len(started) == 2
    assert not any(exists(process.pid) for process in started)
