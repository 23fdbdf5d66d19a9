"""LoRA adapters (arXiv:2106.09685) in PEFT's files, merged into the weights while they are read.

A folder with adapter_config.json is an adapter: beside its base model, or alone and then with
`base_model_name_or_path` as its base. The loaded model is a plain one, and `save` writes it as such. A
setting that changes the weights in another way is refused by its name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minitx.checkpoint.files import Tensors, open_files, summarize
from minitx.io import read_json

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
TASKS = {
    "SEQ_CLS": "sequence-classification",
    "TOKEN_CLS": "token-classification",
    "QUESTION_ANS": "question-answering",
    "CAUSAL_LM": "causal-lm",
    "SEQ_2_SEQ_LM": "seq2seq-lm",
}
SETTINGS = {
    "r",
    "lora_alpha",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "use_dora",
    "fan_in_fan_out",  # the base model's layout decides it, as in PEFT
    "bias",
    "lora_bias",
    "modules_to_save",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "base_model_name_or_path",
    "revision",
    "task_type",
    "peft_type",
    "init_lora_weights",
}
# Of the training or of PEFT itself, without effect on the weights that the file holds.
RECORDS = {
    "auto_mapping",
    "corda_config",
    "eva_config",
    "inference_mode",
    "lora_dropout",
    "lora_ga_config",
    "loftq_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "runtime_config",
}
# Initialisations that leave the base weights as they are; the others change them.
PLAIN_INITIALIZATIONS = (True, False, None, "gaussian", "eva", "orthogonal")


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
    """

    updates: dict[str, Update] = field(default_factory=dict)
    biases: dict[str, Tensor] = field(default_factory=dict)
    replaced: dict[str, Tensor] = field(default_factory=dict)

    def read(self, name: str, *, mapped: bool = True) -> Tensor:
        """Returns a tensor with the adapter merged; the arguments are those of `Tensors.read`."""
        tensor = self.replaced.get(name)
        if tensor is None:
            tensor = super().read(name, mapped=mapped)
        if name in self.updates:
            return self.updates[name].apply(tensor)
        return tensor + self.biases[name].to(tensor.dtype) if name in self.biases else tensor

    @property
    def changed(self) -> set[str]:
        """The names of the tensors that the adapter changes or replaces."""
        return {*self.updates, *self.biases, *self.replaced}


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        config: adapter_config.json.
        path: of that file.
        tensors: module paths and names of the base model -> tensors.
    """

    config: Mapping[str, Any]
    path: Path
    tensors: Mapping[str, Tensor]

    @property
    def task(self) -> str | None:
        """The task that the adapter was trained for, if it is stated."""
        return TASKS.get(str(self.config.get("task_type")))

    @property
    def num_labels(self) -> int | None:
        """The number of labels of the classifier that the adapter brings; None without one."""
        for name, tensor in self.tensors.items():
            last = re.search(r"(?:^|\.)(classifier|score|out_proj)\.weight$", name)
            if last and self.task in ("sequence-classification", "token-classification"):
                return len(tensor)
        return None

    def error(self, key: str, reason: str) -> ValueError:
        """Returns the error about a key of adapter_config.json."""
        return ValueError(f"{self.path}: {key}={self.config.get(key)!r} {reason}; merge it with PEFT first.")

    def scale(self, module: str, rank: int) -> float:
        """Returns the factor of a module's update.

        Raises:
            ValueError: another rank than the config states.
        """
        stated = self.config.get("r", 8)
        if rank != (r := by_pattern(self.config.get("rank_pattern"), module, stated)):
            raise ValueError(f"{self.path}: the rank of {module} must be {rank} as in the weights, not {r}.")
        alpha = by_pattern(self.config.get("alpha_pattern"), module, self.config.get("lora_alpha", 8))
        return float(alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank))

    def is_target(self, module: str) -> bool:
        """Whether the config lets the adapter change a module."""
        targets, excluded = self.config.get("target_modules"), self.config.get("exclude_modules")
        if excluded and names_module(excluded, module):
            return False
        if isinstance(targets, str):
            return targets == "all-linear" or names_module(targets, module)
        layers = self.config.get("layers_to_transform")
        if layers is not None and layers != []:
            patterns = self.config.get("layers_pattern") or r"[^.]*"
            patterns = [patterns] if isinstance(patterns, str) else patterns
            matches = (re.match(rf"(?:^|.*?\.){p}\.(\d+)\.", module) for p in patterns)
            index = next((int(match[1]) for match in matches if match), None)
            if index not in ([layers] if isinstance(layers, int) else layers):
                return False
        return targets is None or names_module(targets, module)


def by_pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """Returns the value of the first pattern that matches the end of a module's path."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def names_module(names: str | Iterable[str], module: str) -> bool:
    """Whether a regular expression matches a module's path, or one of several names ends it."""
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(f".{module}".endswith(f".{name}") for name in names)


