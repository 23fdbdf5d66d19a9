"""A run with its folder: checkpoints, interruptions, early stopping, and folders that do not fit."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import minitx
from minitx.signals import signals
from minitx.training import Interrupted, TrainConfig, TrainResult, train
from minitx.training.metrics import read_metrics
from minitx.training.state import open_run
from minitx.validation import ArgumentValueError
from tests.unit.training.tiny import NextToken, Texts, assert_equal, parameters, tiny_gpt
from tests.unit.training.workers import exit_code

OPTIONS: dict[str, Any] = {
    "steps": 10,
    "batch_size": 3,
    "accumulation": 2,
    "log_every": 3,
    "save_every": 4,
    "evaluate_every": 4,
}


def run_in(
    folder: Path,
    *,
    model: torch.nn.Module | None = None,
    act: Callable[[int], Any] = lambda index: None,
    resume: bool = False,
    **options: Any,
) -> TrainResult:
    config = TrainConfig(**OPTIONS | options)
    evaluation = Texts(5) if config.evaluate_every else None
    data, objective, model = Texts(act=act), NextToken(noise=0.1), model or tiny_gpt()
    return train(model, data, objective, config, folder=folder, evaluation=evaluation, resume=resume)


def at(call: int, act: Callable[[], Any]) -> Callable[[int], None]:
    """Acts at one access of the dataset; a step has six."""
    calls = 0

    def count(index: int) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            act()

    return count


def interrupt(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def steps_in(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def without_times(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "tokens_per_second"} for row in records]


def test_the_folder_of_a_run(tmp_path: Path) -> None:
    model = tiny_gpt()
    result = run_in(tmp_path / "run", model=model)
    folder = result.folder
    assert folder == tmp_path / "run"
    assert steps_in(folder) == ["step-000008", "step-000010"]
    assert not model.training
    loaded = minitx.load(folder / "model", head="causal-lm")
    assert_equal(parameters(model), parameters(loaded))
    assert_equal(parameters(model), parameters(minitx.load(folder / "checkpoints" / "step-000010")))
    assert [row["step"] for row in result.metrics] == [3, 4, 6, 8, 9, 10, 10]
    assert result.metrics == read_metrics(folder / "metrics.jsonl")
    assert result.loss == result.metrics[-1]["loss"] < result.metrics[0]["loss"]
    assert result.best_loss == min(row.get("evaluation_loss", 9) for row in result.metrics)
    assert result.steps == 10
    assert not [path for path in folder.rglob("*") if ".minitx" in path.name or path.suffix == ".tmp"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("call", [28, 31])  # in the second micro-batch of step 5; in the first of step 6
def test_an_interrupted_run_continues_bit_for_bit(tmp_path: Path, number: int, call: int) -> None:
    """The step in progress ends, and the rest is as it would have been; so are the metrics."""
    model, other = tiny_gpt(), tiny_gpt()
    whole = run_in(tmp_path / "whole", model=model)
    step = (call + 5) // 6
    with pytest.raises(Interrupted, match=f"after step {step} of 10; continue with .*resume=True") as caught:
        run_in(tmp_path / "parts", model=other, act=at(call, lambda: interrupt(number)))
    assert caught.value.signal == number
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)
    assert f"step-{step:06d}" in steps_in(tmp_path / "parts")
    other = tiny_gpt(seed=1)
    parts = run_in(tmp_path / "parts", model=other, resume=True)
    assert_equal(parameters(model), parameters(other))
    assert without_times(parts.metrics) == without_times(whole.metrics)
    assert without_times(read_metrics(tmp_path / "parts" / "metrics.jsonl")) == without_times(whole.metrics)
    files = [tmp_path / name / "model" / "model.safetensors" for name in ("whole", "parts")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once(tmp_path: Path, number: int) -> None:
    def twice() -> None:
        interrupt(number)
        interrupt(number)

    model, other = tiny_gpt(), tiny_gpt()
    run_in(tmp_path / "whole", model=model)
    with pytest.raises(KeyboardInterrupt) as caught:
        run_in(tmp_path / "parts", act=at(33, twice))
    assert type(caught.value) is KeyboardInterrupt
    assert steps_in(tmp_path / "parts") == ["step-000004"]
    run_in(tmp_path / "parts", model=other, resume=True)
    assert_equal(parameters(model), parameters(other))


def test_an_interruption_in_the_last_step(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="when it was complete; the model is in"):
        run_in(tmp_path, act=at(58, interrupt))
    assert (tmp_path / "model" / "model.safetensors").exists()


def test_an_interruption_without_a_folder() -> None:
    config = TrainConfig(steps=5)
    with pytest.raises(Interrupted, match="after step 1 of 5; nothing was saved"):
        train(tiny_gpt(), Texts(act=at(3, interrupt)), NextToken(), config)


def test_in_a_command_that_handles_signals(tmp_path: Path) -> None:
    """The command's own handler would end the process 2 seconds later, in the middle of a long step."""
    with signals() as received:
        with pytest.raises(Interrupted):
            run_in(tmp_path, act=at(3, lambda: (interrupt(), time.sleep(2.3))))
        assert not received
        with pytest.raises(KeyboardInterrupt):  # it is the command's again
            interrupt()
        received.clear()


