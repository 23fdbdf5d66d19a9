"""Which tensor of a file belongs to which parameter: names are settled before any byte is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from minitx.architectures.declaration import Architecture
from minitx.architectures.mapping import ResolvedEntry, Table, expand, rows
from minitx.checkpoint.files import Tensors, summarize
from minitx.config import HeadConfig, ModelConfig
from minitx.models import Model

# Parameters that belong to a task, not to the network.
HEAD_PARTS = ("head.", "pooler.")

# TensorFlow's words for a norm's parameters survive in old files.
MODERN = {"gamma": "weight", "beta": "bias"}


class Names:
    """Finds tensors under the names that checkpoints have used for them."""

    def __init__(self, names: Iterable[str], prefix: str) -> None:
        self.prefix = prefix
        self.actual: dict[str, str] = {}
        for name in names:
            module, _, last = name.rpartition(".")
            self.actual[f"{module}.{MODERN[last]}" if last in MODERN else name] = name

    def find(self, *names: str) -> tuple[str, ...]:
        """Those of `names` that the file has, with or without the prefix of the base model."""
        spelt = [spelling for name in names for spelling in (self.prefix + name, name)]
        return tuple(self.actual[name] for name in spelt if name in self.actual)

    def check_one_spelling(self) -> None:
        """
        Raises:
            ValueError: a tensor stands in the file with the prefix and without, and which counts is unclear.
        """
        both = sorted(name for name in self.actual if self.prefix + name in self.actual)
        if self.prefix and both:
            raise ValueError(
                f"the file holds tensors twice, with {self.prefix!r} in front and without: {summarize(both)}."
            )

    def of(self, binding: ResolvedEntry) -> tuple[str, ...]:
        """The tensors of a row: of the alternatives those that there are, of many parts all or none."""
        found = self.find(*binding.names)
        return found if not binding.op.many or len(found) == len(binding.names) else ()

    def spelling(self, name: str) -> str:
        """How the file would spell a name of the base model: with the prefix, if others have it."""
        prefixed = any(other.startswith(self.prefix) for other in self.actual)
        return self.prefix + name if prefixed else name

    def module(self, name: str) -> tuple[str, ...]:
        """The tensors of a module, or the one tensor of that name."""
        return self.find(name, f"{name}.weight", f"{name}.bias")


def bindings_of(architecture: Architecture, model: Model) -> list[ResolvedEntry]:
    """The weight table written out for a model; a tied projection is one of its parameters."""
    table: Table = {**architecture.weights, **architecture.head_weights.get(model.task or "", {})}
    return expand(table, architecture.layers(model.config), model.state_dict())


def is_tied(binding: ResolvedEntry, model: Model) -> bool:
    """Whether another parameter serves where the file has nothing of its own."""
    return binding.parameters[0] in model.ties


def resolve_ties(sources: dict[ResolvedEntry, tuple[str, ...]], model: Model) -> None:
    """Gives a shared tensor to its owner where the file has it only under the name of one that shares it.

    Writers drop all but one name of a shared tensor, and which one stays differs between them.

    Args:
        sources: each row of the model -> its names in the file; changed in place.
        model: says which parameters are shared.
    """
    row_of = {binding.parameters[0]: binding for binding in sources}
    for name in model.ties:
        owner = name
        while owner in model.ties:
            owner = model.ties[owner]
        if not sources[row_of[owner]]:
            sources[row_of[owner]], sources[row_of[name]] = sources[row_of[name]], ()


def has_pooler(architecture: Architecture, names: Names) -> bool:
    return any(
        names.module(name)
        for left, stored in rows(architecture.weights, [])
        if left[0].startswith("pooler.")
        for name in stored.names
    )


def infer_task(
    architecture: Architecture, config: Mapping[str, Any], heads: Mapping[str, HeadConfig], names: Names
) -> str:
    """The checkpoint's own task: what config.json says, else what the tensor names say.

    Raises:
        ValueError: config.json does not say, and the tensors fit several tasks.
    """
    for name in class_names(config):
        if task := architecture.task_of(name):
            return task
    fitting = []
    for task, table in architecture.head_weights.items():
        needed = (
            stored.names
            for left, stored in rows(table, [])
            if not (heads[task].tied and left[0].startswith("head.projection"))
        )
        if all(any(names.module(name) for name in each) for each in needed):
            fitting.append(task)
    if (
        architecture.pretraining in fitting
    ):  # files of that stage hold two heads, and this is the one they are for
        return str(architecture.pretraining)
    if len(fitting) > 1:
        raise ValueError(
            "config.json names no class that minitx knows, and the tensors fit several heads; say which: "
            f"head= one of {', '.join(fitting)}, none."
        )
    return fitting[0] if fitting else "none"


def any_of_head(architecture: Architecture, task: str, head: HeadConfig, names: Names) -> bool:
    """Whether the file has any tensor of a task's head, or the head needs none of its own."""
    table = list(rows(architecture.head_weights[task], []))
    lent = {"head.projection.weight", *(() if head.bias else ("head.projection",))} if head.tied else set()
    if all(row.or_zero or left[0] in lent for left, row in table):
        return True
    return any(names.module(name) for _, row in table for name in row.names)


