"""Whole copies of models whose parameters are distributed.

FSDP2 and tensor parallelism change the classes and hooks of a model, so its copy is made before, on the
meta device; `gather` fills in the parameters.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, distributed, nn

from minitx.training.whole import whole
from minitx.validation import ArgumentValueError, check_type

Module = TypeVar("Module", bound=nn.Module)
_PLAIN: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()  # copies on the meta device


def gather(model: Module) -> Module | None:
    """Returns a whole copy of a distributed model on the CPU of the first process, and None in the others.

    One parameter at a time is gathered on the devices. All processes must call it. A model that is not
    distributed is returned as it is.

    Args:
        model: that `train` or `tensor_parallel` has distributed.

    Raises:
        ArgumentTypeError: not a module.
        ArgumentValueError: a model that got parameters since.
    """
    check_type("model", model, nn.Module, "a module")
    plain = _PLAIN.get(model)
    if plain is None:
        return model
    check_names(model, plain)
    parameters = {}
    is_first = distributed.get_rank() == 0
    for name, parameter in model.named_parameters():
        tensor = whole(parameter.detach())
        if is_first:
            parameters[name] = tensor.cpu()
    if not is_first:
        return None
    buffers = {name: buffer.cpu() for name, buffer in model.named_buffers()}
    filled = copy_with(plain, parameters, buffers)
    assert isinstance(filled, nn.Module)
    return filled  # type: ignore[return-value]


def remember_plain(model: nn.Module) -> None:
    """Notes what a model is before it is distributed; a second call changes nothing."""
    if model not in _PLAIN:
        shapes = {
            name: torch.empty(p.shape, dtype=p.dtype, device="meta") for name, p in model.named_parameters()
        }
        _PLAIN[model] = copy_with(model, shapes, {})
    check_names(model, _PLAIN[model])


def check_names(model: nn.Module, plain: nn.Module) -> None:
    """Checks that a model has the parameters that it had before it was distributed.

    Raises:
        ArgumentValueError: it has others, such as adapters.
    """
    ours, theirs = (dict(part.named_parameters()).keys() for part in (model, plain))
    if changed := sorted(ours ^ theirs):
        expected = "with the parameters that it had before it was distributed"
        raise ArgumentValueError("model", changed[0], expected, "change the model first")


def copy_with(model: nn.Module, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> nn.Module:
    """Returns a copy of a model with other tensors; those that were tied stay tied.

    Args:
        model: stays as it is.
        parameters: by name.
        buffers: by name; others are copied.
    """
    memo: dict[int, Tensor] = {}
    for name, old in model.named_parameters():
        memo[id(old)] = nn.Parameter(parameters[name], requires_grad=old.requires_grad)
    for name, buffer in model.named_buffers():
        if name in buffers:
            memo[id(buffer)] = buffers[name].detach()
    return copy.deepcopy(model, memo)
