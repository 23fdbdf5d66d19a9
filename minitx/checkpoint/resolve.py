"""The tensor of each parameter: names, shapes and the task are settled before the first byte is read.

`CheckpointNames` finds a tensor under the names that files have used for it; `resolve_sources` returns a
`Resolution` with the stored names of every entry of the weight table, or raises an error that names
everything that is missing, unexpected or of another shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minitx.architectures.declaration import Architecture
from minitx.architectures.mapping import ResolvedEntry, Table, entries, expand
from minitx.checkpoint.build import class_names, task_of
from minitx.checkpoint.files import Tensors, summarize
from minitx.checkpoint.ties import Sources, is_tied, resolve_ties, tied_in_head
from minitx.config import HeadConfig, ModelConfig
from minitx.models import Model
from minitx.validation import ArgumentValueError, warn

# Parameters that belong to a task, not to the network.
HEAD_PARTS = ("head.", "pooler.")

# TensorFlow's names for the parameters of a norm, found in old files.
RENAMED = {"gamma": "weight", "beta": "bias"}


# Buffers that old versions of the libraries stored, and that every architecture computes.
COMPUTED = re.compile(
    r"(^|\.)(rotary_emb\w*\.\w+|\w*inv_freq|_?(cos|sin)_cached|rope\.freqs|(relative_)?position_ids?"
    r"|token_type_ids|masked_bias|embed_positions|embed_scale|version)$"
)


class MissingTensorsError(ValueError):
    """A checkpoint that lacks tensors of the model."""


class MissingHeadError(MissingTensorsError, ArgumentValueError):
    """A checkpoint that lacks the head that was asked for."""


class CheckpointNames:
    """The tensor names of a checkpoint, found with or without the base model's prefix.

    Args:
        names: the tensors of the file.
        prefix: prefix of the base model's tensors in a checkpoint with a head.
    """

    def __init__(self, names: Iterable[str], prefix: str) -> None:
        self.prefix = prefix
        self.stored: dict[str, str] = {}  # name in today's spelling -> name in the file
        for name in names:
            module, _, last = name.rpartition(".")
            self.stored[f"{module}.{RENAMED[last]}" if last in RENAMED else name] = name

    def find(self, *names: str) -> tuple[str, ...]:
        """Returns those of `names` that the file has, as it spells them."""
        spellings = [spelling for name in names for spelling in (self.prefix + name, name)]
        return tuple(self.stored[name] for name in spellings if name in self.stored)

    def lookup(self, entry: ResolvedEntry) -> tuple[str, ...]:
        """Returns the tensors of an entry: every alias present, all parts of a stacked tensor, or ()."""
        names = self.find(*entry.names)
        return names if not entry.op.many or len(names) == len(entry.names) else ()

    def module(self, name: str) -> tuple[str, ...]:
        """Returns the tensors of a module, or the one tensor of that name."""
        return self.find(name, f"{name}.weight", f"{name}.bias")

    def spelling(self, name: str) -> str:
        """Returns a name of the base model with the prefix if the file's other tensors have it."""
        prefixed = any(other.startswith(self.prefix) for other in self.stored)
        return self.prefix + name if prefixed else name

    def expected(self, entry: ResolvedEntry) -> list[str]:
        """Returns the names of which the file should have one; the last part of a stacked tensor."""
        names = entry.names[-1:] if entry.op.many else entry.names
        if entry.parameters[0].startswith("head."):
            return list(names)
        return [self.spelling(name) for name in names]

    def check_one_spelling(self) -> None:
        """Checks that no tensor is in the file both with and without the prefix.

        Raises:
            ValueError: some are, so that it is unclear which to load.
        """
        both = sorted(name for name in self.stored if self.prefix + name in self.stored)
        if self.prefix and both:
            raise ValueError(
                f"the file holds tensors twice, with and without the prefix {self.prefix!r}: "
                f"{summarize(both)}; remove one of each."
            )


def table_entries(architecture: Architecture, model: Model) -> list[ResolvedEntry]:
    """Expands the weight table for a model; a tied projection is one of its parameters, an adapter none."""
    table: Table = {**architecture.weights, **architecture.head_weights.get(model.task or "", {})}
    names = [name for name in model.state_dict() if not is_adapter(name)]
    return expand(table, architecture.layers(model.config), names)


def is_adapter(parameter: str) -> bool:
    """Whether a parameter is of a LoRA adapter (minitx.training.lora), by its name."""
    return parameter.rpartition(".")[2].startswith("lora_")


# --- the task --------------------------------------------------------------------------------------


