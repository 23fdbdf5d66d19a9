"""The runner: the order of the rounds, what is timed, what is refused, and the bounds of the machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise, permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import minitx
from minitx.bench.alone import import_seconds, memory_of, place_of, start_seconds
from minitx.bench.calls import timed
from minitx.bench.engine import ENGINES, Rows, Setup, UnsuitableError, make_engine
from minitx.bench.models import CONFIGS, empty_model, family_of, model_folder
from minitx.bench.process import measure as measure_process
from minitx.bench.results.row import Row, Run
from minitx.bench.roofline import Meter, Peaks, work_of
from minitx.bench.runner import Plan, Runner, figures, in_turn
from minitx.bench.session import Session, listed
from minitx.bench.workloads import WORKLOADS, Workload
from minitx.optimize import auto
from minitx.validation import ArgumentError
from tests.unit.bench.fakes import LOG, REGISTRY, Fake

CONFIG: dict[str, Any] = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "vocab_size": 32,
    "n_positions": 64,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
}
DECODE = Workload("decode", "greedy", "generate", ("decoder",), 2, 8, new_tokens=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    minitx.save(minitx.from_config(CONFIG, seed=0).eval(), folder)
    return folder


@pytest.fixture
def runner(folder: Path) -> Iterator[Runner]:
    LOG.clear()
    setup = Setup(folder, "decoder", threads=1)
    runner = Runner(setup, "tiny", empty_model(folder), Plan(rounds=3, memory=False, isolated=False))
    yield runner
    runner.close()


def measure(runner: Runner, *names: str, workload: Workload = DECODE) -> list[Row]:
    return runner.measure(workload, [make_engine(name, REGISTRY) for name in names])


def test_engines_take_turns_and_each_round_begins_with_another() -> None:
    assert list(in_turn(["a", "b"], 2)) == ["a", "b", None, "b", "a", None]
    assert list(in_turn(["a", "b", "c"], 4))[::4] == ["a", "b", "c", "a"]
    assert list(in_turn([], 2)) == [None, None]


def test_no_engine_always_runs_after_the_same_one() -> None:
    order = list(in_turn(["a", "b", "c"], 24))
    assert all(sorted(order[i : i + 3]) == ["a", "b", "c"] for i in range(0, len(order), 4))
    assert {(a, b) for a, b in pairwise(order) if a and b} == {*permutations("abc", 2)}
    assert list(in_turn(["a", "b", "c"], 24)) == order


def test_rounds_are_interleaved(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minitx.bench.runner.SHORTEST", 0.0)
    rows = measure(runner, "fake", "slow")
    # the referee's call and the second one of each, then the rounds
    assert LOG[4:] == ["fake", "slow", "slow", "fake", "fake", "slow"]
    assert [len(row.samples) for row in rows] == [3, 3]


def test_ratios_and_figures_are_those_of_the_medians(runner: Runner) -> None:
    fake, slow = measure(runner, "fake", "slow")
    assert (fake.verdict["kind"], slow.verdict["kind"]) == ("reference", "same")
    assert fake.ratio == 1
    assert slow.ratio is not None
    assert slow.ratio < 1
    assert slow.figure == pytest.approx(8 / sorted(slow.samples)[1])
    assert slow.low is not None
    assert slow.high is not None
    assert slow.low <= slow.figure <= slow.high
    assert fake.calls > 1  # a call of microseconds is repeated within a sample


def test_no_speed_of_a_wrong_answer(runner: Runner) -> None:
    fake, wrong, rounded = measure(runner, "fake", "wrong", "rounded")
    assert (wrong.verdict["kind"], wrong.figure, wrong.samples, wrong.ratio) == ("wrong", None, (), None)
    assert rounded.figure is not None
    assert rounded.verdict["agreement"] == pytest.approx(0.5)
    assert fake.figure is not None


def test_an_engine_that_cannot_run_is_skipped_with_its_reason(runner: Runner) -> None:
    missing, fake, failing = measure(runner, "missing", "fake", "failing")
    assert missing.skipped.startswith("the package no-such-package-of-minitx is not installed")
    assert failing.skipped == "it failed: KeyError: 'a kernel'"
    assert fake.verdict["kind"] == "reference"  # the first that runs
    assert measure(runner, "missing")[0].figure is None
    longer = Workload("long", "", "generate", ("decoder",), 1, 60, new_tokens=10)
    assert (
        measure(runner, "fake", workload=longer)[0].skipped == "it needs 70 positions, and the model has 64"
    )
    embed = measure(runner, "fake", workload=WORKLOADS["embed"].changed(batch=2))
    assert embed[0].skipped == "it does not run embed"


def test_compile_time_is_apart_and_counted_once(runner: Runner) -> None:
    assert measure(runner, "compiled")[0].compile_seconds == 2.5
    assert measure(runner, "compiled")[0].compile_seconds == 0.0


def test_a_load_ends_with_the_first_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mapped weights are read by it: the clock has to run until then."""
    now = [0.0]

    class Mapped(Fake):
        def load(self, setup: Setup) -> None:
            now[0] += 1

        def prefill(self, rows: Rows, written: Rows | None = None) -> Tensor:
            now[0] += 2
            return super().prefill(rows, written)

    monkeypatch.setattr("minitx.bench.calls.time", SimpleNamespace(perf_counter=lambda: now[0]))
    seconds, answer = timed(Mapped(), Setup(folder, "decoder"), WORKLOADS["load"], [[1, 2, 3]])
    assert seconds == 3
    assert torch.equal(answer, Fake().prefill([[1, 2, 3]]))


