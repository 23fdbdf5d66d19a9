"""Parameters distributed by FSDP2 (`torch.distributed.fsdp.fully_shard`).

Each process holds a shard of each parameter, its gradient and the state of its optimizer. A layer gathers its
parameters from all processes before it runs, forward and backward, and sums its gradients over them after.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from minitx.layers.layer import Layer
from minitx.models import Model
from minitx.validation import ArgumentValueError

_PRECISIONS: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()  # of the units


def shard(model: nn.Module, mesh: DeviceMesh, precision: str = "float32") -> None:
    """Distributes the parameters of a model, in place: each layer is a unit, and the rest of each model.

    Gradients are sums over the processes, as those of micro-batches are.

    Args:
        model: the same one in every process.
        mesh: one dimension, the data-parallel group.
        precision: "bfloat16": parameters are gathered, and computed with, in bfloat16; shards, their
            gradients and the optimizer stay as they are.

    A model that an earlier run has distributed stays so.

    Raises:
        ArgumentValueError: parameters that two units share, or a model distributed in another precision.
    """
    policy = MixedPrecisionPolicy()
    if precision == "bfloat16":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    parts = units(model)
    check_units(model, parts)
    for part in parts:
        if (earlier := _PRECISIONS.get(part, precision)) != precision:
            hint = "the run before distributed the model in it; train another copy"
            raise ArgumentValueError("precision", precision, f"{earlier!r}", hint)
    for part in parts:
        if isinstance(part, FSDPModule):  # distributed by an earlier run
            continue
        # Full parameters never stay: between forwards a model holds its own shards, in their own dtype.
        fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
        _PRECISIONS[part] = precision
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def units(model: nn.Module) -> list[nn.Module]:
    """Returns the modules whose parameters are gathered together, inner ones first."""
    modules = list(model.modules())
    layers = [module for module in modules if isinstance(module, Layer)]
    models = [module for module in modules if isinstance(module, Model)]
    inner = {id(p) for part in models for p in part.parameters()}
    outer = [model] if any(id(p) not in inner for p in model.parameters()) else []
    return [*layers, *models, *(part for part in outer if part not in models)]


def check_units(model: nn.Module, parts: list[nn.Module]) -> None:
    """Checks that no parameter belongs to two units.

    Args:
        model: for the names of its parameters.
        parts: the units; the parameters of an inner one do not belong to those that contain it.

    Raises:
        ArgumentValueError: a parameter that two units share.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    units_of = set(map(id, parts))
    seen: set[int] = set()
    for part in parts:
        own: set[int] = set()
        modules = [part]
        while modules:
            module = modules.pop()
            own |= {id(p) for p in module._parameters.values() if p is not None}
            modules += [child for child in module.children() if id(child) not in units_of]
        if shared := sorted(names[key] for key in own & seen):
            expected = f"a model whose layers have parameters of their own; {shared[0]!r} is shared"
            raise ArgumentValueError("model", model, expected, "train it in one process")
        seen |= own