def class_names(config: Mapping[str, Any]) -> list[str]:
    """config["architectures"], as far as it is a list of strings."""
    names = config.get("architectures")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def check_complete(
    missing: Iterable[ResolvedEntry], architecture: Architecture, names: Names, task: str
) -> None:
    """
    Raises:
        ValueError: parameters without a tensor; says whether it is the head that the file lacks.
    """
    missing = list(missing)
    if not missing:
        return
    absent = summarize(" or ".join(wanted(binding, names)) for binding in missing)
    if all(b.parameters[0].startswith(HEAD_PARTS) for b in missing):
        raise ValueError(
            f"the checkpoint has no {task!r} head; missing: {absent}. head=None takes the checkpoint's own, "
            'head="none" loads none, init_head=True draws fresh weights for it.'
        )
    hint = ""
    if "encoder" in architecture.headless and not any("decoder." in name for name in names.actual):
        hint = ' It holds an encoder alone, which head="encoder" loads.'
    raise ValueError(f"the checkpoint lacks {len(missing)} tensors: {absent}.{hint}")


def wanted(binding: ResolvedEntry, names: Names) -> list[str]:
    """The names of which the file should have one; of many parts the last."""
    asked = binding.names[-1:] if binding.op.many else binding.names
    if binding.parameters[0].startswith("head."):
        return list(asked)
    return [names.spelling(name) for name in asked]


def check_known(
    rest: Iterable[str],
    architecture: Architecture,
    names: Names,
    model_type: str,
    numbers: ModelConfig,
    task: str,
) -> None:
    """
    Raises:
        ValueError: tensors that are neither the model's nor another head's nor known constants.
    """
    known = {tensor for name in architecture.constants(numbers) for tensor in names.module(name)}
    layers = architecture.layers(numbers)
    left_out = ("decoder",) if task in architecture.encoder_tasks else ()
    for table in (architecture.weights, *architecture.head_weights.values()):
        for left, stored in rows(table, layers):
            # what is not the head's or the pooler's belongs to the network, and has no place if it has none
            if left[0].startswith((*HEAD_PARTS, *left_out)):
                known.update(tensor for name in stored.names for tensor in names.module(name))
    if unexpected := sorted(set(rest) - known):
        raise ValueError(
            f"the checkpoint has {len(unexpected)} tensors that a {model_type!r} model of this config has "
            f"no place for: {summarize(unexpected)}."
        )


def stored_shape(model: Model, binding: ResolvedEntry) -> torch.Size:
    """What a tensor of a row must look like in a file; on the meta device it costs no memory."""
    return binding.op.save([model.get_parameter(name) for name in binding.parameters])[0].shape


def check_shapes(model: Model, sources: Mapping[ResolvedEntry, tuple[str, ...]], tensors: Tensors) -> None:
    """
    Raises:
        ValueError: a tensor that does not have the shape the config asks for, or is quantised.
    """
    for binding, names in sources.items():
        expected = stored_shape(model, binding)
        for name in names:
            stored = tensors.shapes[name]
            if stored.shape != expected:
                raise ValueError(
                    f"{name} has shape {tuple(stored.shape)} in the file, but config.json makes "
                    f"{' + '.join(binding.parameters)} {tuple(expected)}."
                )
            if not stored.is_floating_point():
                raise ValueError(
                    f"{name} is stored as {stored.dtype}; minitx reads unquantised weights only."
                )
