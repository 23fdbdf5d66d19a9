"""How a stored tensor becomes parameters; every operation undoes itself bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor


class Op(Protocol):
    """One stored tensor <-> one or more parameters.

    `load` and `save` are each other's inverse. Both work on meta tensors, which is how shapes are checked
    before a byte is read.
    """

    def load(self, stored: Tensor, parts: int) -> list[Tensor]: ...

    def save(self, parameters: Sequence[Tensor]) -> Tensor: ...


@dataclass(frozen=True)
class Copy:
    """The tensor as it is."""

    def load(self, stored: Tensor, parts: int) -> list[Tensor]:
        return [stored]

    def save(self, parameters: Sequence[Tensor]) -> Tensor:
        (only,) = parameters
        return only


@dataclass(frozen=True)
class Split:
    """Several equal projections stored as one.

    The einops pattern says how they lie in it, first axis out; reversed, it puts them back.
    """

    pattern: str = "(part rows) ... -> part rows ..."

    def load(self, stored: Tensor, parts: int) -> list[Tensor]:
        return list(rearrange(stored, self.pattern, part=parts).unbind(0))

    def save(self, parameters: Sequence[Tensor]) -> Tensor:
        stored, split = self.pattern.split(" -> ")
        together: Tensor = rearrange(torch.stack(list(parameters)), f"{split} -> {stored}")
        return together
