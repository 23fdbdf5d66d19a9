"""Shapes of trees: which ranks of candidates hang below which. N nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minitx.decoding.parameters import check_size, to_comparable
from minitx.decoding.trees.token_tree import TokenTree
from minitx.validation import ArgumentTypeError, ArgumentValueError

Paths = Sequence[Sequence[int]]
_MOST_NODES = 1024


@dataclass(frozen=True)
class TreeShape:
    """A tree that all rows share, as the list of its nodes; the root, which is certain, is not among them.

    Attributes:
        paths: per node the ranks that lead to it: (0,) is the most probable first token, (0, 2) the third
            most probable one after that. Parents come first.
    """

    paths: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, parameter: str, paths: Any, depth: int) -> TreeShape:
        """Checks a list of paths, in any order.

        Args:
            parameter: name of the argument, for errors.
            paths: the list.
            depth: the longest path that there are candidates for.

        Raises:
            ArgumentTypeError: not lists of ranks.
            ArgumentValueError: none or too many, one twice, one that is too long, or whose parent is missing.
        """
        plain = to_comparable(paths)
        if not isinstance(plain, tuple) or not all(isinstance(path, tuple) for path in plain):
            raise ArgumentTypeError(parameter, paths, "a list of paths such as (0, 1), each a tuple of ranks")
        checked = [tuple(check_size(parameter, rank, hint="it is a rank") for rank in path) for path in plain]
        known = {(), *checked}
        if not checked or len(known) <= len(checked) or len(checked) >= _MOST_NODES:
            expected = f"from 1 to {_MOST_NODES - 1} different paths of at least one rank"
            raise ArgumentValueError(parameter, paths, expected)
        for path in checked:
            if len(path) > depth:
                raise ArgumentValueError(parameter, path, f"of at most {depth} ranks, one per head")
            if path[:-1] not in known:
                raise ArgumentValueError(parameter, path, f"a path whose beginning {path[:-1]} is listed too")
        return cls(tuple(sorted(checked, key=lambda path: (len(path), path))))

    @classmethod
    def usual(cls, depth: int, ranks: int = 2) -> TreeShape:
        """Returns all paths of at most `depth` ranks that add up to at most `ranks`."""
        paths: list[tuple[int, ...]] = [()]
        for path in paths:
            if len(path) < depth:
                paths += [(*path, rank) for rank in range(ranks - sum(path) + 1)]
        return cls(tuple(sorted(paths[1:], key=lambda path: (len(path), path))))

    @property
    def widest(self) -> int:
        """The number of candidates per depth that the tree uses: its largest rank + 1."""
        return max(max(path) for path in self.paths) + 1

    def tree(self, root: Tensor, candidates: Tensor) -> TokenTree:
        """Returns the tree of candidates that depend on the depth alone.

        Args:
            root: (R,) ids.
            candidates: (R, depth, widest) ids, best first.
        """
        numbers = {path: number for number, path in enumerate(((), *self.paths))}
        parents = torch.tensor([-1, *(numbers[path[:-1]] for path in self.paths)], device=root.device)
        places = torch.tensor([(len(path) - 1, path[-1]) for path in self.paths], device=root.device)
        tokens = torch.cat((root[:, None], candidates[:, places[:, 0], places[:, 1]]), dim=1)
        return TokenTree(tokens, parents.expand_as(tokens))
