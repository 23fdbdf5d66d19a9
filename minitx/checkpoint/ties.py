"""Tied parameters: one tensor under several names, in the model and in the file.

`model.ties` maps each tied parameter to the one whose tensor it shares. A file may hold a shared tensor
under one of its names, under all of them, or different tensors under each: the file decides.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from minitx.architectures.mapping import ResolvedEntry
from minitx.checkpoint.build import set_parameter
from minitx.config import HeadConfig
from minitx.models import Model

Sources = dict[ResolvedEntry, tuple[str, ...]]  # entry -> the names that a file has for it


def is_tied(entry: ResolvedEntry, model: Model) -> bool:
    """Whether another parameter takes the place of this entry's if the file has no tensor for it."""
    return entry.parameters[0] in model.ties


def tied_in_head(head: HeadConfig) -> Collection[str]:
    """Returns the parts of a head that the word embedding provides: names of entries of its weight table."""
    if not head.tied:
        return ()
    return ("head.projection.weight",) if head.bias else ("head.projection.weight", "head.projection")


def resolve_ties(sources: Sources, model: Model) -> None:
    """Assigns a shared tensor to its owner if the file has it under another of its names only.

    Writers keep one name of a shared tensor, and they differ in which.

    Args:
        sources: changed in place.
        model: its `ties` are used.
    """
    entries = {entry.parameters[0]: entry for entry in sources}
    for name in model.ties:
        owner = name
        while owner in model.ties:
            owner = model.ties[owner]
        if not sources[entries[owner]]:
            sources[entries[owner]], sources[entries[name]] = sources[entries[name]], ()


def share_tied(model: Model) -> None:
    """Lets tied parameters share one tensor, unless the file had different tensors for them."""
    for name, other in model.ties.items():
        parameter = model.get_parameter(name)
        if parameter.is_meta or identical(parameter, model.get_parameter(other)):
            set_parameter(model, name, model.get_parameter(other))


def untied(model: Model) -> frozenset[str]:
    """Returns the tied parameters whose tensor differs from the one that they are tied to."""
    ties = model.ties.items()
    return frozenset(a for a, b in ties if model.get_parameter(a) is not model.get_parameter(b))


def is_shared(entry: ResolvedEntry, model: Model) -> bool:
    """Whether the entry's parameter is the one that it is tied to, so that a file can leave it out."""
    return is_tied(entry, model) and entry.parameters[0] not in untied(model)


def identical(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal bit for bit: 0 and -0 differ, NaN equals itself."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
