"""The tensors of a checkpoint: parameters, buffers and states of the optimizers, by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from minitx.models import Model
from minitx.training.data.checksums import tensor_checksum
from minitx.training.data.randomness import mix
from minitx.training.whole import whole


def tensors_of(model: torch.nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Returns trainable parameters, buffers and states of the optimizers by name.

    Parameters that are not trained are those of the model that a run begins with, and are not repeated.
    """
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters() if p.requires_grad}
    tensors |= {f"buffer.{name}": buffer for name, buffer in _buffers(model).items()}
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            for key, value in state.items():
                tensors[f"optimizer.{key}.{names[id(parameter)]}"] = value
    return tensors


def model_texts(model: torch.nn.Module) -> list[str]:
    """Returns the config of each model in a module, with the names of its labels, as text."""
    return [
        f"{name}: {part.config!r}, {part.checkpoint.id2label if part.checkpoint else {}}"
        for name, part in model.named_modules()
        if isinstance(part, Model)
    ]


def frozen_checksum(model: torch.nn.Module) -> int:
    """Returns a checksum of the parameters that are not trained."""
    return mix(*(tensor_checksum(whole(p.detach())) for p in model.parameters() if not p.requires_grad))


def _buffers(model: torch.nn.Module) -> dict[str, Tensor]:
    """Returns the buffers that a state dict of the model has."""
    stored = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name in stored}


@torch.no_grad()
def load_parameters(tensors: Mapping[str, Tensor], model: torch.nn.Module) -> None:
    """Copies the parameters and buffers of `tensors_of` back; nothing changes if they do not fit.

    Raises:
        ValueError: tensors of another model.
    """
    targets: dict[str, Tensor] = {
        f"model.{name}": p for name, p in model.named_parameters() if p.requires_grad
    }
    targets |= {f"buffer.{name}": buffer for name, buffer in _buffers(model).items()}
    stored = {name for name in tensors if name.startswith(("model.", "buffer."))}
    for name in sorted(stored ^ targets.keys()):
        owner = "the checkpoint" if name in stored else "the model"
        raise ValueError(f"the checkpoint is of another model: only {owner} has {name.partition('.')[2]!r}.")
    for name, target in targets.items():
        ours, theirs = (tuple(t.shape) for t in (target, tensors[name]))
        if (ours, target.dtype) != (theirs, tensors[name].dtype):
            raise ValueError(
                f"the checkpoint is of another model: {name.partition('.')[2]!r} has shape {theirs} and "
                f"{tensors[name].dtype} there, and {ours} and {target.dtype} in this model."
            )
    for name, target in targets.items():
        target.copy_(tensors[name])


def load_optimizer(
    tensors: Mapping[str, Tensor],
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    stateless: Collection[str] = (),
) -> None:
    """Loads the state of an optimizer from `tensors_of`; its settings stay as they are.

    Args:
        tensors: by name.
        model: whose parameters the optimizer updates.
        optimizer: of the same class as the one that the state is of.
        stateless: names of parameters that had no gradient yet, and so have no state.

    Raises:
        ValueError: another parameter has no state.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    places = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    keys = {name.split(".")[1] for name in tensors if name.startswith("optimizer.")}
    states: dict[int, dict[str, Tensor]] = {}
    for index, name in enumerate(places):
        values = {key: tensors.get(f"optimizer.{key}.{name}") for key in keys}
        if state := {key: value for key, value in values.items() if value is not None}:
            states[index] = state
        elif name not in stateless:
            raise ValueError(
                f"the checkpoint has no state of the optimizer for {name!r}; "
                "continue from another checkpoint."
            )
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
