"""Processes of a gloo group, for the tests of distributed training, and what each of them runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, multiprocessing, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

import minitx
from minitx import Beam, Greedy, Sample
from minitx.cli import app
from minitx.models import Model
from minitx.optimize import linear, recompute_layers
from minitx.training import Run, TrainConfig, add_lora, train
from minitx.training.distributed import gather, group, tensor_parallel
from minitx.training.recipe import file, parts, text
from minitx.training.whole import whole
from minitx.validation import ArgumentValueError
from tests.unit.training.tiny import NextToken, Texts, tiny_gpt

NOISY = NextToken(noise=0.1)
EXACT: dict[str, Any] = {"learning_rate": 1e-2, "max_grad_norm": 0.5, "warmup_steps": 1}
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "bert": ({"model_type": "bert", "vocab_size": 67, **SIZES}, "masked-lm"),
    "albert": ({"model_type": "albert", "vocab_size": 67, "embedding_size": 16, **SIZES}, "masked-lm"),
    "llama": ({"model_type": "llama", "vocab_size": 67, "num_key_value_heads": 2, **SIZES}, "causal-lm"),
    # Norms of each head, and of all heads together.
    "qwen3": (
        {"model_type": "qwen3", "vocab_size": 66, "num_key_value_heads": 2, "head_dim": 8, **SIZES}
        | {"tie_word_embeddings": True},
        "causal-lm",
    ),
    "olmo2": ({"model_type": "olmo2", "vocab_size": 66, "num_key_value_heads": 2, **SIZES}, "causal-lm"),
    "bloom": (
        {"model_type": "bloom", "vocab_size": 66, "hidden_size": 32, "n_layer": 2, "n_head": 4},
        "causal-lm",
    ),
    "mixtral": (
        {
            "model_type": "mixtral",
            "vocab_size": 66,
            "num_key_value_heads": 2,
            "num_local_experts": 3,
            **SIZES,
        },
        "causal-lm",
    ),
    "deberta-v2": (
        {"model_type": "deberta-v2", "vocab_size": 66, "relative_attention": True, **SIZES}
        | {"pos_att_type": ["c2p", "p2c"], "max_relative_positions": 64, "pooler_hidden_size": 32},
        "masked-lm",
    ),
    "t5": (
        {"model_type": "t5", "vocab_size": 67, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2}
        | {"num_heads": 4, "dropout_rate": 0.0},
        "seq2seq-lm",
    ),
}
WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def tiny(name: str) -> Model:
    """Returns a small model without dropout, the same in every process."""
    config, head = CONFIGS[name]
    config = config | (WITHOUT_DROPOUT if "bert" in name else {})
    return minitx.from_config(config, head=head, seed=0, dtype=torch.float64)


def forkserver() -> Any:
    """Returns the context of processes that are forks of one that imported torch, and did nothing with it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "torch._dynamo"])
    return context


def exit_code(work: Callable[..., Any], *arguments: Any) -> int:
    """Runs `work(*arguments)` in a process; returns its exit code, or minus the signal that killed it."""
    process = forkserver().Process(target=work, args=arguments)
    process.start()
    process.join()
    return int(process.exitcode)


def spawn(work: Callable[..., Any], folder: Path, size: int, *arguments: Any) -> None:
    """Runs `work(folder, *arguments)` in each of several processes of a group."""
    forkserver()
    inputs = (work, folder, size, arguments)
    context: Any = multiprocessing.start_processes(
        _begin, inputs, nprocs=size, join=False, start_method="forkserver"
    )
    for process in context.processes:  # each ends by itself: `join` kills the others after an error of one
        process.join(60.0)
    while not context.join():
        pass


def _begin(rank: int, work: Callable[..., Any], folder: Path, size: int, arguments: Any) -> None:
    torch.set_num_threads(1)
    place = folder / f"group-{work.__name__}-{size}"
    distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=size)
    work(folder, *arguments)
    distributed.destroy_process_group()
    # An interpreter that ends while a thread of gloo releases its last work is aborted, rarely.
    os._exit(0)


def whole_parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: whole(p.detach()).clone() for name, p in model.named_parameters()}


def keep(folder: Path, name: str, numbers: Any, tensors: dict[str, Tensor]) -> None:
    """Writes results of the first process."""
    if distributed.get_rank() == 0:
        (folder / f"{name}.json").write_text(json.dumps(numbers))
        save_file(tensors, folder / f"{name}.safetensors")