def run_and_die(folder: Path, call: int) -> None:
    torch.set_num_threads(1)  # the order of sums depends on it
    run_in(folder, act=at(call, lambda: os.kill(os.getpid(), signal.SIGKILL)))


@pytest.mark.parametrize("call", [3, 40])
def test_a_run_that_is_killed(tmp_path: Path, call: int) -> None:
    """Before the first checkpoint, and in the middle of an accumulation after it."""
    model, other = tiny_gpt(), tiny_gpt()
    whole = run_in(tmp_path / "whole", model=model)
    assert exit_code(run_and_die, tmp_path / "parts", call) == -signal.SIGKILL
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')  # it was writing
    parts = run_in(tmp_path / "parts", model=other, resume=True)
    assert_equal(parameters(model), parameters(other))
    assert without_times(parts.metrics) == without_times(whole.metrics)


def test_a_run_may_be_made_longer(tmp_path: Path) -> None:
    result = run_in(tmp_path, schedule="constant")
    run_in(tmp_path, resume=True, schedule="constant")  # nothing is left to do
    assert result.metrics == read_metrics(tmp_path / "metrics.jsonl")
    longer, model = run_in(tmp_path, resume=True, schedule="constant", steps=12, keep=1), tiny_gpt()
    assert longer.steps == 12
    assert steps_in(tmp_path) == ["step-000012"]
    run_in(tmp_path / "whole", model=model, schedule="constant", steps=12)
    assert_equal(parameters(model), parameters(minitx.load(tmp_path / "model")))


# --- early stopping --------------------------------------------------------------------------------


class Overfitted(NextToken):
    """Evaluation losses rise from the third evaluation on."""

    def loss(self, model: torch.nn.Module, batch: Any) -> Any:
        loss = super().loss(model, batch)
        if model.training:
            return loss
        self.__dict__["calls"] = self.__dict__.get("calls", 0) + 1
        return type(loss)(loss.total.detach() * 0 + abs(3 - self.__dict__["calls"]), loss.count)


def test_early_stopping_restores_the_best(tmp_path: Path) -> None:
    model = tiny_gpt()
    config = TrainConfig(steps=20, evaluate_every=2, patience=3, keep=1, batch_size=5)
    result = train(model, Texts(), Overfitted(), config, folder=tmp_path, evaluation=Texts(5))
    assert (result.steps, result.best_step, result.best_loss) == (12, 6, 0.0)
    assert steps_in(tmp_path) == ["step-000006", "step-000012"]
    best = minitx.load(tmp_path / "checkpoints" / "step-000006")
    assert_equal(parameters(best), parameters(model))
    assert_equal(parameters(best), parameters(minitx.load(tmp_path / "model")))
    assert result.loss > 0
    again = train(
        tiny_gpt(), Texts(), Overfitted(), config, folder=tmp_path, evaluation=Texts(5), resume=True
    )
    assert again.steps == 12  # it stays stopped


# --- folders and files -----------------------------------------------------------------------------


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no run to resume; begin one without"):
        run_in(tmp_path / "new", resume=True)
    assert not (tmp_path / "new").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("my work")
    with pytest.raises(FileExistsError, match="is not empty; pass a new folder"):
        run_in(tmp_path / "full")
    with pytest.raises(FileNotFoundError, match="holds no run to resume"):
        run_in(tmp_path / "full", resume=True)
    run_in(tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError, match="holds a run; continue it with resume=True"):
        run_in(tmp_path / "run")
    with pytest.raises(ArgumentValueError, match=r"seed=5 must be 0, as in the checkpoint; start a new run"):
        run_in(tmp_path / "run", resume=True, seed=5)
    with pytest.raises(ArgumentValueError, match="optimizer='muon' must be 'adamw'"):
        run_in(tmp_path / "run", resume=True, optimizer="muon")
    with pytest.raises(ValueError, match="the checkpoint is of another model"):
        run_in(tmp_path / "run", resume=True, model=tiny_gpt(n_layer=1))
    with pytest.raises(ValueError, match="its config or the names of its labels differ"):
        run_in(tmp_path / "run", resume=True, model=tiny_gpt(activation_function="relu"))
    after = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert before == after


def test_a_folder_in_use(tmp_path: Path) -> None:
    config = TrainConfig(**OPTIONS)
    with open_run(tmp_path, config, resume=False):
        for resume in (True, False):
            with pytest.raises(BlockingIOError, match="another process trains in"):
                run_in(tmp_path, resume=resume)


def test_a_checkpoint_of_another_run(tmp_path: Path) -> None:
    run_in(tmp_path / "one")
    with pytest.raises(Interrupted):
        run_in(tmp_path / "two", act=at(31, interrupt))
    shutil.copytree(
        tmp_path / "one" / "checkpoints" / "step-000010", tmp_path / "two" / "checkpoints" / "step-000010"
    )
    with pytest.raises(ValueError, match="step-000010 is a checkpoint of another run"):
        run_in(tmp_path / "two", resume=True)