def infer_task(
    architecture: Architecture,
    config: Mapping[str, Any],
    heads: Mapping[str, HeadConfig],
    names: CheckpointNames,
) -> str:
    """Returns the task of a checkpoint, from config["architectures"] or else from the tensor names.

    Raises:
        ValueError: config.json names no known class, and the tensors fit several tasks.
    """
    for name in class_names(config):
        if task := architecture.task_of(name):
            return task
    fitting = []
    for task, table in architecture.head_weights.items():
        needed = (
            stored.names
            for left, stored in entries(table, [])
            if not (heads[task].tied and left[0].startswith("head.projection"))
        )
        if all(any(names.module(name) for name in aliases) for aliases in needed):
            fitting.append(task)
    if architecture.pretraining in fitting:  # such files hold two heads; this is the one of pre-training
        return str(architecture.pretraining)
    if len(fitting) > 1:
        raise ValueError(
            "config.json names no class that minitx knows, and the tensors fit several heads; pass "
            f"head= one of {', '.join(fitting)}, none."
        )
    return fitting[0] if fitting else "none"


def has_head(architecture: Architecture, task: str, head: HeadConfig, names: CheckpointNames) -> bool:
    """Whether the file has any tensor of a task's head, or the head needs none."""
    table = list(entries(architecture.head_weights[task], []))
    tied = tied_in_head(head)
    if all(stored.or_zero or left[0] in tied for left, stored in table):
        return True
    return any(names.module(name) for _, stored in table for name in stored.names)


def has_pooler(architecture: Architecture, names: CheckpointNames, task: str) -> bool:
    """Whether the model of a task has a pooler; without a head, whether the file has one too."""
    if task not in architecture.tasks_with_pooler:
        return False
    return task != "none" or any(
        names.module(name)
        for left, stored in entries(architecture.weights, [])
        if left[0].startswith("pooler.")
        for name in stored.names
    )


# --- the tensors -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resolution:
    """Where each parameter of a model comes from.

    Attributes:
        sources: entry of the weight table -> its names in the file; () if it is tied, zero or missing.
        missing: entries of the head that the file lacks, to be initialized.
    """

    sources: Sources
    missing: list[ResolvedEntry]


def resolve_sources(
    model: Model,
    architecture: Architecture,
    model_config: ModelConfig,
    names: CheckpointNames,
    tensors: Tensors,
    *,
    init_head: bool = False,
    resize_head: bool = False,
) -> Resolution:
    """Finds the tensors of every parameter.

    Args:
        model: on the meta device.
        architecture: its weight table is used.
        model_config: of the whole network; the model may leave out its decoder.
        names: the names in the file.
        tensors: their shapes and dtypes.
        init_head: accept a head that the file lacks, wholly or in part.
        resize_head: treat a projection to another number of labels as missing.

    Raises:
        ValueError: tensors that are missing, unexpected, quantised or of another shape.
    """
    table = table_entries(architecture, model)
    sources = {entry: names.lookup(entry) for entry in table}
    if resize_head:
        for entry in table:
            if entry.parameters[0].startswith("head.projection."):
                shape = stored_shape(dict(model.named_parameters(remove_duplicate=False)), entry)
                sources[entry] = tuple(n for n in sources[entry] if tensors.shapes[n].shape == shape)
    task = task_of(model, architecture)
    foreign = foreign_biases(architecture, task, table, names)
    if foreign and not init_head:
        hint = f"init_head=True draws a new one, and {foreign[0]} is of another head"
        raise MissingHeadError("head", task, "one that the checkpoint has", hint)
    if foreign:
        sources |= {entry: () for entry in table if entry.parameters[0].startswith("head.projection.")}
    resolve_ties(sources, model)
    missing = [e for e in table if not sources[e] and not is_tied(e, model) and not e.or_zero]
    fresh = [e for e in missing if init_head and e.parameters[0].startswith(HEAD_PARTS)]
    check_complete([e for e in missing if e not in fresh], architecture, names, task)
    used = {name for entry in table for name in names.lookup(entry)}  # those of a replaced head too
    used |= {*foreign}
    check_known(set(tensors.shapes) - used, task, architecture, model_config, names, tensors.shapes)
    check_shapes(model, sources, tensors)
    return Resolution(sources, fresh)


def foreign_biases(
    architecture: Architecture, task: str, table: Iterable[ResolvedEntry], names: CheckpointNames
) -> list[str]:
    """Returns the biases in the file of a head without one, if another task's head has the same name."""
    heads = {
        other: {f"{name}.bias" for _, stored in entries(weights, []) for name in stored.names}
        for other, weights in architecture.head_weights.items()
    }
    of_others = {name for other, biases in heads.items() if other != task for name in biases}
    own = {name for entry in table for name in entry.names}
    return [*names.find(*sorted((heads.get(task, set()) & of_others) - own))]


