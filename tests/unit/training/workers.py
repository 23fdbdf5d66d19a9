"""What each of several gloo processes does in the tests of distributed training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, distributed, multiprocessing, nn

from minitx.training import Run, TrainConfig
from minitx.training.whole import whole
from tests.unit.training.tiny import NextToken, Texts, tiny_gpt


def spawn(work: Callable[..., Any], folder: Path, size: int, *arguments: Any) -> None:
    """Runs `work(folder, *arguments)` in each of several processes of a group."""
    multiprocessing.start_processes(_begin, (work, folder, size, arguments), nprocs=size, start_method="spawn")


def _begin(rank: int, work: Callable[..., Any], folder: Path, size: int, arguments: Any) -> None:
    torch.set_num_threads(1)
    place = folder / f"group-{work.__name__}-{size}"
    distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=size)
    work(folder, *arguments)
    distributed.destroy_process_group()


def whole_parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: whole(p.detach()).clone() for name, p in model.named_parameters()}


def keep(folder: Path, name: str, tensors: dict[str, Tensor]) -> None:
    """Writes tensors from the first process."""
    if distributed.get_rank() == 0:
        save_file(tensors, folder / f"{name}.safetensors")


def experiment(folder: Path) -> None:
    for options in ({}, {"checkpoint_activations": True}, {"optimizer": "muon"}, {"compile": "eager"}):
        model = tiny_gpt(0.0, torch.float64)
        if options.pop("checkpoint_activations", None):
            from minitx.optimize import recompute_layers
            recompute_layers(model)
        try:
            run = Run(model, Texts(), NextToken(noise=0.1), TrainConfig(steps=5, batch_size=3, accumulation=2, learning_rate=1e-2, max_grad_norm=0.5, **options))
            losses = [(s := run.step()).loss / s.targets for _ in range(5)]
            losses.append(run.evaluate(Texts(5)))
            if distributed.get_rank() == 0:
                print(options, losses, run.gradient_norm, sum(p.sum().item() for p in whole_parameters(model).values()), flush=True)
            else:
                whole_parameters(model)
        except Exception as e:
            import traceback; traceback.print_exc()
            break
