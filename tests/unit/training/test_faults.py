"""Faults of the disk, of files and of processes: a clear error, and nothing that was complete is lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.optim import AdamW

import minitx
from minitx.training import Interrupted, Run, TrainConfig, read_metrics, train
from minitx.training.session import Session
from minitx.training.state import RunFolder, open_run
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.unit.training.test_session import at, interrupt, run_in, steps_in, without_times
from tests.unit.training.tiny import NextToken, Texts, assert_equal, parameters, tiny_gpt

ROOT = Path(__file__).parents[3]


def test_runs_that_are_killed(tmp_path: Path) -> None:
    """A few of the kills of scripts/kill_runs.py, at random times and between the operations on files."""
    command = [sys.executable, ROOT / "scripts" / "kill_runs.py", "--kills", "2", "--every", "60"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr


# --- a full disk -----------------------------------------------------------------------------------


class FullDisk:
    """Raises ENOSPC at one operation that writes below a folder, counted from 1; 0: at none."""

    def __init__(self) -> None:
        self.folder, self.failing, self.count = Path("-"), 0, 0
        sys.addaudithook(self.check)  # such a hook stays

    def check(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.mkdir", "os.rename") or not self.failing:
            return
        if not str(arguments[0]).startswith(str(self.folder)):
            return
        if event == "open" and not int(arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        if event == "os.mkdir" and os.path.isdir(arguments[0]):  # nothing is to be made
            return
        self.count += 1
        if self.count == self.failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))

    @contextmanager
    def at(self, folder: Path, number: int) -> Iterator[None]:
        self.folder, self.failing, self.count = folder, number, 0
        try:
            yield
        finally:
            self.failing = 0


FULL_DISK = FullDisk()


def test_a_disk_that_is_full_at_each_operation_in_turn(tmp_path: Path) -> None:
    """From the first file on; the run then continues to the numbers of one without faults."""
    options: dict[str, Any] = {"steps": 1, "batch_size": 1, "evaluate_every": 0, "log_every": 1}
    models = [tiny_gpt(n_layer=1) for _ in range(2)]
    whole = run_in(tmp_path / "whole", model=models[0], **options)
    names = {path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*")}
    for failing in count(1):
        folder = tmp_path / f"run{failing}"
        with FULL_DISK.at(folder, failing):
            message = ""
            try:
                run_in(folder, model=tiny_gpt(n_layer=1), **options)
            except OSError as error:
                message = str(error)
        if FULL_DISK.count < failing:  # it has no more operations
            break
        assert f"No space left on device: '{folder}" in message, failing
        begun = (folder / "config.toml").exists()
        models[1] = tiny_gpt(n_layer=1)
        parts = run_in(folder, model=models[1], resume=begun, **options)
        assert_equal(*map(parameters, models))
        assert without_times(parts.metrics) == without_times(whole.metrics)
        assert names == {path.relative_to(folder) for path in folder.rglob("*")}
    assert failing > 25


# --- damaged files ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    run_in(folder, model=tiny_gpt(n_layer=1), steps=4, save_every=2, evaluate_every=0)
    return folder


FILES = [
    "training.safetensors",
    "training.json",
    "checksums.json",
    "model.safetensors",
    "config.json",
    "config.toml",
]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(FILES), st.floats(0, 1, exclude_max=True), st.integers(0, 8))
def test_any_flipped_bit_and_any_cut(
    finished: Path, tmp_path: Path, name: str, place: float, bit: int
) -> None:
    """Of each file of a checkpoint; after the remedy of the message, the run continues."""
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(finished, folder)
    path = folder / "checkpoints" / "step-000004" / name
    content = bytearray(path.read_bytes())
    index = int(place * len(content))
    if bit == 8:
        del content[index:]
    else:
        content[index] ^= 1 << bit
    path.write_bytes(content)
    options: dict[str, Any] = {"steps": 4, "save_every": 2, "evaluate_every": 0}
    with pytest.raises(ValueError, match=r"step-000004 is damaged \(.*\); remove that folder .* from step 2"):
        run_in(folder, model=tiny_gpt(n_layer=1), resume=True, **options)
    if place < 0.1:
        shutil.rmtree(path.parent)
        model = tiny_gpt(n_layer=1)
        run_in(folder, model=model, resume=True, **options)
        assert_equal(parameters(model), parameters(minitx.load(finished / "model")))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["config.toml", "metrics.jsonl"]), st.floats(0, 1, exclude_max=True), st.integers(0, 7)
)
def test_a_flipped_bit_in_the_files_of_a_run(
    finished: Path, tmp_path: Path, name: str, place: float, bit: int
) -> None:
    """The run continues with the same numbers, or an error names the file, or the setting in it."""
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(finished, folder)
    content = bytearray((folder / name).read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    (folder / name).write_bytes(content)
    model = tiny_gpt(n_layer=1)
    message = ""
    try:
        run_in(folder, model=model, resume=True, steps=4, save_every=2, evaluate_every=0)
    except ValueError as error:
        message = str(error)
    else:
        assert_equal(parameters(model), parameters(minitx.load(finished / "model")))
    assert not message or any(part in message for part in (name, "as in the checkpoint", "of another run"))
    assert steps_in(folder) == steps_in(finished)


def test_settings_of_a_run_that_does_not_continue_are_not_written(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    before = (tmp_path / "run" / "config.toml").read_bytes()
    with pytest.raises(ValueError, match="of another model"):
        run_in(tmp_path / "run", model=tiny_gpt(n_layer=2), resume=True, steps=9, evaluate_every=0)
    assert (tmp_path / "run" / "config.toml").read_bytes() == before


def test_what_a_killed_process_was_writing(tmp_path: Path) -> None:
    """Before the first checkpoint, the folder may be used again."""
    (tmp_path / ".config.toml.0a1b.tmp").write_text("run =")
    (tmp_path / ".lock").touch()
    run_in(tmp_path, steps=1)
    (tmp_path / ".metrics.jsonl.0a1b.tmp").write_text("{}")
    left = tmp_path / "checkpoints" / ".writing-step-000001" / "model.safetensors"
    left.parent.mkdir()
    left.touch()
    run_in(tmp_path, steps=1, resume=True)
    assert not [path for path in tmp_path.rglob(".*") if path.name != ".lock"]


# --- signals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2])
def test_signals_while_a_checkpoint_is_written(
    tmp_path: Path, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one lets it be completed, a second one does not; nothing half-written stays."""
    model, other, write = tiny_gpt(), tiny_gpt(), Session.write_model
    run_in(tmp_path / "whole", model=model)
    saves = 0

    def interrupted(self: Session, folder: Path) -> None:
        nonlocal saves
        saves += 1
        write(self, folder)
        for _ in range(times if saves == 2 else 0):
            interrupt()

    monkeypatch.setattr(Session, "write_model", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        run_in(tmp_path / "run")
    assert isinstance(caught.value, Interrupted) == (times == 1)
    assert steps_in(tmp_path / "run") == ["step-000004", "step-000008"][: 3 - times]
    run_in(tmp_path / "run", model=other, resume=True)
    assert_equal(parameters(model), parameters(other))


@pytest.mark.parametrize("save_every", [0, 1])
def test_a_dataset_that_raises(tmp_path: Path, save_every: int) -> None:
    """The error names the examples and the checkpoint of the last step, from which a mended run continues."""

    def broken(index: int) -> None:
        if index == 7:
            raise RuntimeError("a broken record")

    model, other, options = tiny_gpt(), tiny_gpt(), {"save_every": save_every, "seed": 2}
    run_in(tmp_path / "whole", model=model, **options)
    with pytest.raises(RuntimeError, match="a broken record") as caught:
        run_in(tmp_path / "run", act=broken, **options)
    step, checkpoint = caught.value.__notes__
    assert step.startswith("In step 2, ")
    assert "7" in step.split("examples")[1]
    assert f"{tmp_path / 'run' / 'checkpoints' / 'step-000001'}; remove the cause" in checkpoint
    run_in(tmp_path / "run", model=other, resume=True, **options)
    assert_equal(parameters(model), parameters(other))


def test_a_dataset_that_raises_in_the_first_step(tmp_path: Path) -> None:
    """No message names a checkpoint, as there is none."""
    with pytest.raises(RuntimeError) as caught:
        run_in(tmp_path / "run", act=at(1, _raise), save_every=1)
    (note,) = caught.value.__notes__
    assert note.startswith("In step 1, ")
    assert not (tmp_path / "run" / "checkpoints").exists()


def _raise() -> None:
    raise RuntimeError("a broken record")


def test_an_update_that_fails_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some parameters are updated then, and others are not."""
    step = AdamW.step

    def fail(self: AdamW, *arguments: Any) -> None:
        step(self)
        if next(iter(self.state.values()))["step"] == 6:
            raise MemoryError

    monkeypatch.setattr(AdamW, "step", fail)
    with pytest.raises(MemoryError) as caught:
        run_in(tmp_path / "run")
    assert steps_in(tmp_path / "run") == ["step-000004"]
    assert "after step 4 is in" in caught.value.__notes__[0]


def test_a_disk_that_is_full_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is that of the step."""

    def full(*arguments: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(RunFolder, "save", full)
    with pytest.raises(RuntimeError, match="a broken record") as caught:
        run_in(tmp_path / "run", act=at(10, _raise), save_every=0)
    assert caught.value.__notes__[1:] == ["No checkpoint could be written: no space left"]


def test_an_evaluation_that_is_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps before it are saved."""
    monkeypatch.setattr(Run, "evaluate", _raise_nan)
    with pytest.raises(FloatingPointError) as caught:
        run_in(tmp_path / "run", save_every=0)
    assert "after step 4 is in" in caught.value.__notes__[0]
    assert steps_in(tmp_path / "run") == ["step-000004"]


def _raise_nan(run: Run, dataset: Any) -> float:
    raise FloatingPointError("NaN")


# --- models, data and folders ----------------------------------------------------------------------


def frozen_layer(**options: Any) -> torch.nn.Module:
    model = tiny_gpt(**options)
    model.decoder.layers[0].requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda: tiny_gpt(tie_word_embeddings=False), {}),
        (frozen_layer, {}),
        (lambda: tiny_gpt(dtype=torch.float64), {}),
        (lambda: tiny_gpt(dtype=torch.bfloat16), {"optimizer": "muon"}),
        (lambda: frozen_layer(dtype=torch.bfloat16), {"precision": "bfloat16"}),
        (tiny_gpt, {"batch_size": 40}),
        (tiny_gpt, {"warmup_steps": 4}),
    ],
)
def test_models_and_settings_of_all_kinds(
    tmp_path: Path, make: Callable[[], torch.nn.Module], options: dict[str, Any]
) -> None:
    """They are interrupted, and continue bit for bit."""
    options = {"steps": 4, "save_every": 0, "evaluate_every": 0} | options
    model, other = make(), make()
    run_in(tmp_path / "whole", model=model, **options)
    call = 15 if options.get("batch_size", 3) == 3 else 100
    with pytest.raises(Interrupted):
        run_in(tmp_path / "run", model=make(), act=at(call, interrupt), **options)
    for p in other.parameters():
        p.data.mul_(2 if p.requires_grad else 1)
    run_in(tmp_path / "run", model=other, resume=True, **options)
    assert_equal(parameters(model), parameters(other))
    assert_equal(parameters(model), parameters(minitx.load(tmp_path / "run" / "model")))


def test_data_of_one_example_and_runs_of_one_step(tmp_path: Path) -> None:
    config = TrainConfig(steps=1, batch_size=4)
    result = train(tiny_gpt(), Texts(1), NextToken(), config, folder=tmp_path / "run")
    assert result.steps == 1
    with pytest.raises(ArgumentValueError, match="warmup_steps=1 must be below steps=1"):
        TrainConfig(steps=1, warmup_steps=1)


def test_models_and_data_that_do_not_fit() -> None:
    config = TrainConfig(steps=1)
    with torch.device("meta"):
        empty = tiny_gpt().to("meta")
    with pytest.raises(ArgumentValueError, match=r"must be a model with values, not on the device meta"):
        train(empty, Texts(), NextToken(), config)
    half = tiny_gpt(dtype=torch.float16)
    with pytest.raises(ArgumentValueError, match=r"precision='bfloat16' must be.*float16"):
        train(half, Texts(), NextToken(), TrainConfig(steps=1, precision="bfloat16"))
    with pytest.raises(ArgumentTypeError, match=r"dataset=.* must be .*len\(\) and \[index\]"):
        train(tiny_gpt(), iter([{"input_ids": [1]}]), NextToken(), config)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["zażółć 训练 🙂", "a 'quoted' \"name\"", "-x", "a\\b", "100% {}"])
def test_names_of_folders(tmp_path: Path, name: str) -> None:
    with pytest.raises(Interrupted, match="continue with train"):
        run_in(tmp_path / name, act=at(3, interrupt))
    assert run_in(tmp_path / name, resume=True, steps=3, evaluate_every=0).folder == tmp_path / name
    assert read_metrics(tmp_path / name / "metrics.jsonl")


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("my work")
    with pytest.raises(NotADirectoryError, match="file is a file; pass a folder for the run"):
        run_in(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "my work"


READ_ONLY = """
import os, sys
from pathlib import Path
from minitx.training.config import TrainConfig
from minitx.training.state import RunFolder, open_run
if os.geteuid() == 0:  # may write everywhere
    os.setuid(65534)
try:
    open_run(Path(sys.argv[1]) / "run", TrainConfig(steps=1), resume=False).__enter__()
except PermissionError as error:
    print(error)
"""


def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    command = [sys.executable, "-c", READ_ONLY, str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert f"Permission denied: '{tmp_path / 'run'}'" in ended.stdout, ended.stderr


# --- evaluation and early stopping -----------------------------------------------------------------


def test_patience_that_is_new(tmp_path: Path) -> None:
    """The best step so far may have no checkpoint; the best one from then on is kept."""
    options: dict[str, Any] = {
        "steps": 6,
        "keep": 1,
        "evaluate_every": 1,
        "save_every": 6,
        "learning_rate": 1e-9,
    }
    run_in(tmp_path, **options)
    with (tmp_path / "checkpoints" / "step-000006" / "training.json").open() as file:
        best = json.load(file)["best"][0]
    result = run_in(tmp_path, resume=True, **options | {"steps": 12, "patience": 2})
    assert best in range(1, 7)
    assert result.best_step is not None
    assert result.best_step > 6
    assert f"step-{result.best_step:06d}" in steps_in(tmp_path)


def test_a_best_checkpoint_that_is_damaged(tmp_path: Path) -> None:
    """The message's remedy holds for it too."""
    options: dict[str, Any] = {"steps": 6, "keep": 1, "evaluate_every": 1, "patience": 4}
    run_in(tmp_path, **options)
    shutil.rmtree(tmp_path / "model")
    with open_run(
        tmp_path, TrainConfig(**{"batch_size": 3, "accumulation": 2} | options), resume=True
    ) as place:
        best = place.load(place.steps()[-1]).values["best"][0]
    shutil.rmtree(tmp_path / "checkpoints" / f"step-{best:06d}", ignore_errors=True)
    run_in(tmp_path, resume=True, **options | {"steps": 7})
    assert (tmp_path / "model").exists()
