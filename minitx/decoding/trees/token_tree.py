"""Trees of tokens: several continuations of each row that share their beginnings.

    tokens    the  cat  dog  sat  ran        the ── cat ── sat
    parents    -1    0    0    1    2             └─ dog ── ran

R rows, N nodes, C children.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from minitx.validation import ArgumentValueError, check_integer_dtype


@dataclass(frozen=True, eq=False)
class TokenTree:
    """A tree of tokens per row. Node 0 is the root, which is certain; every parent comes before its children.

    Attributes:
        tokens: (R, N) long.
        parents: (R, N) long, the number of each node's parent; -1 for the root, and for nodes that a row does
            not have.

    Raises:
        ArgumentTypeError: not integers.
        ArgumentValueError: other shapes, or a parent that does not come before its child.
    """

    tokens: Tensor
    parents: Tensor

    def __post_init__(self) -> None:
        for name, value in (("tokens", self.tokens), ("parents", self.parents)):
            check_integer_dtype(name, value)
            if value.dim() != 2 or value.shape != self.tokens.shape or 0 in value.shape:
                expected = f"of shape (rows, nodes) = {tuple(self.tokens.shape)}, not {tuple(value.shape)}"
                raise ArgumentValueError(name, value, expected)
        places = torch.arange(self.parents.shape[1], device=self.parents.device)
        if bool(((self.parents < -1) | (self.parents >= places)).any()):
            expected = "for each node the number of an earlier one, or -1"
            raise ArgumentValueError("parents", self.parents, expected)

    @classmethod
    def chain(cls, tokens: Tensor) -> TokenTree:
        """Returns the tree without branches: (R, N) -> N nodes, each the child of the one before."""
        parents = torch.arange(-1, tokens.shape[1] - 1, device=tokens.device)
        return cls(tokens, parents.expand_as(tokens))

    @cached_property
    def mask(self) -> Tensor:
        """(R, N, N) bool: whether the second node is the first one or one of its ancestors."""
        rows, nodes = self.parents.shape
        itself = torch.eye(nodes, dtype=torch.bool, device=self.parents.device).expand(rows, -1, -1)
        has_parent = (self.parents >= 0)[:, :, None]
        parents = self.parents.clamp(min=0)[:, :, None].expand(-1, -1, nodes)
        mask = itself
        for _ in range(nodes):
            longer = itself | (mask.gather(1, parents) & has_parent)
            if torch.equal(longer, mask):
                break
            mask = longer
        return mask

    @cached_property
    def depth(self) -> Tensor:
        """(R, N) long: the number of ancestors."""
        return self.mask.sum(dim=-1) - 1

    def children(self, node: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the children of one node per row, in order: their numbers and their tokens.

        Args:
            node: (R,)

        Returns:
            Twice (R, C), with C the most children of any row's node, at least 1; -1 for none.
        """
        own = self.parents == node[:, None]
        most = max(int(own.sum(dim=1).max()), 1)
        first = own.long().argsort(dim=1, descending=True, stable=True)[:, :most]
        there = own.gather(1, first)
        return first.masked_fill(~there, -1), self.tokens.gather(1, first).masked_fill(~there, -1)
