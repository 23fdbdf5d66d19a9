"""How llama.cpp's converter changes tensors, and the way back to those of the checkpoint.

Each change takes a tensor with the file's shape and values and returns that of the checkpoint. It is applied
to meta tensors too, for the shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from einops import rearrange
from torch import Tensor


class Change(Protocol):
    """A change of a tensor's values or their order."""

    def apply(self, tensor: Tensor, heads: tuple[int, int]) -> Tensor:
        """Returns the checkpoint's tensor; `heads` are the numbers of query and of key/value heads."""


@dataclass(frozen=True)
class Same:
    """The tensor is as in the checkpoint."""

    def apply(self, tensor: Tensor, heads: tuple[int, int]) -> Tensor:
        """Returns the tensor itself."""
        return tensor


@dataclass(frozen=True)
class RotatedPairs:
    """Rows of Q or K, or their biases: the file pairs neighbours for RoPE, the checkpoint the two halves.

    Attributes:
        keys: of K, with the number of key/value heads.
    """

    keys: bool = False

    def apply(self, tensor: Tensor, heads: tuple[int, int]) -> Tensor:
        """(heads * pairs * 2, ...) -> (heads * 2 * pairs, ...)"""
        count = heads[1 if self.keys else 0]
        return rearrange(tensor, "(head pair two) ... -> (head two pair) ...", head=count, two=2)


@dataclass(frozen=True)
class SplitHeads:
    """Q, K and V as one matrix: the file has all of Q first, the checkpoint Q, K and V of each head."""

    def apply(self, tensor: Tensor, heads: tuple[int, int]) -> Tensor:
        """(3 * heads * dim, ...) -> (heads * 3 * dim, ...)"""
        return rearrange(tensor, "(part head dim) ... -> (head part dim) ...", part=3, head=heads[0])


@dataclass(frozen=True)
class Transposed:
    """A matrix that the checkpoint has as (inputs, outputs); biases stay."""

    def apply(self, tensor: Tensor, heads: tuple[int, int]) -> Tensor:
        """(outputs, inputs) -> (inputs, outputs)"""
        return tensor.mT if tensor.dim() == 2 else tensor


@dataclass(frozen=True)
class LessOne:
    """The weight of a norm, to which the converter adds 1."""

    def apply(self, tensor: Tensor, heads: tuple[int, int]) -> Tensor:
        """Returns the tensor less 1, same shape."""
        return tensor - 1
