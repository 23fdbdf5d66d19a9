"""Lookahead decoding (arXiv:2402.02057): Jacobi iterations collect n-grams, which later serve as drafts.

A window holds the last N - 1 iterations of W parallel guesses. Read along a diagonal, each column is an
n-gram that the model itself produced: guess, then what followed it in the next iteration, and so on. One
forward runs the window, which gives the last token of W n-grams, and up to G n-grams of earlier steps that
begin with the current token. Verification keeps the longest that agrees with the model's own choices.

Both parts hang below the last token as one tree (N = 4, W = 3; a, b, c are iterations, oldest first):

    root ── a1 ── a2 ── a3          root ── n-gram 1
             └ b1  └ b2  └ b3            └─ n-gram 2
               └ c1  └ c2  └ c3

R rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minitx.decoding.loop import Observer
from minitx.decoding.output import Event
from minitx.decoding.parameters import check_size, parameter, set_frozen
from minitx.decoding.session import DecodingSession
from minitx.decoding.strategy import Strategy
from minitx.decoding.trees.loop import Path, walk_trees
from minitx.decoding.trees.rules import Compare
from minitx.decoding.trees.session import TreeSession
from minitx.decoding.trees.token_tree import TokenTree


@dataclass(frozen=True, kw_only=True, repr=False)
class Lookahead(Strategy):
    """Greedy decoding that collects n-grams by parallel guesses and verifies those that fit.

    The tokens are those of `Greedy()`. A forward runs at most 1 + (window + guesses) * (ngram - 1) tokens per
    row. Its other fields are those of every strategy: help(minitx.decoding.Strategy) documents them.
    """

    window: int = parameter(
        None, off=5, help="W, number of guesses side by side (arXiv:2402.02057)", metavar="N"
    )
    ngram: int = parameter(None, off=4, help="length of the n-grams, at least 2", metavar="N")
    guesses: int = parameter(None, off=5, help="G, most n-grams that a forward verifies per row", metavar="N")

    def _check(self) -> None:
        super()._check()
        set_frozen(
            self,
            window=check_size("window", self.window, 1, "guesses side by side"),
            ngram=check_size("ngram", self.ngram, 2, "a token and at least one that follows it"),
            guesses=check_size("guesses", self.guesses, 1, "n-grams that a forward verifies"),
        )

    def run(self, session: DecodingSession, observe: Observer | None = None) -> Iterator[list[Event]]:
        """Generates with a session; see `Strategy.run`."""
        drafter = LookaheadDrafter(self.window, self.ngram, self.guesses)
        trees = TreeSession(session.model, session.request, nodes=drafter.nodes)
        return walk_trees(trees, drafter, Compare(session.request.sampler), observe)


class LookaheadDrafter:
    """Proposes n-grams of the pool beside the window of guesses.

    Args:
        window: W.
        ngram: N.
        guesses: G.
    """

    keep_outputs = hidden_states = False
    laws: Tensor | None = None

    def __init__(self, window: int, ngram: int, guesses: int) -> None:
        self._window, self._levels, self._guesses = window, ngram - 1, guesses
        self._drafted = guesses * self._levels  # nodes of n-grams, the first after the root
        self.nodes = 1 + self._drafted + window * self._levels
        self._rows: list[RowGuesses] = []

    def propose(self, session: TreeSession) -> TokenTree:
        """Returns the root, a tree of the pool's n-grams that begin with it, and the window."""
        histories = session.history.rows()
        if not self._rows:
            self._rows = [RowGuesses(row, self._window, self._levels, self._guesses) for row in histories]
        trees = [self._tree(guesses, row[-1]) for guesses, row in zip(self._rows, histories, strict=True)]
        tokens, parents = (torch.tensor(part, device=session.device) for part in zip(*trees, strict=True))
        return TokenTree(tokens, parents)

    def _tree(self, row: RowGuesses, root: int) -> tuple[list[int], list[int]]:
        """Returns tokens and parents of one row's tree."""
        tokens, parents = merge(root, row.pool.get(root, ()))
        absent = 1 + self._drafted - len(tokens)
        tokens, parents = tokens + [root] * absent, parents + [-1] * absent
        first = len(tokens)
        for level, guesses in enumerate(row.levels):
            for column, token in enumerate(guesses):
                number = first + level * self._window + column
                above = number - self._window if level else number - 1 if column else 0
                tokens.append(token)
                parents.append(above)
        return tokens, parents

    def observe(self, session: TreeSession, path: Path) -> None:
        """Adds the n-grams that the window completed to the pool, and moves the window on."""
        newest = session.node_logits[:, -self._window :].argmax(dim=-1).tolist()
        for row, tokens, count in zip(self._rows, newest, path.lengths.tolist(), strict=True):
            if count:
                row.advance(tokens, count)


class RowGuesses:
    """The window and the pool of one row.

    Args:
        tokens: of the row so far; the first guesses.
        window, levels, guesses: W, N - 1 and G.

    Attributes:
        levels: N - 1 iterations of W guesses, oldest first; guess i of the oldest is for place i + 1 after
            the last token, those of the next ones are each one place further.
        pool: for a token the n-grams that begin with it, without it; at most G, the latest last.
    """

    def __init__(self, tokens: Sequence[int], window: int, levels: int, guesses: int) -> None:
        self._guesses = guesses
        self.levels = [
            [tokens[-1 - (level + column) % len(tokens)] for column in range(window)]
            for level in range(levels)
        ]
        self.pool: dict[int, list[tuple[int, ...]]] = {}

    def advance(self, newest: list[int], count: int) -> None:
        """Stores what followed each column, and moves the window by `count` places.

        Args:
            newest: W tokens, one after each column.
            count: by how many tokens the row has grown.
        """
        for column, token in enumerate(newest):
            key, *rest = (level[column] for level in self.levels)
            known, ngram = self.pool.setdefault(key, []), (*rest, token)
            if ngram in known:
                known.remove(ngram)
            known.append(ngram)
            del known[: -self._guesses]
        # The next iteration's guesses are one place further by themselves.
        moved = min(count - 1, len(newest) - 1)
        self.levels = [level[moved:] + level[-1:] * moved for level in (*self.levels[1:], newest)]


def merge(root: int, ngrams: Sequence[tuple[int, ...]]) -> tuple[list[int], list[int]]:
    """Returns tokens and parents of the tree of n-grams below a root; common beginnings are one path."""
    tokens, parents = [root], [-1]
    known: dict[tuple[int, int], int] = {}
    for ngram in reversed(ngrams):  # the latest first
        node = 0
        for token in ngram:
            if (node, token) not in known:
                known[node, token] = len(tokens)
                tokens.append(token)
                parents.append(node)
            node = known[node, token]
    return tokens, parents