def read_adapter(folder: Path) -> Adapter | None:
    """Reads the adapter of a folder; None without one.

    Raises:
        FileNotFoundError: adapter_config.json without the adapter's weights.
        ValueError: an adapter of another kind than LoRA, or a setting that minitx does not merge.
    """
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        return None
    config = read_json(path)
    file = next((name for name in ADAPTER_FILES if (folder / name).is_file()), None)
    if file is None:
        raise FileNotFoundError(f"{folder} has {ADAPTER_CONFIG} without {' or '.join(ADAPTER_FILES)}.")
    stored = open_files(folder, [file])
    # A module of `modules_to_save` replaces the original, which may lie beside it.
    names = [name for name in stored.shapes if ".original_module." not in name]
    tensors = {plain_name(name): stored.read(name) for name in names}
    adapter = Adapter(config, path, tensors)
    if config.get("peft_type") != "LORA":
        raise adapter.error("peft_type", "must be LORA")
    for key in sorted(set(config) - SETTINGS - RECORDS):
        if config[key] not in (None, False, "", [], {}):
            raise adapter.error(key, "is not merged by minitx")
    if config.get("init_lora_weights") not in PLAIN_INITIALIZATIONS:
        raise adapter.error("init_lora_weights", "changes the base weights too")
    return adapter


def plain_name(name: str) -> str:
    """Returns a name of an adapter's file as the base model has it, with PEFT's wrappers left out."""
    name = name.removeprefix("base_model.model.").replace(".modules_to_save.", ".")
    return name.replace(".default.", ".").replace(".base_layer.", ".")


PART = re.compile(
    r"(.+)\.(lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_embedding_A|lora_embedding_B"
    r"|lora_magnitude_vector(?:\.weight)?)$"
)


def merge(base: Tensors, adapter: Adapter, prefix: str, transposed: Collection[str]) -> MergedTensors:
    """Returns the base model's tensors with an adapter merged.

    Args:
        base: tensors of the base model.
        adapter: the adapter.
        prefix: of the base model's names in a checkpoint with a head.
        transposed: modules whose weights are stored as (inputs, outputs), without the prefix.

    Raises:
        ValueError: an adapter for modules that the base model does not have, or that its config excludes.
    """
    updates, whole = read_updates(adapter)
    merged = MergedTensors(
        dict(base.shapes), dict(base.files), base.metadata, base.handles, base.spans, base.folder
    )
    unknown = []
    for module, update in updates.items():
        if not adapter.is_target(module):
            raise ValueError(f"{adapter.path}: target_modules must name {module}, which the weights adapt.")
        weight = stored_name(base, f"{module}.weight", prefix)
        bias = stored_name(base, f"{module}.bias", prefix)
        if weight is None or (update.bias is not None and bias is None):
            unknown.append(module)
            continue
        update.transposed |= module.removeprefix(prefix) in transposed
        check_shape(adapter, module, update, base.shapes[weight])
        merged.updates[weight] = update
        if update.bias is not None and bias is not None:
            merged.biases[bias] = update.bias * update.scale
    if unknown:
        raise ValueError(
            f"{adapter.path}: the base model has no such weights: {summarize(unknown)}; "
            "is base_model_name_or_path the model that the adapter was trained on?"
        )
    for name, tensor in whole.items():
        name = stored_name(base, name, prefix) or name
        merged.replaced[name], merged.shapes[name] = tensor, tensor.to("meta")
        merged.files.setdefault(name, next(iter(base.files.values())))
    return merged


def read_updates(adapter: Adapter) -> tuple[dict[str, Update], dict[str, Tensor]]:
    """Returns the update of each module, and the tensors that replace those of the base model.

    Raises:
        ValueError: half an update.
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
        update.scale = adapter.scale(module, len(update.down))
    return updates, whole


def check_shape(adapter: Adapter, module: str, update: Update, weight: Tensor) -> None:
    """Checks that an update fits the weight of its module.

    Raises:
        ValueError: it does not.
    """
    assert update.down is not None
    assert update.up is not None
    shape = (len(update.up), update.down.shape[1])
    stored = tuple(weight.shape)
    if stored != (shape[::-1] if update.transposed else shape):
        raise ValueError(
            f"{adapter.path}: the update of {module} has shape {shape}, but its weight has {stored}."
        )


def check_ties(tensors: Tensors, adapter: Adapter, pairs: Iterable[tuple[str, ...]]) -> None:
    """Checks that the adapter does not change one of two tied weights: they would have to be separated.

    Args:
        tensors: the base model's, merged.
        adapter: the adapter.
        pairs: the stored names of each pair of tied parameters.

    Raises:
        ValueError: it does.
    """
    assert isinstance(tensors, MergedTensors)
    for names in pairs:
        changed = [name for name in names if name in tensors.changed]
        if changed and not (len(changed) > 1 and {*changed} <= {*tensors.replaced}):
            raise ValueError(
                f"{adapter.path}: the adapter changes {changed[0]}, which the base model uses as the head or "
                "another embedding too (tie_word_embeddings); merge it with PEFT first."
            )


def stored_name(base: Tensors, name: str, prefix: str) -> str | None:
    """Returns the name of a tensor in the file, with or without the base model's prefix; None if absent."""
    for spelling in (name, prefix + name, name.removeprefix(prefix)):
        if spelling in base.shapes:
            return spelling
    return None