def kept(folder: Path, name: str) -> tuple[Any, dict[str, Tensor]]:
    """Reads what `keep` wrote."""
    return json.loads((folder / f"{name}.json").read_text()), load_file(folder / f"{name}.safetensors")


def steps(model: nn.Module, size: int, **options: Any) -> tuple[list[Any], dict[str, Tensor]]:
    """Returns losses, numbers of targets and norms of steps, a loss of evaluation, and parameters.

    Args:
        model: to train.
        size: processes that share the data; a step has the same 12 examples for any number of them.
        options: of the config; without `steps` there are four.
    """
    config = TrainConfig(batch_size=3, accumulation=4 // size, **{"steps": 4} | EXACT | options)
    run, rows = Run(model, Texts(), NOISY, config), []
    if config.checkpoint_activations:
        recompute_layers(model)
    for _ in range(config.steps):
        sums = run.step()
        rows.append([sums.loss, sums.targets, sums.tokens, run.gradient_norm])
    rows.append([run.evaluate(Texts(7))])
    return rows, whole_parameters(model)


# --- FSDP --------------------------------------------------------------------------------------------

SHARDED: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "recomputed": {"checkpoint_activations": True},
    "narrow": {"precision": "bfloat16"},
    "compiled": {"compile": "eager", "steps": 2},
    "adapters": {},
    "albert": {},
    "mixtral": {},
    "deberta-v2": {},
}


def sharded_model(name: str) -> nn.Module:
    """Returns the model of an entry of SHARDED."""
    if name in CONFIGS:
        return tiny(name)
    dtype = torch.float32 if name == "narrow" else torch.float64
    model = tiny_gpt(0.0, dtype, n_layer=1 if name == "compiled" else 2)
    if name == "adapters":
        add_lora(model, rank=2, seed=0)
    return model


def shard_and_step(folder: Path, names: list[str]) -> None:
    """Steps of several models under FSDP."""
    size = distributed.get_world_size()
    for name in names:
        model = sharded_model(name)
        keep(folder, f"{name}-{size}", *steps(model, size, **SHARDED[name]))
        assert all(not isinstance(p, DTensor) or p.to_local().numel() < p.numel() for p in model.parameters())


def choose_products(folder: Path) -> None:
    """Counts oneDNN's products where it is the choice of the machine: under FSDP, and with split matrices."""
    counts, product = [0], linear.onednn

    def _count(*inputs: Any) -> Tensor:
        counts[0] += 1
        return product(*inputs)

    linear.onednn, linear.onednn_is_faster = _count, lambda: True
    model = tiny_gpt(0.0, n_embd=256, n_layer=1)
    Run(model, Texts(), NOISY, TrainConfig(steps=1, batch_size=2)).step()
    numbers, counts[0] = counts[0], 0
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("tensor",))
    split = tensor_parallel(tiny_gpt(0.0, n_embd=256, n_layer=1), mesh)
    Run(split, Texts(), NOISY, TrainConfig(steps=1, batch_size=2)).step()
    try:
        minitx.save(split, folder / "split")
    except ArgumentValueError as error:
        keep(folder, "products", [numbers, counts[0], str(error)], {})
    copy = gather(split)
    if copy is not None:
        minitx.save(copy, folder / "split")


# --- runs with a folder --------------------------------------------------------------------------------


def run_folder(
    path: Path, model: nn.Module, size: int, resume: bool = False, data: Texts | None = None, **options: Any
) -> list[dict[str, Any]]:
    """Trains for six steps, of the same 12 examples for any number of processes, and returns the metrics."""
    config = TrainConfig(
        steps=6, batch_size=3, accumulation=4 // size, save_every=3, log_every=1, **EXACT | options
    )
    result = train(
        model, data or Texts(), NOISY, config, folder=path, evaluation=Texts(7), resume=resume, progress=False
    )
    return result.metrics


def halfway(run: Path, copy: Path) -> None:
    """Copies the folder of a run as it was after step 3."""
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints" / "step-000006")
    shutil.rmtree(copy / "model")


def continue_run(folder: Path, name: str, dropout: float = 0.0) -> None:
    """Trains in a folder, which may hold a run to continue."""
    model = tiny_gpt(dropout, torch.float64)
    run_folder(folder / name, model, distributed.get_world_size(), (folder / name).exists())
    keep(folder, f"{name}-end", None, whole_parameters(model))