@pytest.mark.parametrize(
    "name", ["training.safetensors", "training.json", "checksums.json", "model.safetensors", "config.toml"]
)
@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_a_damaged_checkpoint(tmp_path: Path, name: str, damage: str) -> None:
    run_in(tmp_path, steps=8)
    path = tmp_path / "checkpoints" / "step-000008" / name
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"step-000008 is damaged \(.*\); remove that folder .* from step 4"):
        run_in(tmp_path, steps=8, resume=True)
    if name == "training.json" and damage == "cut":
        shutil.rmtree(path.parent)
        assert run_in(tmp_path, steps=8, resume=True).steps == 8


@pytest.mark.parametrize("content", ["", "[training]\nsteps = 1", 'run = "a"\n[training]\nstep = 1', "\x00"])
def test_a_damaged_config(tmp_path: Path, content: str) -> None:
    run_in(tmp_path)
    (tmp_path / "config.toml").write_text(content)
    with pytest.raises(ValueError, match=r"config\.toml is not the config of a run"):
        run_in(tmp_path, resume=True)


def test_a_full_disk(tmp_path: Path) -> None:
    """The limit on the size of a file stands for it; the earlier checkpoint stays, and the run continues."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    small = (20_000, before[1])
    model, other = tiny_gpt(), tiny_gpt()
    whole = run_in(tmp_path / "whole", model=model)
    try:
        with pytest.raises(OSError, match=r"large.*step-000008"):
            run_in(tmp_path / "parts", act=at(40, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, small)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert steps_in(tmp_path / "parts") == ["step-000004"]
    parts = run_in(tmp_path / "parts", model=other, resume=True)
    assert_equal(parameters(model), parameters(other))
    assert without_times(parts.metrics) == without_times(whole.metrics)


def test_arguments_that_do_not_fit_together(tmp_path: Path) -> None:
    def call(config: TrainConfig, **options: Any) -> None:
        train(tiny_gpt(), Texts(), NextToken(), config, **options)

    with pytest.raises(ArgumentValueError, match=r"folder=None must be a path with resume=True"):
        call(TrainConfig(steps=1), resume=True)
    with pytest.raises(ArgumentValueError, match=r"folder=None must be a path with save_every=5"):
        call(TrainConfig(steps=1, save_every=5))
    with pytest.raises(ArgumentValueError, match=r"evaluation=None must be a dataset with evaluate_every=1"):
        call(TrainConfig(steps=1, evaluate_every=1))
    with pytest.raises(ArgumentValueError, match="evaluation"):
        call(TrainConfig(steps=1), evaluation=Texts(0))
    with pytest.raises(ArgumentValueError, match="the dataset has no examples"):
        train(tiny_gpt(), Texts(0), NextToken(), TrainConfig(steps=1), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_modules_of_others(tmp_path: Path) -> None:
    """Their parameters are in the run's state; children that are models of minitx are saved as such."""

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny_gpt()
            self.register_buffer("scale", torch.ones(1))

        def forward(self, **batch: Any) -> Any:
            return self.inner(**batch)

    with pytest.raises(Interrupted):
        run_in(tmp_path, model=Wrapped(), act=at(31, interrupt))
    model = Wrapped()
    run_in(tmp_path, model=model, resume=True)
    for folder in ("checkpoints/step-000010", "model"):
        inner = minitx.load(tmp_path / folder / "inner")
        assert_equal(parameters(model.inner), parameters(inner))
    names = {path.name for path in (tmp_path / "checkpoints" / "step-000010").iterdir()}
    assert names == {"checksums.json", "config.toml", "inner", "training.json", "training.safetensors"}


@pytest.mark.filterwarnings("ignore")  # of the compiler
def test_a_compiled_run_saves_the_model(tmp_path: Path) -> None:
    model = tiny_gpt()
    run_in(tmp_path, model=model, compile="eager", accumulation=1)
    assert_equal(parameters(model), parameters(minitx.load(tmp_path / "model")))


def test_activations_are_recomputed_during_the_run_alone(tmp_path: Path) -> None:
    plain, recomputed = tiny_gpt(), tiny_gpt()
    kind = type(recomputed.get_submodule("decoder.layers.0"))
    run_in(tmp_path / "plain", model=plain)
    run_in(tmp_path / "recomputed", model=recomputed, checkpoint_activations=True)
    assert_equal(parameters(plain), parameters(recomputed))
    assert type(recomputed.get_submodule("decoder.layers.0")) is kind


def test_values_are_json(tmp_path: Path) -> None:
    run_in(tmp_path)
    values = json.loads((tmp_path / "checkpoints" / "step-000010" / "training.json").read_text())
    assert values["step"] == 10
    assert values["sampler"] == {"size": 11, "seed": 0, "epoch": 5, "position": 5}
