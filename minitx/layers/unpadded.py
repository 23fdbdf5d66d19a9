"""Sequences of different lengths as one row of tokens, without padding between them.

Embeddings, norms, projections and feed-forwards treat every token alone, so they run on the row as it is.
Attention runs once for each length: sequences of one length are next to each other, and a view of the row is
their batch, with the mask and the biases of a single sequence.

    padded (3, 4)          row (1, 8), lengths 4, 2, 2
    a a a a                a a a a b b c c
    b b . .                └─ 1 x 4 ┘└ 2 x 2 ┘
    c c . .
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from minitx.layers.attention import AttentionContext


class Run(NamedTuple):
    """Neighbouring sequences of one length."""

    number: int
    length: int


Parts = tuple[tuple[Run, AttentionContext], ...]


@dataclass(frozen=True)
class Runs:
    """The sequences of a row of tokens; a stack takes it in place of a mask.

    Attributes:
        runs: neighbours of one length, in the order of the row.
    """

    runs: tuple[Run, ...]

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Runs:
        """Returns the runs of sequences whose lengths are in the order of the row, without empty ones."""
        groups = ((length, sum(1 for _ in group)) for length, group in groupby(lengths))
        return cls(tuple(Run(number, length) for length, number in groups if length))

    def parts(self, context_of: Callable[[int], AttentionContext]) -> Parts:
        """Returns the runs, each with the context of a single sequence of its length.

        Args:
            context_of: makes a context from a length.
        """
        contexts = {length: context_of(length) for length in {run.length for run in self.runs}}
        return tuple((run, contexts[run.length]) for run in self.runs)


@dataclass(frozen=True)
class UnpaddedContext(AttentionContext):
    """Attention within each sequence of a row.

    Attributes:
        parts: the runs, each with the context of a single sequence of its length.
    """

    parts: Parts = ()

    def attend(self, attention: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(1, H, N, D), twice (1, K, N, D) -> (1, H, N, D)"""
        sizes = [run.number * run.length for run, _ in self.parts]
        columns = zip(*(torch.split(x[0], sizes, dim=1) for x in (query, key, value)), strict=True)
        mixed = []
        for (run, context), inputs in zip(self.parts, columns, strict=True):
            batch = (x.view(x.shape[0], *run, x.shape[2]).transpose(0, 1) for x in inputs)
            output = context.attend(attention, *batch)  # (number, H, length, D)
            mixed.append(output.transpose(1, 2).flatten(0, 1))
        return torch.cat(mixed).transpose(0, 1)[None]
