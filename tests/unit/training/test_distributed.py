"""Training in several processes is training in one: FSDP2, tensor parallelism, and their checkpoints."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.multiprocessing import ProcessRaisedException

import minitx
from minitx.training import read_metrics
from minitx.training.distributed import tensor_parallel_plan
from minitx.training.distributed.sharding import check_units, units
from minitx.validation import ArgumentValueError
from tests.unit.training.tiny import assert_equal, tiny_gpt
from tests.unit.training.workers import (
    SHARDED,
    SIZES,
    choose_products,
    continue_run,
    fail_in_one,
    halfway,
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

ROOT = Path(__file__).parents[3]


def assert_close(left: dict[str, Tensor], right: dict[str, Tensor], near: float = 1e-9) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.allclose(tensor, right[name], rtol=0, atol=near), name


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


def test_a_run_continues_in_any_number_of_processes(tmp_path: Path) -> None:
    """1 -> 2, 2 -> 2 (bit for bit, with dropout), 2 -> 1 and 2 -> 4, from the middle of an epoch."""
    run_folder(tmp_path / "one", tiny_gpt(0.0, torch.float64), 1)
    halfway(tmp_path / "one", tmp_path / "one-two")
    spawn(shard_and_run, tmp_path, 2)
    assert_equal(*(kept(tmp_path, f"{name}-end")[1] for name in ("dropout", "dropout-two")))
    assert {path.suffix for path in tmp_path.glob("two/checkpoints/*/training/*")} == {".safetensors"}
    for copy in ("two-one", "two-four"):
        halfway(tmp_path / "two", tmp_path / copy)
    run_folder(tmp_path / "two-one", tiny_gpt(0.0, torch.float64), 1, resume=True)
    spawn(continue_run, tmp_path, 4, "two-four")
    for name in ("two", "one-two", "two-one", "two-four"):
        assert_same_run(tmp_path, "one", name)


def test_the_script_of_the_docs_runs_under_torchrun(tmp_path: Path) -> None:
    page = (ROOT / "docs/training/distributed.md").read_text()
    script = page.partition('script = """')[2].partition('"""')[0]
    (tmp_path / "pretrain.py").write_text(script)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "pretrain.py",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert minitx.load(tmp_path / "rhymes/model").num_parameters() > 0
    records = read_metrics(str(tmp_path / "rhymes/metrics.jsonl"))
    assert [record["step"] for record in records] == [4]
    assert len(list(tmp_path.glob("rhymes/checkpoints/step-000004/training/shard-*.safetensors"))) == 2


def test_a_script_that_joins_leaves_at_its_end(tmp_path: Path) -> None:
    script = """
        import atexit, os
        from torch import distributed
        os.environ |= dict(WORLD_SIZE="2", RANK="0", LOCAL_RANK="0", MASTER_ADDR="", MASTER_PORT="1")
        atexit.register(lambda: print(distributed.is_initialized()))
        from minitx.training.distributed import join
        initialize = distributed.init_process_group
        def alone(backend):
            initialize("gloo", store=distributed.HashStore(), rank=0, world_size=1)
        distributed.init_process_group = alone
        join("cpu")
        print(distributed.is_initialized())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == ["True", "False"]


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


def test_the_fast_product_is_taken_of_whole_parameters_alone(tmp_path: Path) -> None:
    """Under FSDP a layer computes with plain tensors; DTensors have PyTorch's own products."""
    spawn(choose_products, tmp_path, 2)
    (whole, split, message), _ = kept(tmp_path, "products")
    assert whole > 0
    assert split == 0
    assert "gather(model) returns a whole copy" in message
    assert minitx.load(tmp_path / "split").num_parameters() > 0


REFUSED = {
    "num_key_value_heads": ({"model_type": "llama", "num_key_value_heads": 2}, 4),
    "num_attention_heads": ({"model_type": "bert"}, 3),
    "intermediate_size": ({"model_type": "bert", "intermediate_size": 46}, 4),
    "MixtureOfExperts": ({"model_type": "mixtral", "num_key_value_heads": 2}, 2),
    "attention sinks": ({"model_type": "gpt_oss", "num_key_value_heads": 2, "head_dim": 8}, 2),
    "DisentangledSelfAttention": ({"model_type": "deberta-v2"}, 2),
}


@pytest.mark.parametrize("part", REFUSED)
def test_the_plan_refuses_by_name(part: str) -> None:
    values, size = REFUSED[part]
    model = minitx.from_config({"vocab_size": 67, **SIZES, **values}, seed=0)
    with pytest.raises(ArgumentValueError, match=part):
        tensor_parallel_plan(model, size)


def test_units_of_fsdp_share_no_parameters() -> None:
    model = tiny_gpt()
    check_units(model, units(model))
    first, second = model.get_submodule("decoder.layers.0"), model.get_submodule("decoder.layers.1")
    second.get_submodule("output").dense = first.get_submodule("output").dense
    with pytest.raises(ArgumentValueError, match=r"decoder.layers.0.output.dense"):
        check_units(model, units(model))


TENSOR = ["bert", "llama", "qwen3", "olmo2", "bloom", "t5"]


def test_tensor_parallelism_is_one_process(tmp_path: Path) -> None:
    """Logits, attention weights, gradients and generated tokens."""
    spawn(split_and_compute, tmp_path, 2, TENSOR)
    for name in TENSOR:
        assert_close(outputs(name, tiny(name)), kept(tmp_path, name)[1])


def test_tensor_parallel_training_is_one_process(tmp_path: Path) -> None:
    """The run of two processes continues in one, and in four: pairs share the matrices, and two the data."""
    run_folder(tmp_path / "one", tiny("qwen3"), 1)
    spawn(split_and_run, tmp_path, 2, "qwen3", "two", (2,))
    for copy in ("two-one", "two-four"):
        halfway(tmp_path / "two", tmp_path / copy)
    run_folder(tmp_path / "two-one", tiny("qwen3"), 1, resume=True)
    spawn(split_and_run, tmp_path, 4, "qwen3", "two-four", (2, 2))
    for name in ("two", "two-one", "two-four"):
        assert_same_run(tmp_path, "one", name)
