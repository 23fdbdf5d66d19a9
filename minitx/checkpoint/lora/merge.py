"""The merge: each weight of the base model with its update, computed while it is read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from minitx.architectures.declaration import Architecture
from minitx.checkpoint.files import Tensors
from minitx.checkpoint.lora.adapter import Adapter
from minitx.checkpoint.lora.modules import Modules, check_complete, check_stated
from minitx.config import ModelConfig


@dataclass
class Update:
    """The update of one weight: W + scale B A, with DoRA's norms (arXiv:2402.09353) if it has magnitudes.

    Attributes:
        down: A, (r, inputs).
        up: B, (outputs, r).
        scale: factor of the product.
        transposed: the stored weight is (inputs, outputs), as an embedding's is.
        magnitude: (outputs,), the norm of each output's weights; None: no DoRA.
        bias: the update of the bias.
    """

    down: Tensor | None = None
    up: Tensor | None = None
    scale: float = 1.0
    transposed: bool = False
    magnitude: Tensor | None = None
    bias: Tensor | None = None

    def apply(self, weight: Tensor) -> Tensor:
        """Returns the merged weight in the dtype of `weight`: (outputs, inputs) or its transpose -> same."""
        assert self.down is not None
        assert self.up is not None
        dtype = torch.promote_types(weight.dtype, torch.float32)
        change = self.up.to(dtype) @ self.down.to(dtype) * self.scale
        merged = weight.to(dtype) + (change.mT if self.transposed else change)
        if self.magnitude is not None:
            by_output = merged.mT if self.transposed else merged
            factor = self.magnitude.flatten().to(dtype) / by_output.norm(dim=1)
            merged = merged * (factor if self.transposed else factor[:, None])
        return merged.to(weight.dtype)


@dataclass
class MergedTensors(Tensors):
    """The tensors of a base model with an adapter merged.

    Attributes:
        updates: stored name -> the update of its weight.
        biases: stored name -> what is added to a bias.
        replaced: stored name -> the adapter's own tensor.
        dtype: dtype that the model is loaded in; None keeps that of the base model.
        base: the tensors of the base model.
    """

    updates: dict[str, Update] = field(default_factory=dict)
    biases: dict[str, Tensor] = field(default_factory=dict)
    replaced: dict[str, Tensor] = field(default_factory=dict)
    dtype: torch.dtype | None = None
    base: Tensors = field(default_factory=Tensors)

    def read(self, name: str, *, mapped: bool = True) -> Tensor:
        """Returns a tensor with the adapter merged; the arguments are those of `Tensors.read`.

        A merged tensor has at least the precision of `dtype`: it is not rounded to that of the file first.
        """
        if name in self.replaced:
            tensor = self.replaced[name].to(self.shapes[name].dtype)
        else:
            tensor = self.base.read(name, mapped=mapped)
        if name not in self.updates and name not in self.biases:
            return tensor
        tensor = tensor.to(torch.promote_types(tensor.dtype, self.dtype or tensor.dtype))
        if name in self.updates:
            return self.updates[name].apply(tensor)
        wide = torch.promote_types(tensor.dtype, torch.float32)
        return (tensor.to(wide) + self.biases[name].to(wide)).to(tensor.dtype)

    @property
    def changed(self) -> set[str]:
        """The names of the tensors that the adapter changes or replaces."""
        return {*self.updates, *self.biases, *self.replaced}


PART = re.compile(
    r"(.+)\.(lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_embedding_A|lora_embedding_B"
    r"|lora_magnitude_vector(?:\.weight)?)$"
)


def merge(
    base: Tensors,
    adapter: Adapter | None,
    architecture: Architecture,
    model_config: ModelConfig,
    dtype: torch.dtype | None = None,
) -> Tensors:
    """Returns the base model's tensors with an adapter merged; without one, `base` itself.

    Args:
        base: tensors of the base model.
        adapter: the adapter, or None.
        architecture: of the base model.
        model_config: of the base model.
        dtype: dtype that the model is loaded in; None keeps that of the base model.

    Raises:
        ValueError: tensors that the base model or the adapter's config has no place for, or that are missing.
    """
    if adapter is None:
        return base
    modules = Modules.of(architecture, model_config, adapter.task, base)
    updates, whole = read_updates(adapter)
    parts = (dict(base.shapes), dict(base.files), base.metadata, base.handles, base.spans, base.folder)
    merged = MergedTensors(*parts, mapped=base.mapped, dtype=dtype, base=base)
    for module, update in updates.items():
        if not adapter.is_target(module):
            raise ValueError(f"{adapter.path}: target_modules must name {module}, which the weights adapt.")
        add_update(merged, adapter, modules, module, update)
    check_stated(adapter, modules, updates, whole)
    check_complete(adapter, modules, updates, whole)
    for name, tensor in whole.items():
        for stored in modules.stored(name) or [name]:
            like = base.shapes.get(stored, tensor)
            if like.shape != tensor.shape and not modules.may_be_resized(name):
                shapes = f"{tuple(tensor.shape)}, but that of the base model has {tuple(like.shape)}"
                raise ValueError(f"{adapter.path}: the tensor {name} has shape {shapes}.")
            merged.replaced[stored] = tensor
            merged.shapes[stored] = tensor.to("meta", like.dtype)
            merged.files.setdefault(stored, next(iter(base.files.values())))
    return merged


def add_update(
    merged: MergedTensors, adapter: Adapter, modules: Modules, module: str, update: Update
) -> None:
    """Adds the update of one module, under each name that the base model stores its weight under.

    Raises:
        ValueError: the base model has no such weight, or no bias for a trained one, or other shapes.
    """
    weights, biases = modules.stored(f"{module}.weight"), modules.stored(f"{module}.bias")
    if not weights and modules.is_known(module):
        raise ValueError(
            f"{adapter.path}: the adapter changes {module}, which has no weights of its own: the base model "
            "uses its embedding there (tie_word_embeddings); save an untied base model with the adapter "
            "merged, and load that."
        )
    if not weights:
        raise ValueError(
            f"{adapter.path}: the base model has no such weights: {module}; is base_model_name_or_path the "
            "model that the adapter was trained on?"
        )
    if update.bias is not None and not biases:
        reason = f"needs a bias to merge into, which {module} of the base model does not have"
        raise adapter.error("lora_bias", reason, "minitx does not add biases to a model")
    update.transposed |= modules.is_transposed(module)
    for weight in weights:
        check_shape(adapter, module, update, merged.shapes[weight])
        merged.updates[weight] = update
    if update.bias is not None:
        merged.biases |= dict.fromkeys(biases, update.bias * update.scale)


def read_updates(adapter: Adapter) -> tuple[dict[str, Update], dict[str, Tensor]]:
    """Returns the update of each module, and the tensors that replace those of the base model.

    Raises:
        ValueError: one of the matrices A and B without the other, or a tensor that minitx does not know.
    """
    updates: dict[str, Update] = {}
    whole: dict[str, Tensor] = {}
    for name, tensor in adapter.tensors.items():
        match = PART.match(name)
        if match is None:
            if "lora_" in name:
                raise ValueError(f"{adapter.path}: minitx does not know the tensor {name}.")
            whole[name] = tensor
            continue
        module, part = match.groups()
        update = updates.setdefault(module, Update())
        update.transposed |= part.startswith("lora_embedding")
        if part in ("lora_A.weight", "lora_embedding_A"):
            update.down = tensor
        elif part in ("lora_B.weight", "lora_embedding_B"):
            update.up = tensor
        elif part == "lora_B.bias":
            update.bias = tensor
        else:
            update.magnitude = tensor
    for module, update in updates.items():
        if update.down is None or update.up is None or (update.down.dim(), update.up.dim()) != (2, 2):
            raise ValueError(f"{adapter.path}: the weights have no matrices A and B for {module}.")
        if update.magnitude is not None and f"{module}.lora_embedding_A" in adapter.tensors:
            raise adapter.error("use_dora", f"of an embedding, {module}, is not merged by minitx")
        if bool(adapter.config.get("use_dora")) != (update.magnitude is not None):
            raise adapter.error("use_dora", f"does not fit the weights of {module}")
        embedding = f"{module}.lora_embedding_A" in adapter.tensors  # PEFT gives it no bias
        if adapter.config.get("lora_bias") and update.bias is None and not embedding:
            reason = f"states a tensor {module}.lora_B.bias that the adapter's file lacks"
            raise adapter.error("lora_bias", reason, "fetch it again")
        update.scale = adapter.scale(module, len(update.down))
    return updates, whole


def check_shape(adapter: Adapter, module: str, update: Update, weight: Tensor) -> None:
    """Checks that an update fits the weight of its module.

    Raises:
        ValueError: another shape than that of the weight.
    """
    assert update.down is not None
    assert update.up is not None
    shape = (len(update.up), update.down.shape[1])
    stored = tuple(weight.shape)
    if stored != (shape[::-1] if update.transposed else shape):
        raise ValueError(
            f"{adapter.path}: the update of {module} has shape {shape}, but its weight has {stored}."
        )


def check_ties(tensors: Tensors, adapter: Adapter | None, pairs: Iterable[tuple[str, ...]]) -> None:
    """Checks that the adapter does not change one of two tied weights: they would have to be separated.

    Args:
        tensors: the base model's, merged.
        adapter: the adapter, or None.
        pairs: the stored names of each pair of tied parameters.

    Raises:
        ValueError: the adapter changes one of two tied weights, or updates both.
    """
    if adapter is None or not isinstance(tensors, MergedTensors):
        return
    for names in pairs:
        # PEFT saves a resized embedding by itself, and all that is tied to it is resized with it
        resized = {name for name in tensors.replaced if not adapter.is_saved(name.rpartition(".")[0])}
        changed = [name for name in names if name in tensors.changed - (resized - {*tensors.updates})]
        if changed and not (len(changed) > 1 and {*changed} <= {*tensors.replaced}):
            raise ValueError(
                f"{adapter.path}: the adapter changes {changed[0]}, which the base model uses as the head or "
                "another embedding too (tie_word_embeddings); merge it with PEFT first."
            )
