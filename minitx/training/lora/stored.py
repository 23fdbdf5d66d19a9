"""The projections of a model as Hugging Face stores them: their names, and which of them are one matrix.

GPT-2's c_attn, for example, holds Q, K and V of minitx. Adapters of its parts are written as one:

- parts that share A: the same A, and their matrices B stacked as the weights are
- parts with matrices A of their own: all A stacked, and a B with one block per part, of the sum of the ranks;
  a part without an adapter has rows of zeros
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minitx.architectures.mapping import ResolvedEntry
from minitx.architectures.operations import Copy, Op, Rearrange, Split, Transposed
from minitx.checkpoint.record import Checkpoint
from minitx.checkpoint.resolve import table_entries
from minitx.checkpoint.save import canonical_names, native_checkpoint
from minitx.models import Model
from minitx.training.lora.linear import LoraLinear


@dataclass(frozen=True)
class StoredModule:
    """A module of Hugging Face's model, and the projections of minitx in it.

    Attributes:
        name: its path there.
        parts: paths of the projections in the model.
        op: operation between the stored weight and theirs.
    """

    name: str
    parts: tuple[str, ...]
    op: Op

    @property
    def by_output(self) -> Op:
        """The operation on tensors with one row per output, such as B."""
        return self.op.op if isinstance(self.op, Transposed) else self.op

    @property
    def transposed(self) -> bool:
        """Whether the weight is stored as (inputs, outputs)."""
        return isinstance(self.op, Transposed)


def record_of(model: Model) -> Checkpoint:
    """Returns the record of a model; one of minitx's own names if it has none."""
    checkpoint: Checkpoint | None = model.checkpoint
    return native_checkpoint(model, None) if checkpoint is None else checkpoint


def stored_modules(model: Model) -> list[StoredModule]:
    """Returns the modules of Hugging Face's model that hold linear projections."""
    checkpoint, modules = record_of(model), []
    for entry in table_entries(checkpoint.architecture, model):
        parts = tuple(name.removesuffix(".weight") for name in entry.parameters)
        known = isinstance(entry.op, Copy | Split | Rearrange | Transposed)
        if known and all(is_projection(model, *pair) for pair in zip(parts, entry.parameters, strict=True)):
            name = stored_name(entry, model, checkpoint).rpartition(".")[0]
            modules.append(StoredModule(name, parts, entry.op))
    return modules


def is_projection(model: nn.Module, path: str, parameter: str) -> bool:
    """Whether a parameter is the weight of a linear projection."""
    return parameter != path and isinstance(model.get_submodule(path), nn.Linear)


def stored_name(entry: ResolvedEntry, model: Model, checkpoint: Checkpoint) -> str:
    """Returns the name in Hugging Face's model of an entry's tensor; the last one of several."""
    return canonical_names(entry, model, checkpoint)[-1]


@dataclass(frozen=True)
class Fused:
    """The adapter of a stored module.

    Attributes:
        down: A, (rank, inputs).
        up: B, (outputs, rank).
        magnitude: (outputs,), or None.
        alpha: that gives the scale of the parts at this rank.
        part_alpha: that of each part.
        ranks: of the parts, if each has an A of its own; empty otherwise.
    """

    down: Tensor
    up: Tensor
    magnitude: Tensor | None
    alpha: float
    part_alpha: float
    ranks: tuple[int, ...]


def fuse(model: nn.Module, stored: StoredModule) -> Fused | None:
    """Returns the adapter of a stored module; None if none of its projections has one.

    Raises:
        ValueError: the scales of its parts differ.
    """
    parts = [model.get_submodule(path) for path in stored.parts]
    adapted = [part for part in parts if isinstance(part, LoraLinear)]
    if not adapted:
        return None
    if len({(part.scale, part.lora_magnitude is None) for part in adapted}) > 1:
        raise ValueError(
            f"{', '.join(stored.parts)} have adapters of several scales or kinds, and are one matrix in "
            f"Hugging Face's model, {stored.name}; give them one rank and alpha."
        )
    downs = list({id(part.lora_A): part.lora_A.detach() for part in adapted}.values())
    first = {id(part.lora_A): 0 for part in adapted}
    rank = 0
    for key, down in zip(first, downs, strict=True):
        first[key], rank = rank, rank + len(down)
    ups, magnitudes = [], []
    for part in parts:
        assert isinstance(part, nn.Linear)
        up = downs[0].new_zeros(part.out_features, rank)
        if isinstance(part, LoraLinear):
            start = first[id(part.lora_A)]
            up[:, start : start + part.rank] = part.lora_B.detach()
        ups.append(up)
        magnitude = getattr(part, "lora_magnitude", None)
        norms = torch.linalg.vector_norm(part.weight.detach().to(up.dtype), dim=1)
        magnitudes.append(norms if magnitude is None else magnitude.detach())
    blocks = len(downs) > 1 or len(adapted) < len(parts)
    options = adapted[0].lora_options
    grown = rank / adapted[0].rank
    return Fused(
        down=torch.cat(downs).contiguous(),
        up=stored.by_output.save(ups)[0].contiguous(),
        magnitude=stored.by_output.save(magnitudes)[0].contiguous() if options.dora else None,
        alpha=options.alpha * (grown**0.5 if options.rslora else grown),
        part_alpha=options.alpha,
        ranks=tuple(p.rank if isinstance(p, LoraLinear) else 0 for p in parts) if blocks else (),
    )


def divide(
    stored: StoredModule, sizes: Sequence[int], down: Tensor, up: Tensor, ranks: Sequence[int] = ()
) -> list[tuple[nn.Parameter, nn.Parameter] | None]:
    """Returns A and B of each part of a stored module, the inverse of `fuse`.

    Args:
        stored: the module.
        sizes: number of outputs of each part.
        down: A, (rank, inputs).
        up: B, (outputs, rank).
        ranks: of the parts, if each has an A of its own, and 0 for a part without an adapter; empty: the
            parts share A.
    """
    ups = stored.by_output.load([up], sizes)
    if not ranks:
        shared = nn.Parameter(down.clone())
        return [(shared, nn.Parameter(part.clone())) for part in ups]
    pairs: list[tuple[nn.Parameter, nn.Parameter] | None] = []
    start = 0
    for part, rank in zip(ups, ranks, strict=True):
        block = slice(start, start + rank)
        own = nn.Parameter(down[block].clone()), nn.Parameter(part[:, block].clone())
        pairs.append(own if rank else None)
        start += rank
    return pairs
