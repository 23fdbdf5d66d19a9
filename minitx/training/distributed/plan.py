"""Tensor parallelism: several processes share each matrix of a model (arXiv:1909.08053, section 3).

All architectures have the same module names, so one plan serves them all. A projection into heads, or into
the features between the two of a feed-forward network, is split by outputs; the projection after it is split
by inputs, and its result summed over the processes. Between them each process computes its own heads and
features. The vocabulary is split in the embedding and in a head over it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_module
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    parallelize_module,
)

from minitx.layers.attention import SelfAttention
from minitx.layers.feed_forward import GatedIntermediate, Intermediate
from minitx.layers.heads import VOCABULARY_TASKS
from minitx.layers.layer import Layer
from minitx.layers.positions import RelativePositionBias
from minitx.models import Model
from minitx.training.distributed.copies import remember_plain
from minitx.training.distributed.mesh import DATA, TENSOR, remember_mesh
from minitx.training.lora.adapt import has_adapters
from minitx.validation import ArgumentValueError, check_type

Plan = dict[str, ParallelStyle]
HINT = "train it with FSDP alone"


def tensor_parallel(model: Model, mesh: DeviceMesh) -> Model:
    """Distributes the matrices of a model over the processes of a mesh, in place.

    Logits, losses, gradients and generated tokens are those of one process, up to rounding. `train` gives all
    processes that share matrices the same data; all of them must make the same calls.

    Args:
        model: the same one in every process, such as from `minitx.load`.
        mesh: from `torch.distributed.device_mesh.init_device_mesh`, with one dimension "tensor", or with
            ("data", "tensor"): processes along the first are the data-parallel group, with shards by
            FSDP2.

    Returns:
        The model.

    Raises:
        ArgumentTypeError: not a model, or not a mesh.
        ArgumentValueError: a part that cannot be split, or not over so many processes.
    """
    check_type("model", model, Model, "a model of minitx")
    check_type("mesh", mesh, DeviceMesh, "a DeviceMesh", "torch.distributed.device_mesh.init_device_mesh")
    names = mesh.mesh_dim_names or ()
    if names not in ((TENSOR,), (DATA, TENSOR)):
        expected = f"a mesh with the dimensions ({TENSOR!r},) or ({DATA!r}, {TENSOR!r})"
        raise ArgumentValueError("mesh", names, expected, "pass mesh_dim_names to init_device_mesh")
    tensor_mesh = mesh[TENSOR]
    plan = tensor_parallel_plan(model, tensor_mesh.size())
    remember_plain(model)
    parallelize_module(model, tensor_mesh, plan)
    model.tie_weights()
    for module in model.modules():
        if isinstance(module, SelfAttention):
            module.register_forward_pre_hook(own_heads(module, tensor_mesh), with_kwargs=True)
    model.head_shares = tensor_mesh.size()
    remember_mesh(model, mesh)
    return model


def tensor_parallel_plan(model: Model, size: int) -> Plan:
    """Returns how each matrix of a model is split, for `parallelize_module`.

    Args:
        model: of any architecture but those with experts or disentangled attention.
        size: number of processes.

    Raises:
        ArgumentValueError: a part that cannot be split, or not over so many processes.
    """
    if has_adapters(model):
        raise ArgumentValueError("model", "adapters", "a model without adapters", "merge_lora merges them")
    plan: Plan = {}
    for name, module in model.named_modules():
        if isinstance(module, Layer):
            plan |= {f"{name}.{part}": style for part, style in layer_plan(module, name, size).items()}
        elif isinstance(module, RelativePositionBias):
            plan[name] = ColwiseParallel()  # (T, S, heads of this process)
        elif name.endswith("embedder.word_emb"):
            plan[name] = RowwiseParallel(input_layouts=Replicate())
    if model.task in VOCABULARY_TASKS:
        plan["head.projection"] = ColwiseParallel(output_layouts=Replicate())
    return plan


def layer_plan(layer: Layer, name: str, size: int) -> Plan:
    """Returns how the matrices of a layer are split.

    Args:
        layer: of a model.
        name: for messages.
        size: number of processes.

    Raises:
        ArgumentValueError: a part that cannot be split, or not over so many processes.
    """
    plan: Plan = {}
    for kind in ("self", "cross"):
        prefix = "attention" if kind == "self" else "cross_attention"
        if hasattr(layer, prefix):
            attention = layer.get_submodule(f"{prefix}.{kind}_attention")
            inner = attention_plan(attention, f"{name}.{prefix}", size)
            plan |= {f"{prefix}.{kind}_attention.{part}": style for part, style in inner.items()}
            plan[f"{prefix}.{kind}_output.dense"] = RowwiseParallel()
    if not isinstance(layer.intermediate, Intermediate | GatedIntermediate):
        expected = f"a model with plain feed-forward networks, not {type(layer.intermediate).__name__}"
        raise ArgumentValueError(f"{name}.intermediate", layer.intermediate, expected, HINT)
    check_divides(f"{name}.intermediate: intermediate_size", layer.intermediate.dense.out_features, size)
    plan["intermediate.dense"] = ColwiseParallel()
    if isinstance(layer.intermediate, GatedIntermediate):
        plan["intermediate.gate"] = ColwiseParallel()
    return plan | {"output.dense": RowwiseParallel()}


def attention_plan(attention: nn.Module, name: str, size: int) -> Plan:
    """Returns how the matrices of an attention are split; arguments and errors are those of `layer_plan`."""
    if not isinstance(attention, SelfAttention) or attention.sinks is not None:
        part = "attention sinks" if isinstance(attention, SelfAttention) else type(attention).__name__
        raise ArgumentValueError(name, attention, f"a model with plain attention, not with {part}", HINT)
    check_divides(f"{name}: num_attention_heads", attention.Q.out_features // attention.head_dim, size)
    check_divides(f"{name}: num_key_value_heads", attention.K.out_features // attention.head_dim, size)
    plan: Plan = {part: ColwiseParallel() for part in "QKV"}
    if attention.q_norm is not None:
        # (B, T, H, D) is split by heads; (B, T, H * D), which is normalised as a whole, by features
        style = SplitNorm(2 if attention.norm_per_head else -1)
        plan |= {"q_norm": style, "k_norm": style}
    return plan


def check_divides(name: str, number: int, size: int) -> None:
    """Checks that a number of heads or features can be divided among the processes."""
    if number % size:
        hint = "use fewer processes for tensor parallelism, and FSDP for the others"
        raise ArgumentValueError(name, number, f"a multiple of {size}, the number of processes", hint)


class SplitNorm(ParallelStyle):
    """A norm whose input is split over the processes, as its output is; its parameters are not.

    Args:
        dim: the dimension that is split.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.placements = (Shard(dim),)

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        def _enter(module: nn.Module, inputs: Any, mesh: DeviceMesh) -> Any:
            return DTensor.from_local(inputs[0], mesh, self.placements, run_check=False)

        def _leave(module: nn.Module, output: Any, mesh: DeviceMesh) -> Any:
            return output.redistribute(placements=self.placements).to_local()

        return distribute_module(module, device_mesh, None, _enter, _leave)


def own_heads(attention: SelfAttention, mesh: DeviceMesh) -> Callable[..., Any]:
    """Returns a hook that gives an attention the part of the score bias that belongs to its heads.

    The attention weights that are watched are those of all heads.
    """
    heads = attention.Q.out_features // attention.head_dim

    def _enter(module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, Any]:
        hidden, context, *others = inputs
        mask, watch = context.mask, context.watch
        if mask is not None and mask.shape[1] == heads:
            mask = mask.chunk(mesh.size(), dim=1)[mesh.get_local_rank()]
        if watch is not None:

            def _gather(weights: Tensor) -> None:
                whole = DTensor.from_local(weights, mesh, (Shard(1),), run_check=False).full_tensor()
                context.watch(whole)

            watch = _gather
        return (hidden, replace(context, mask=mask, watch=watch), *others), options

    return _enter
