"""A tree of token sequences with the keys and values of their tokens; common beginnings are stored once.

K heads, T tokens, D features of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

# Keys and values of each layer, (K, T, D) each.
Layers = list[tuple[Tensor, Tensor]]


@dataclass(eq=False)
class Node:
    """Some tokens in a row, and what follows them.

    Attributes:
        tokens: T of them; none at the root.
        layers: their keys and values.
        parent: the node before; None at the root.
        children: by their first token.
        used: when it was last used; a larger number is later.
    """

    tokens: tuple[int, ...] = ()
    layers: Layers = field(default_factory=list)
    parent: Self | None = None
    children: dict[int, Self] = field(default_factory=dict)
    used: int = 0

    @property
    def size(self) -> int:
        """The bytes of its keys and values."""
        return sum(x.numel() * x.element_size() for pair in self.layers for x in pair)

    def walk(self) -> Iterator[Self]:
        """Yields this node and all after it."""
        nodes = [self]
        while nodes:
            yield (node := nodes.pop())
            nodes += node.children.values()


class PrefixTree:
    """The stored sequences; those that were not used for the longest time leave first.

    Args:
        max_bytes: most bytes of keys and values.

    Attributes:
        size: their bytes now.
        tokens: the number of stored tokens.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.root = Node()
        self.size = self.tokens = self._now = 0

    def find(self, tokens: Sequence[int]) -> tuple[int, list[Node]]:
        """Returns how many of the first tokens are stored, and the nodes that hold them."""
        self._now += 1
        node, count, path = self.root, 0, []
        while count < len(tokens) and (child := node.children.get(tokens[count])) is not None:
            child.used = self._now
            shared = _common(child.tokens, tokens[count:])
            count += shared
            path.append(child)
            if shared < len(child.tokens):
                break
            node = child
        return count, path

    def read(self, tokens: Sequence[int], layer: int) -> tuple[Tensor, Tensor]:
        """Returns keys and values of a layer for tokens that `find` has found: twice (K, T, D)."""
        count, path = self.find(tokens)
        assert count == len(tokens), "they are stored"
        keys, values = (torch.cat([node.layers[layer][i] for node in path], dim=1) for i in (0, 1))
        return keys[:, :count], values[:, :count]

    def add(self, tokens: Sequence[int], layers: Layers) -> None:
        """Stores copies of keys and values, of the tokens that are not yet there, as far as they fit.

        Args:
            tokens: T of them.
            layers: their keys and values.
        """
        size = sum(x.nbytes for pair in layers for x in pair)
        tokens = tokens[: self.max_bytes * len(tokens) // max(1, size)]
        count, path = self.find(tokens)
        end = path[-1] if path else self.root
        if count < len(tokens):
            held = sum(len(node.tokens) for node in path)
            if held > count:
                self._split(end, len(end.tokens) - (held - count))
                end = end.parent or self.root
            new = slice(count, len(tokens))
            rest = [(key[:, new].clone(), value[:, new].clone()) for key, value in layers]
            leaf = Node(tuple(tokens[count:]), rest, end, used=self._now)
            end.children[leaf.tokens[0]] = leaf
            self.size, self.tokens = self.size + leaf.size, self.tokens + len(leaf.tokens)
        while self.size > self.max_bytes:
            self._remove(min((n for n in self.root.walk() if not n.children), key=lambda n: n.used))

    def _split(self, node: Node, count: int) -> None:
        """Puts a node with the first `count` tokens before this one, which keeps the others."""
        assert node.parent is not None, "the root has no tokens"
        first = [(key[:, :count].clone(), value[:, :count].clone()) for key, value in node.layers]
        upper = Node(node.tokens[:count], first, node.parent, {node.tokens[count]: node}, node.used)
        node.parent.children[node.tokens[0]] = upper
        node.layers = [(key[:, count:].clone(), value[:, count:].clone()) for key, value in node.layers]
        node.tokens, node.parent = node.tokens[count:], upper

    def _remove(self, leaf: Node) -> None:
        assert leaf.parent is not None, "an empty tree has no bytes"
        del leaf.parent.children[leaf.tokens[0]]
        self.size, self.tokens = self.size - leaf.size, self.tokens - len(leaf.tokens)


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Returns the number of equal tokens at the beginning of both."""
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return place
    return min(len(first), len(second))
