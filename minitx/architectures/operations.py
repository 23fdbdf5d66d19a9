"""Operations between stored tensors and parameters; each is inverted bit for bit by its `save`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor


class Op(Protocol):
    """Stored tensors <-> parameters.

    `load` and `save` are inverse to each other. Both work on meta tensors, so that shapes are checked before
    a tensor is read.

    Attributes:
        many: several stored tensors form one parameter; otherwise one forms one or more.
        copies: `load` copies; otherwise parameters are views of the stored tensor.
    """

    @property
    def many(self) -> bool:
        """Whether several stored tensors form one parameter."""

    @property
    def copies(self) -> bool:
        """Whether `load` copies."""

    def bind(self, sizes: Mapping[str, int]) -> Op:
        """Returns the operation for a model with these numbers of "heads" and "experts"."""

    def load(self, stored: Sequence[Tensor], rows: Sequence[int]) -> list[Tensor]:
        """Returns the parameters; `rows` are their first dimensions."""

    def save(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Returns the stored tensors."""


@dataclass(frozen=True)
class Copy:
    """The tensor unchanged."""

    many: bool = field(default=False, init=False)
    copies: bool = field(default=False, init=False)

    def bind(self, sizes: Mapping[str, int]) -> Copy:
        """Returns the same operation."""
        return self

    def load(self, stored: Sequence[Tensor], rows: Sequence[int]) -> list[Tensor]:
        """Returns the stored tensors."""
        return list(stored)

    def save(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Returns the parameters."""
        return list(parameters)


@dataclass(frozen=True)
class FromRow:
    """A vector stored as a matrix of one row."""

    many: bool = field(default=False, init=False)
    copies: bool = field(default=False, init=False)

    def bind(self, sizes: Mapping[str, int]) -> FromRow:
        """Returns the same operation."""
        return self

    def load(self, stored: Sequence[Tensor], rows: Sequence[int]) -> list[Tensor]:
        """Returns the row of each matrix."""
        return [x.flatten() for x in stored]

    def save(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Returns each vector as a matrix of one row."""
        return [x[None] for x in parameters]


@dataclass(frozen=True)
class AsRow:
    """A matrix of one row stored as a vector, or a vector of one number stored as that number."""

    many: bool = field(default=False, init=False)
    copies: bool = field(default=False, init=False)

    def bind(self, sizes: Mapping[str, int]) -> AsRow:
        """Returns the same operation."""
        return self

    def load(self, stored: Sequence[Tensor], rows: Sequence[int]) -> list[Tensor]:
        """Returns each tensor with one more dimension."""
        return [x[None] for x in stored]

    def save(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Returns each tensor without that dimension."""
        return [x[0] for x in parameters]


@dataclass(frozen=True)
class Split:
    """Several projections stored as one, concatenated along the rows."""

    many: bool = field(default=False, init=False)
    copies: bool = field(default=False, init=False)

    def bind(self, sizes: Mapping[str, int]) -> Split:
        """Returns the same operation."""
        return self

    def load(self, stored: Sequence[Tensor], rows: Sequence[int]) -> list[Tensor]:
        """Returns views of the stored tensor, one per projection."""
        (together,) = stored
        return list(torch.split(together, list(rows)))

    def save(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Returns the concatenated projections."""
        return [concatenate(parameters)]


@dataclass(frozen=True)
class Rearrange:
    """Several projections of equal size stored as one in any other order.

    The einops pattern has the stored order on the left and `part` first on the right; `save` reverses it.
    """

    pattern: str
    heads: int = 0
    many: bool = field(default=False, init=False)
    copies: bool = field(default=True, init=False)

    def bind(self, sizes: Mapping[str, int]) -> Rearrange:
        """Returns the operation with the number of heads, if its pattern has them."""
        return replace(self, heads=sizes["heads"]) if "heads" in self.pattern else self

    def load(self, stored: Sequence[Tensor], rows: Sequence[int]) -> list[Tensor]:
        """Returns the projections, each contiguous."""
        (together,) = stored
        sizes = {"heads": self.heads} if self.heads else {}
        parts = rearrange(together, self.pattern, part=len(rows), **sizes).unbind(0)
        return [part.contiguous() for part in parts]

    def save(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Returns the projections in the stored order, as one tensor."""
        stored, split = self.pattern.split(" -> ")
        sizes = {"heads": self.heads} if self.heads else {}
        together = concatenate([x[None] for x in parameters])
        return [rearrange(together, f"{split} -> {stored}", **sizes)]


@dataclass(frozen=True)
class Transposed:
    """Matrices stored as (inputs, outputs), with another operation inside; vectors stay.

    `load` makes the transposed matrix contiguous: products read a matrix fastest in memory order.
    """

    op: Copy | Split = Copy()
    many: bool = field(default=False, init=False)
    copies: bool = field(default=True, init=False)

    def bind(self, sizes: Mapping[str, int]) -> Transposed:
        """Returns the same operation."""
        return self

    def load(self, stored: Sequence[Tensor], rows: Sequence[int]) -> list[Tensor]:
        """Returns the transposed matrices after the inner operation."""
        return [x.contiguous() for x in self.op.load([transpose(x) for x in stored], rows)]

    def save(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Returns the matrices as (inputs, outputs)."""
        return [transpose(x) for x in self.op.save(parameters)]


def concatenate(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenates tensors along their first dimension: (rows, ...) for each -> (all rows, ...).

    On the meta device, PyTorch's own function would import its compiler, which takes half a second.
    """
    if tensors and all(x.is_meta and x.shape[1:] == tensors[0].shape[1:] for x in tensors):
        return tensors[0].new_empty((sum(len(x) for x in tensors), *tensors[0].shape[1:]))
    return torch.cat(list(tensors))


def transpose(x: Tensor) -> Tensor:
    """Transposes a matrix, or each of a batch of matrices; a vector stays."""
    return x.mT if x.dim() > 1 else x


@dataclass(frozen=True)
class StackExperts:
    """One stored tensor per expert, stacked into one parameter."""

    many: bool = field(default=True, init=False)
    copies: bool = field(default=True, init=False)

    def bind(self, sizes: Mapping[str, int]) -> StackExperts:
        """Returns the same operation."""
        return self

    def load(self, stored: Sequence[Tensor], rows: Sequence[int]) -> list[Tensor]:
        """Returns one parameter of all experts."""
        return [torch.stack(list(stored))]

    def save(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Returns one tensor per expert."""
        (together,) = parameters
        return list(together.unbind(0))