def check_complete(
    missing: list[ResolvedEntry], architecture: Architecture, names: CheckpointNames, task: str
) -> None:
    """Checks that no parameter is without a tensor.

    Raises:
        MissingTensorsError: some are; the message tells a missing head from an incomplete file.
    """
    if not missing:
        return
    absent = summarize(" or ".join(names.expected(entry)) for entry in missing)
    if all(entry.parameters[0].startswith(HEAD_PARTS) for entry in missing):
        hint = 'init_head=True draws a new one, head="none" loads none'
        raise MissingHeadError("head", task, f"one that the checkpoint has; missing: {absent}", hint)
    hint = ""
    if "encoder" in architecture.headless and not any("decoder." in name for name in names.stored):
        hint = ' It holds an encoder only, which the head "encoder" loads.'
    raise MissingTensorsError(f"the checkpoint lacks {len(missing)} tensors: {absent}.{hint}")


def check_known(
    unused: Iterable[str],
    task: str,
    architecture: Architecture,
    model_config: ModelConfig,
    names: CheckpointNames,
    tensors: Mapping[str, Tensor],
) -> None:
    """Checks that the tensors left over are computed by the model, or belong to another head.

    Warns about tensors beside the network that no table lists, such as a custom head.

    Raises:
        ValueError: some belong to the network or to a module in use, but the config has no such part.
    """
    known = {tensor for name in architecture.constants(model_config) for tensor in names.module(name)}
    layers = architecture.layers(model_config)
    optional = (*HEAD_PARTS, "decoder") if task in architecture.encoder_tasks else HEAD_PARTS
    for table in (architecture.weights, *architecture.head_weights.values()):
        for left, stored in entries(table, layers):
            if left[0].startswith(optional):
                known.update(tensor for name in stored.names for tensor in names.module(name))
    head = {n for _, stored in entries(architecture.head_weights.get(task, {}), []) for n in stored.names}
    known -= {f"{name}.bias" for name in head}  # the head in use, which has no bias by config.json
    rest = sorted(name for name in set(unused) - known if not is_computed(name, tensors[name]))
    if not rest:
        return
    inside = network_parts(architecture, names.prefix)
    modules = head | {name.rpartition(".")[0] for name in set(tensors) - set(unused)}

    def _belongs(name: str) -> bool:
        module, part = name.rpartition(".")[0], name.removeprefix(names.prefix).split(".")[0]
        return not module or module in modules or part in inside

    if unexpected := [name for name in rest if _belongs(name)]:
        raise ValueError(
            f"the checkpoint has {len(unexpected)} tensors that the model of this config.json does not have: "
            f"{summarize(unexpected)}; does config.json belong to these weights?"
        )
    warn(f"the file has tensors that the model does not use: {summarize(rest, 6)}.")


def is_computed(name: str, tensor: Tensor) -> bool:
    """Whether a tensor that no parameter uses is computed anyway: positions, RoPE tables, causal masks."""
    shape = tuple(tensor.shape)
    is_mask = name.endswith(".bias") and len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]
    return is_mask or COMPUTED.search(name) is not None


def network_parts(architecture: Architecture, prefix: str) -> set[str]:
    """Returns the first parts of the stored names of the network, without the prefix of the base model."""
    parts = {prefix.split(".")[0]}
    for left, right in architecture.weights.items():
        if not (left if isinstance(left, str) else left[0]).startswith(HEAD_PARTS):
            stored = (right,) if isinstance(right, str) else right.names
            parts |= {name.split(".")[0] for name in stored}
    return parts


def stored_shape(parameters: Mapping[str, Tensor], entry: ResolvedEntry) -> torch.Size:
    """Returns the shape that the tensors of an entry have in a file."""
    return entry.op.save([parameters[name] for name in entry.parameters])[0].shape


def check_shapes(model: Model, sources: Sources, tensors: Tensors) -> None:
    """Checks shapes and dtypes of the stored tensors.

    Raises:
        ValueError: a shape that differs from the config's, or a quantised tensor.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for entry, names in sources.items():
        expected = stored_shape(parameters, entry)
        for name in names:
            stored = tensors.shapes[name]
            if stored.shape != expected:
                raise ValueError(
                    f"{name} has shape {tuple(stored.shape)} in the file, but by config.json "
                    f"{' + '.join(entry.parameters)} has {tuple(expected)}."
                )
            if not stored.is_floating_point():
                raise ValueError(
                    f"{name} is stored as {stored.dtype}; minitx reads unquantised weights only."
                )
