"""Optimizers: the weight-decay groups, AdamW, and Muon for matrices with AdamW for the rest."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from minitx.layers.norm import RMSNorm
from minitx.training.config import TrainConfig
from minitx.training.schedules import learning_rate_factor
from minitx.training.whole import whole

_NORMS = (nn.LayerNorm, RMSNorm, nn.RMSNorm, nn.GroupNorm)
Named = dict[str, nn.Parameter]


def make_optimizers(model: nn.Module, config: TrainConfig) -> list[Optimizer]:
    """Returns the optimizers of a model's trainable parameters.

    Args:
        model: on the device to train on.
        config: "adamw" (arXiv:1711.05101) is one optimizer. "muon" (Jordan et al. 2024, in PyTorch
            `torch.optim.Muon`) orthogonalises the updates of the matrices between embedding and head, and
            leaves all other parameters to AdamW, the weights of experts, of three dimensions, included: it
            takes matrices only. Its updates are scaled to the size of AdamW's
            (arXiv:2502.16982, section 2.2), so `learning_rate` and `weight_decay` serve both.
    """
    parameters = trainable_parameters(model)
    matrices = hidden_matrices(model) if config.optimizer == "muon" else {}
    optimizers: list[Optimizer] = []
    if matrices:
        optimizers.append(
            Muon(
                matrices.values(),
                lr=config.learning_rate,
                weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    rest = {name: p for name, p in parameters.items() if name not in matrices}
    if rest:
        # Fused, a step on a CPU takes a tenth of the time.
        fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in rest.values())
        groups = weight_decay_groups(model, rest, config)
        betas, eps = config.betas, config.eps
        optimizers.append(AdamW(groups, lr=config.learning_rate, betas=betas, eps=eps, fused=fused))
    return optimizers


def trainable_parameters(model: nn.Module) -> Named:
    """Returns the parameters that require gradients by name, tied ones once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def weight_decay_groups(model: nn.Module, parameters: Named, config: TrainConfig) -> list[dict[str, Any]]:
    """Returns parameters in two groups for an optimizer: with weight decay, and without.

    Biases, and the scales of norms, do not decay. Embeddings do, as in BERT and in transformers' Trainer,
    unless `config.decay_embeddings` is False; one that is tied to a head's projection is an embedding.

    Args:
        model: for the modules of the parameters.
        parameters: some of its parameters by name.
        config: `weight_decay` and `decay_embeddings`.
    """
    without = set()
    for module in model.modules():
        for leaf, parameter in module._parameters.items():
            if parameter is None:
                continue
            is_kept = leaf.endswith("bias") or parameter.dim() < 2 or isinstance(module, _NORMS)
            if is_kept or (isinstance(module, nn.Embedding) and not config.decay_embeddings):
                without.add(id(parameter))
    decayed = [p for p in parameters.values() if id(p) not in without]
    others = [p for p in parameters.values() if id(p) in without]
    groups = [(decayed, config.weight_decay), (others, 0.0)]
    return [{"params": part, "weight_decay": rate} for group, rate in groups for part in by_mesh(group)]


def hidden_matrices(model: nn.Module) -> Named:
    """Returns the trainable matrices between embedding and head, by name: those that Muon updates."""
    others = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    return {
        name: p
        for name, p in trainable_parameters(model).items()
        if p.dim() == 2 and id(p) not in others and not {"head", "bias"} & set(name.split("."))
    }


def set_learning_rate(optimizers: list[Optimizer], config: TrainConfig, step: int) -> float:
    """Sets the learning rate after a number of finished steps, and returns it."""
    names = ("steps", "warmup_steps", "decay_steps", "min_lr_ratio")
    options = {name: getattr(config, name) for name in names}
    learning_rate = config.learning_rate * learning_rate_factor(step, config.schedule, **options)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
    return learning_rate


@torch.no_grad()
def scale_gradients(parameters: Named, count: float, max_norm: float) -> float:
    """Divides gradients of a sum by the number of its terms, then clips them by their global norm.

    Args:
        parameters: those without a gradient are left out.
        count: number of terms.
        max_norm: largest norm of all gradients together (arXiv:1211.5063, algorithm 1); 0: no clipping.

    Returns:
        The norm of the mean's gradient before clipping; infinite or NaN if a gradient is.
    """
    groups = by_mesh([p.grad for p in parameters.values() if p.grad is not None])
    norms = [whole(torch.nn.utils.get_total_norm(gradients)) for gradients in groups]
    norm = (float(norms[0]) if len(norms) == 1 else math.hypot(*map(float, norms))) / count
    factor = min(1.0, max_norm / (norm + 1e-6)) if max_norm else 1.0
    for gradients in groups:
        torch._foreach_mul_(gradients, factor / count)
    return norm


def by_mesh(tensors: list[Any]) -> list[list[Any]]:
    """Returns groups of tensors that are distributed over the same processes; plain ones are a group."""
    groups: dict[Any, list[Any]] = {}
    for tensor in tensors:
        groups.setdefault(getattr(tensor, "device_mesh", None), []).append(tensor)
    return list(groups.values())
