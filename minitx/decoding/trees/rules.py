"""How a walk along a tree chooses the next token of each row; each is a `Rule`.

    Compare     the target's own choice: exact, and the tokens of plain decoding
    Offer       the children one after the other, by rejection: exact, accepts most where children were drawn
    Plausible   a child that is probable enough: not the target's distribution

R rows, C children, V vocabulary.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from minitx.decoding.samplers.base import Sampler
from minitx.decoding.speculative.randomness import Randomness
from minitx.decoding.trees.acceptance import offer, typical
from minitx.decoding.trees.session import TreeSession


class Rule(Protocol):
    """Chooses the next token of each row."""

    def __call__(self, session: TreeSession, processed: Tensor, node: Tensor, children: Tensor) -> Tensor:
        """Returns the tokens, (R,).

        Args:
            session: stands at the nodes.
            processed: (R, V), logits after the chain.
            node: (R,), of the tree.
            children: (R, C) ids of their children, -1 for none.
        """


class Compare:
    """The target's own choice, by its sampler, whatever the children are."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def __call__(self, session: TreeSession, processed: Tensor, node: Tensor, children: Tensor) -> Tensor:
        """See `Rule`."""
        return self._sampler(processed, session.context.generated)


class Offer:
    """Rejection: accepts a child or draws the token from what is left of the target's distribution.

    Args:
        randomness: of the rows.
        drafter: of the generation, for its `laws`.
    """

    def __init__(self, randomness: Randomness, drafter: Any) -> None:
        self._randomness, self._drafter = randomness, drafter

    def __call__(self, session: TreeSession, processed: Tensor, node: Tensor, children: Tensor) -> Tensor:
        """See `Rule`."""
        # One counter per child; a row chooses one token for each number of tokens before it.
        counter = session.context.generated * self._drafter.nodes
        uniforms = [self._randomness.uniform(counter + number) for number in range(children.shape[1])]
        laws: Tensor | None = self._drafter.laws
        q = None
        if laws is not None and bool((children >= 0).any()):
            q = laws[torch.arange(len(node), device=node.device), node].softmax(dim=-1)
        number, left = offer(processed.softmax(dim=-1), q, children, torch.stack(uniforms, dim=1))
        drawn = self._randomness.sampler("residual")(left.log(), counter)
        child = children.gather(1, number.clamp(min=0)[:, None]).squeeze(1)
        return torch.where(number >= 0, child, drawn)


class Plausible:
    """Typical acceptance: the most probable child above a threshold, else the target's own choice.

    Args:
        sampler: of the target.
        threshold: the largest threshold; that of the entropy is its square root, as published.
    """

    def __init__(self, sampler: Sampler, threshold: float) -> None:
        self._sampler, self._threshold = sampler, threshold

    def __call__(self, session: TreeSession, processed: Tensor, node: Tensor, children: Tensor) -> Tensor:
        """See `Rule`."""
        p = processed.softmax(dim=-1)
        accepted = typical(p, self._threshold, self._threshold**0.5)
        there = accepted.gather(1, children.clamp(min=0)) & (children >= 0)
        best = p.gather(1, children.clamp(min=0)).where(there, -1.0).argmax(dim=1, keepdim=True)
        own = self._sampler(processed, session.context.generated)
        return torch.where(there.any(dim=1), children.gather(1, best).squeeze(1), own)
