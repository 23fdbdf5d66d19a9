"""Jacobi decoding: greedy decoding as a system of equations, solved for several tokens in parallel.

The greedy tokens y_1, y_2, ... solve y_i = argmax p(. | y_1 ... y_{i-1}). Jacobi iteration starts from any
guess and computes the right side for all i in one forward, again and again (arXiv:2305.10427, section 3.2).
Each iteration makes at least the first wrong token right, and a token that agrees with its equation for the
right tokens before it is final.

R rows, K tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
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
class Jacobi(Strategy):
    """Greedy decoding that guesses several tokens per forward and corrects all of them at once.

    The tokens are those of `Greedy()`, whatever the guesses. A forward runs `tokens` tokens per row, which on
    a GPU costs hardly more than one, and makes between one and `tokens` of them final. Its other fields are
    those of every strategy: help(minitx.decoding.Strategy) documents them.
    """

    tokens: int = parameter(
        None, off=8, help="number of tokens that a forward runs per row, at least 2", metavar="N"
    )

    def _check(self) -> None:
        super()._check()
        set_frozen(self, tokens=check_size("tokens", self.tokens, 2, "one certain token and the guesses"))

    def run(self, session: DecodingSession, observe: Observer | None = None) -> Iterator[list[Event]]:
        """Generates with a session; see `Strategy.run`."""
        request = session.request
        drafter = JacobiDrafter(self.tokens)
        trees = TreeSession(session.model, request, nodes=drafter.nodes)
        return walk_trees(trees, drafter, Compare(request.sampler), observe)


class JacobiDrafter:
    """Proposes a chain: the last token, and the tokens of the last iteration that were not accepted.

    Args:
        tokens: K, the length of the chain.
    """

    keep_outputs = hidden_states = False
    laws: Tensor | None = None

    def __init__(self, tokens: int) -> None:
        self.nodes = tokens
        self._guesses: Tensor | None = None  # (R, K - 1)

    def propose(self, session: TreeSession) -> TokenTree:
        """Returns the chain; the first guesses repeat the last token."""
        last = session.context.last(1)
        guesses = last.expand(-1, self.nodes - 1) if self._guesses is None else self._guesses
        return TokenTree.chain(torch.cat((last, guesses), dim=1))

    def observe(self, session: TreeSession, path: Path) -> None:
        """Keeps the argmax after every node beyond the accepted ones; the last one is repeated."""
        after = session.node_logits.argmax(dim=-1)  # (R, K), the right sides of the equations
        places = path.lengths[:, None] + torch.arange(self.nodes - 1, device=after.device)
        self._guesses = after.gather(1, places.clamp(max=self.nodes - 1))