def test_a_training_step_releases_the_changed_weights(runner: Runner) -> None:
    train = Workload("train", "", "train_step", ("decoder",), 2, 8)
    fake, wrong = measure(runner, "fake", "wrong", workload=train)
    assert (fake.verdict["kind"], wrong.verdict["kind"]) == ("reference", "wrong")
    assert runner._loaded == {}


def test_figures() -> None:
    assert figures(DECODE, [2.0, 1.0, 4.0]) == (4.0, 8 / 3, 16 / 3)
    assert figures(WORKLOADS["load"], [0.5]) == (500.0, 500.0, 500.0)


# --- workloads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=lambda workload: workload.name)
def test_inputs_are_the_same_every_time(workload: Workload) -> None:
    rows = workload.rows(100)
    assert rows == workload.rows(100)
    assert [len(row) for row in rows] == workload.lengths()
    assert max(map(len, rows)) <= workload.length
    assert min(map(len, rows)) >= (workload.shortest or workload.length)
    assert all(0 <= token < 100 for row in rows for token in row)
    new = workload.new_lengths()
    if workload.fewest:
        assert isinstance(new, list)
        assert len(set(new)) > 8
        assert workload.fewest <= min(new) <= max(new) <= workload.new_tokens


def test_mixed_lengths_are_log_uniform() -> None:
    lengths = WORKLOADS["encode-mixed"].lengths()
    assert 0.35 < sum(length < 45 for length in lengths) / len(lengths) < 0.65  # the geometric mean


def test_options_change_workloads() -> None:
    changed = WORKLOADS["decode-8"].changed(batch=3, new_tokens=5)
    assert (changed.batch, changed.new_tokens, changed.amount()) == (3, 5, 15)
    assert WORKLOADS["first-token"].changed(new_tokens=5).new_tokens == 1
    assert WORKLOADS["encode"].changed(new_tokens=5) == WORKLOADS["encode"]
    assert WORKLOADS["decode"].changed(batch=4).summary == "greedy, batch 4"
    assert WORKLOADS["embed"].changed(batch=4).summary.startswith("4 sentences")


# --- roofline --------------------------------------------------------------------------------------


def test_the_work_of_decoding_is_that_of_the_estimate(folder: Path) -> None:
    model = empty_model(folder)
    work = work_of(DECODE, model)
    assert work is not None
    estimate = minitx.inspect.estimate(CONFIG, batch=2, length=8, new_tokens=4)
    assert work.flops == estimate.prefill_flops
    assert work.flops + work.step_flops == estimate.generation_flops
    layers = sum(
        p.numel() for n, p in model.named_parameters() if n.startswith("decoder.layers") and p.dim() > 1
    )
    assert work.weights == layers + 32 * 16  # and the head, which is the table of the embedding
    assert work.steps == 3
    assert work.cache == 3 * 2 * 10 * 2 * 16 * 2  # steps, rows, mean tokens held, keys and values, layers
    peaks = Peaks(copy=1.0, vector=100.0, product=1e30)
    read = 4 * (work.steps * work.weights + work.cache)
    assert work.seconds(peaks, 4) == pytest.approx(read / 100)
    assert work.seconds(peaks, 4, weight_bytes=1) < work.seconds(peaks, 4) / 2
    assert work_of(WORKLOADS["import"], model) is None


def test_the_bound_of_the_machine_is_beside_the_figures(folder: Path) -> None:
    meter = Meter("float32", "cpu", large=2**16, side=32)
    setup = Setup(folder, "decoder", threads=1)
    plan = Plan(rounds=2, memory=False, meter=meter, isolated=False)
    runner = Runner(setup, "tiny", empty_model(folder), plan)
    (row,) = measure(runner, "fake")
    assert row.bound is not None
    assert row.figure is not None
    assert row.share == pytest.approx(row.figure / row.bound)
    assert len(runner.samples) == 2
    assert all(value > 0 for value in runner.samples[0].to_json().values())


