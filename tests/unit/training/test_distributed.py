"""Training in several processes is training in one: FSDP2, tensor parallelism, and their checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.multiprocessing import ProcessRaisedException

import minitx
from minitx.training import read_metrics
from tests.unit.training.tiny import assert_equal, tiny_gpt
from tests.unit.training.workers import (
    SHARDED,
    fail_in_one,
    kept,
    outputs,
    run_folder,
    shard_and_run,
    shard_and_step,
    sharded_model,
    spawn,
    split_and_compute,
    split_and_run,
    steps,
    tiny,
    whole_parameters,
)


def assert_close(left: dict[str, Tensor], right: dict[str, Tensor], near: float = 1e-9) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.allclose(tensor, right[name], rtol=0, atol=near), name


def halfway(folder: Path, name: str, copy: str) -> None:
    """Copies a run as it was after step 3."""
    shutil.copytree(folder / name, folder / copy)
    shutil.rmtree(folder / copy / "checkpoints" / "step-000006")
    shutil.rmtree(folder / copy / "model")


def assert_same_run(folder: Path, one: str, other: str) -> None:
    """Metrics and trained models of two runs, up to rounding; times differ."""
    rows = [read_metrics(folder / name / "metrics.jsonl") for name in (one, other)]
    for left, right in zip(*rows, strict=True):
        left.pop("tokens_per_second", None), right.pop("tokens_per_second", None)
        assert left == pytest.approx(right, rel=1e-9)
    assert_close(*(whole_parameters(minitx.load(folder / name / "model")) for name in (one, other)))


@pytest.mark.parametrize("size", [2, 4])
def test_fsdp_is_one_process(tmp_path: Path, size: int) -> None:
    """Losses, norms and parameters after steps with accumulation, and different numbers of targets."""
    names = list(SHARDED) if size == 2 else ["gpt2"]
    spawn(shard_and_step, tmp_path, size, names)
    for name in names:
        options = {key: value for key, value in SHARDED[name].items() if key != "compile"}
        rows, parameters = steps(sharded_model(name), 1, **options)
        ours, theirs = kept(tmp_path, f"{name}-{size}")
        near = 2e-2 if name == "narrow" else 1e-9
        for row, other in zip(rows, ours, strict=True):
            assert row == pytest.approx(other, rel=near), name
        assert_close(parameters, theirs, near)


def test_a_run_continues_in_another_number_of_processes(tmp_path: Path) -> None:
    """1 -> 2, 2 -> 1 and 2 -> 4 processes, from the middle of an epoch; the folders are those of one."""
    run_folder(tmp_path / "one", tiny_gpt(0.0, torch.float64), 1)
    halfway(tmp_path, "one", "one-two")
    spawn(shard_and_run, tmp_path, 2, {"two": False, "one-two": True})
    assert not list(tmp_path.rglob("*.metadata")), "no pickled file"
    for copy in ("two-one", "two-four"):
        halfway(tmp_path, "two", copy)
    run_folder(tmp_path / "two-one", tiny_gpt(0.0, torch.float64), 1, resume=True)
    spawn(shard_and_run, tmp_path, 4, {"two-four": True})
    for name in ("two", "one-two", "two-one", "two-four"):
        assert_same_run(tmp_path, "one", name)


def test_the_same_number_of_processes_continues_bit_for_bit(tmp_path: Path) -> None:
    """With dropout, whose random numbers differ between the processes."""
    spawn(shard_and_run, tmp_path, 2, {"whole": False}, 0.1)
    halfway(tmp_path, "whole", "part")
    (tmp_path / "group-shard_and_run-2").unlink()
    spawn(shard_and_run, tmp_path, 2, {"part": True}, 0.1)
    assert_equal(*(kept(tmp_path, f"{name}-end")[1] for name in ("whole", "part")))


def test_all_processes_end_with_one_that_fails(tmp_path: Path) -> None:
    """Each error names its process."""
    with pytest.raises(ProcessRaisedException, match=r"broken|another process"):
        spawn(fail_in_one, tmp_path, 2, "data")
    first, second = ((tmp_path / f"data-{rank}.txt").read_text() for rank in (0, 1))
    assert "ValueError: example 5 is broken" in second
    assert "In process 1 of 2" in second
    assert "another process has ended" in first


def test_all_processes_end_with_one_that_gets_a_signal(tmp_path: Path) -> None:
    """After the same step, and with a checkpoint."""
    spawn(fail_in_one, tmp_path, 2, "signal")
    first, second = ((tmp_path / f"signal-{rank}.txt").read_text().split("\n")[0] for rank in (0, 1))
    assert first == second
    assert "Interrupted: training was interrupted after step" in first
    assert list((tmp_path / "signal" / "checkpoints").glob("step-*"))


TENSOR = ["bert", "albert", "llama", "qwen3", "olmo2", "bloom", "t5"]


def test_tensor_parallelism_is_one_process(tmp_path: Path) -> None:
    """Logits, attention weights, gradients and generated tokens."""
    spawn(split_and_compute, tmp_path, 2, TENSOR)
    for name in TENSOR:
        assert_close(outputs(name, tiny(name)), kept(tmp_path, name)[1])


def test_tensor_parallel_training_is_one_process(tmp_path: Path) -> None:
    """The run of two processes continues in four, of which pairs share data and matrices, and in one."""
    names = ["bert", "qwen3"]
    for name in names:
        run_folder(tmp_path / f"{name}-one", tiny(name), 1)
    spawn(split_and_run, tmp_path, 2, names, (2,))
    for name in names:
        assert_same_run(tmp_path, f"{name}-one", name)
        halfway(tmp_path, name, f"{name}-alone")
        run_folder(tmp_path / f"{name}-alone", tiny(name), 1, resume=True)
        assert_same_run(tmp_path, f"{name}-one", f"{name}-alone")
        halfway(tmp_path, name, f"{name}-half")
        shutil.rmtree(tmp_path / name)
        (tmp_path / f"{name}-half").rename(tmp_path / name)
    spawn(split_and_run, tmp_path, 4, names, (2, 2))
    for name in names:
        assert_same_run(tmp_path, f"{name}-one", name)