def shard_and_run(folder: Path) -> None:
    """Begins a run, continues that of one process, and one with dropout."""
    continue_run(folder, "two")
    continue_run(folder, "one-two")
    continue_run(folder, "dropout", 0.1)
    if distributed.get_rank() == 0:
        halfway(folder / "dropout", folder / "dropout-two")
    distributed.barrier()
    continue_run(folder, "dropout-two", 0.1)


def fail_in_one(folder: Path, kind: str) -> None:
    """One process cannot load an example, or gets a signal; or the first cannot open the folder."""
    rank = distributed.get_rank()

    def _act(index: int) -> None:
        if rank == 1 and index == 5 and kind == "data":
            raise ValueError(f"example {index} is broken")
        if rank == 1 and index == 5 and kind == "signal":
            os.kill(os.getpid(), signal.SIGINT)

    try:
        run_folder(folder / kind, tiny_gpt(0.0, torch.float64), 2, data=Texts(act=_act))
    except BaseException as error:
        text = "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])
        (folder / f"{kind}-{rank}.txt").write_text(text)
        raise


# --- recipes -------------------------------------------------------------------------------------------


def _fail(*arguments: Any, **options: Any) -> Any:
    raise AssertionError("the first process does this for all")


def train_recipes(folder: Path, commands: dict[str, list[str]]) -> None:
    """Runs commands of `minitx`; exit code and output of each process are in NAME-RANK.txt."""
    rank = distributed.get_rank()
    if rank:
        parts.train_tokenizer = text.write_tokens = file.tomllib.loads = _fail  # type: ignore[assignment]
    os.chdir(folder)
    for name, arguments in commands.items():
        output = StringIO()
        with redirect_stdout(output), redirect_stderr(output):
            code = app.main(arguments)
        Path(f"{name}-{rank}.txt").write_text(f"{code}\n{output.getvalue()}")


def meet_errors(folder: Path) -> None:
    """Errors of the first process alone, of both, and of the second alone: who is to print them."""
    rank = distributed.get_rank()
    if not rank:
        start = time.monotonic()
        assert not group.is_repeated(ValueError("of the first"))
        assert time.monotonic() - start < 1.0
    assert group.is_repeated(ValueError("of both")) == bool(rank)
    if rank:
        assert not group.is_repeated(ValueError("of the second"))


# --- tensor parallelism --------------------------------------------------------------------------------


def batch_of(name: str) -> dict[str, Tensor]:
    """Returns a batch with padding and ignored labels."""
    ids = torch.randint(3, 60, (3, 9), generator=torch.Generator().manual_seed(1))
    mask, labels = torch.ones_like(ids), ids.clone()
    mask[1, 6:], labels[0, 5:] = 0, -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def outputs(name: str, model: Model) -> dict[str, Tensor]:
    """Returns logits, attention weights, gradients by name, and generated ids."""
    output = model.eval()(**batch_of(name), output_attentions=True)
    assert output.loss is not None
    assert output.logits is not None
    output.loss.backward()  # type: ignore[no-untyped-call]
    tensors = {"logits": output.logits.detach()}
    weights = output.attentions or output.decoder_attentions
    assert weights is not None
    assert weights[-1] is not None
    tensors["attention"] = weights[-1].detach().contiguous()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None
        tensors[f"grad.{key}"] = whole(parameter.grad)
    if CONFIGS[name][1] != "masked-lm":
        for strategy in (Greedy(), Beam(num_beams=3), Sample()):
            seed = {"seed": 0} if isinstance(strategy, Sample) else {}
            result = minitx.generate(model, [[3, 9, 4], [7, 5]], strategy, max_new_tokens=4, **seed)
            for row, ids in enumerate(result.sequences):
                tensors[f"{type(strategy).__name__}.{row}"] = ids
    return tensors


def split_and_compute(folder: Path, names: list[str]) -> None:
    """Outputs of models whose matrices all processes share."""
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),), mesh_dim_names=("tensor",))
    for name in names:
        keep(folder, name, None, outputs(name, tensor_parallel(tiny(name), mesh)))


def split_and_run(folder: Path, name: str, run: str, shape: tuple[int, ...]) -> None:
    """Trains a model whose matrices two processes share, and whose data the others share."""
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("data", "tensor")[-len(shape) :])
    model = tensor_parallel(tiny(name), mesh)
    run_folder(folder / run, model, shape[0] if len(shape) == 2 else 1, (folder / run).exists())