# --- sessions --------------------------------------------------------------------------------------


def test_a_session_measures_real_engines(folder: Path) -> None:
    names = ("load", "prefill", "decode", "decode-mixed", "beams", "sample", "train")
    run = Run({})
    session = Session(workloads=names, engines=("transformers", "minitx"), model=str(folder), batch=2)
    short = [(m, w.changed(new_tokens=3)) for m, w in session.chosen()]
    setup = Setup(folder, "decoder", threads=1)
    runner = Runner(setup, "tiny", empty_model(folder), Plan(rounds=1, memory=False, isolated=False))
    for _, workload in short:
        small = Workload(**{**vars(workload), "length": 12, "shortest": min(workload.shortest, 3)})
        run.rows += runner.measure(small, session.make_engines())
    assert [row.skipped for row in run.rows] == [""] * 2 * len(names)
    runner.close()
    assert [row.verdict.get("kind") for row in run.rows[::2]] == ["reference"] * len(names)
    assert {row.verdict.get("kind") for row in run.rows[1::2]} <= {"same", "tie"}
    assert all(row.figure for row in run.rows)


def test_a_session_checks_its_arguments(folder: Path) -> None:
    for options, message in (
        ({"workloads": ["decod"]}, "did you mean decode?"),
        ({"engines": ["minitxx"]}, "did you mean minitx?"),
        ({"workloads": ["minitx"]}, "is an engine, which --engine names"),
        ({"rounds": 0}, "rounds"),
        ({"threads": 20_000}, "this machine has"),
        ({"dtype": "int8"}, "dtype"),
    ):
        with pytest.raises(ArgumentError, match=message.replace("?", r"\?")):
            Session(**options).check()
    with pytest.raises(ValueError, match=r"encode needs an encoder; .* is a decoder"):
        Session(workloads=["encode"], model=str(folder)).chosen()
    with pytest.raises(ArgumentError, match="new_tokens=3 must be left out; not taken by embed"):
        Session(workloads=["embed"], new_tokens=3).chosen()
    with pytest.raises(ArgumentError, match=r"batch=99999999999 must be smaller; decode would have 9,599,"):
        Session(workloads=["decode"], batch=99_999_999_999).chosen()
    with pytest.raises(ArgumentError, match=r"minitx convert t\.gguf FOLDER"):
        Session(workloads=["decode"], model="t.gguf").chosen()
    assert {w.name for _, w in Session(model=str(folder)).chosen()} == {"decode"}
    every = {w.name for _, w in Session(model=str(folder), workloads=["all"]).chosen()}
    assert {"decode", "train", "beams"} <= every
    assert "encode" not in every
    with pytest.raises(ArgumentError, match=r"did you mean gpt2\?"):
        model_folder("gpt-2")


def test_sizes_of_a_session_replace_those_of_the_workloads() -> None:
    names = ("decode", "decode-mixed", "encode", "embed", "load")
    sizes = {"batch": 3, "length": 5, "new_tokens": 2}
    changed = {w.name: w for _, w in Session(workloads=names, **sizes).chosen()}
    assert {name: (w.batch, w.length) for name, w in changed.items() if (w.batch, w.length) != (3, 5)} == {
        "embed": (3, WORKLOADS["embed"].length),  # sentences of its own
        "load": (1, WORKLOADS["load"].length),
    }
    assert changed["decode-mixed"].lengths() == [5] * 3  # shorter than its shortest
    with pytest.raises(ArgumentError, match="length"):
        Session(length=0).check()


def test_texts_have_a_model_with_a_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [model for model, _ in Session(workloads=["embed", "classify"]).chosen()]
    assert names == ["minilm", "bert-classifier"]
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 16}
    config = CONFIGS["bert-classifier"] | sizes
    monkeypatch.setattr("minitx.bench.models.CONFIGS", {"bert-classifier": config})
    folder = model_folder("bert-classifier", cache=tmp_path)
    answers = minitx.pipeline("text-classification", folder, device="cpu")("the old name", top_k=None)
    assert {answer["label"] for answer in answers} == {"negative", "neutral", "positive"}


def test_folders_of_one_name_have_digests(tmp_path: Path) -> None:
    """The same for the same model, whatever its weights."""
    digests = []
    for number, layers in enumerate((2, 2, 3)):
        place = tmp_path / str(number) / "my-model"
        minitx.save(minitx.from_config({**CONFIG, "n_layer": layers}, seed=number).eval(), place)
        run, options = Run({}), {"memory": False, "roofline": False, "registry": REGISTRY, "threads": 1}
        options["isolated"] = False
        session = Session(workloads=["decode"], engines=["fake"], model=str(place), rounds=1, **options)
        (rows,) = session.run(run)
        assert rows[0].model == "my-model"
        digests.append(rows[0].checkpoint)
    assert digests[0] == digests[1] != digests[2]


def test_random_models_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minitx.bench.models.CONFIGS", {"gpt2": CONFIG})
    folder = model_folder("gpt2", cache=tmp_path)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert model_folder("gpt2", cache=tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    assert family_of(empty_model(folder)) == "decoder"
    assert model_folder("gpt2", "bfloat16", cache=tmp_path) != folder
    assert json.loads((folder / "config.json").read_text())["n_embd"] == 16


def test_the_list_has_every_engine_and_fits_a_terminal() -> None:
    content, text = listed()
    assert set(content["engines"]) == set(ENGINES)
    assert set(content["workloads"]) == set(WORKLOADS)
    assert max(map(len, text.splitlines())) <= 80
    starts = [summary.split()[0].lower() for summary in content["engines"].values()]
    assert not {"a", "an", "the"} & {*starts}


# --- fresh processes -------------------------------------------------------------------------------


def test_memory_is_that_of_a_fresh_process(folder: Path) -> None:
    sizes = memory_of(make_engine("minitx"), Setup(folder, "decoder", threads=1), DECODE, 32)
    assert 2**26 < sizes["loaded"] <= sizes["peak"]


def test_the_memory_of_a_load_includes_the_first_answer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = asdict(Setup(folder, "decoder", threads=torch.get_num_threads())) | {"folder": str(folder)}
    given = {"engine": place_of(Fake()), "setup": setup, "workload": asdict(WORKLOADS["load"])}
    held = [1]
    monkeypatch.setattr("minitx.bench.process.peak", lambda: held[0])
    monkeypatch.setattr(Fake, "prefill", lambda self, rows: held.append(held.pop() + 1))
    assert measure_process(given | {"vocab_size": 32}) == {"loaded": 1, "peak": 2}


def test_times_of_fresh_processes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minitx.bench.alone.IMPORT", "{imports}; print(0.25)")
    setup = Setup(folder, "decoder", threads=1)
    engine = make_engine("fake", REGISTRY)
    monkeypatch.setattr(type(engine), "imports", "import json")
    assert import_seconds(engine, setup) == 0.25
    monkeypatch.setattr(type(engine), "program", lambda self, setup, prompt: f"print({prompt[-1]})")
    seconds, token = start_seconds(engine, setup, [1, 2, 3])
    assert (seconds > 0, token) == (True, 3)
    monkeypatch.setattr(type(engine), "program", lambda self, setup, prompt: "raise ValueError('no kernel')")
    with pytest.raises(RuntimeError, match="failed: ValueError: no kernel"):
        start_seconds(engine, setup, [1])


@pytest.mark.parametrize("name", ["minitx", "transformers"])
def test_programs_print_the_first_token(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup, engine = Setup(folder, "decoder", threads=1), make_engine(name)
    exec(engine.imports, {})
    exec(engine.program(setup, [1, 2, 3]), {})
    printed = int(capsys.readouterr().out)
    engine.load(setup)
    assert engine.generate([[1, 2, 3]], 1) == [[printed]]


@pytest.mark.parametrize("name", ["minitx-optimized", "minitx-int8", "minitx-bfloat16"])
def test_optimized_engines_name_their_passes(name: str) -> None:
    setup = Setup(model_folder("minitx/tiny-decoder"), "decoder", threads=1)
    engine = make_engine(name)
    assert engine.version() == f"minitx {minitx.__version__}"
    try:
        engine.load(setup)
    except UnsuitableError as refused:
        if name == "minitx-optimized" or "processor" not in str(refused):
            raise
        return
    assert "fuse_projections" in engine.version()
    assert engine.compile_seconds > 0
    assert len(engine.generate([[1, 2, 3]], 4)[0]) == 4


def test_a_pass_that_does_not_pay_is_a_reason(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "bfloat16_is_faster", lambda: False)
    monkeypatch.setattr(auto, "has_weights_to_pack", lambda *_: True)
    engines = [REGISTRY["fake"](), make_engine("minitx-bfloat16")]
    _, row = runner.measure(DECODE, engines)
    assert row.skipped == "products in bfloat16 are not faster on this processor"
