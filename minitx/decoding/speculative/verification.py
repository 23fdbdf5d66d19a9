"""How drafted tokens are verified: which of them a row keeps, and the token that follows them.

    match       draw a token of the model at each position; drafted ones are kept while they are equal
    rejection   keep each drafted token with probability min(1, p / q)
    block       decide about all drafted tokens of a row together
    ensemble    rejection with a mixture of p and q in place of p: not the model's distribution
    typical     keep drafted tokens that are probable enough: not the model's distribution
    lenient     the same with a fixed threshold

R rows, K drafted tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from minitx.decoding.processors.chain import unusable
from minitx.decoding.speculative.acceptance import (
    accept_probability,
    at,
    block_accept_probabilities,
    block_weights,
    one_hot,
    residual,
    weighted_residual,
)
from minitx.decoding.speculative.draft import Proposal
from minitx.decoding.speculative.randomness import Randomness

# index of a drafted token, or K -> logits (R, V) of the model for it, after the processors
Scores = Callable[[int], Tensor]


class Verdict(NamedTuple):
    """The outcome of a block.

    Attributes:
        accepted: (R,) long, the number of drafted tokens that are kept.
        token: (R,) long, the one after them; -1 where the model's distribution leaves none.
    """

    accepted: Tensor
    token: Tensor


class Block(NamedTuple):
    """The drafted tokens of all rows, and the numbers to verify them with.

    Attributes:
        proposal: the drafted tokens.
        scores: of the model.
        randomness: of the rows.
        position: (R,) long, the number of tokens before the drafted ones.
        counter: (R,) long, from which on K + 1 counters are free.
    """

    proposal: Proposal
    scores: Scores
    randomness: Randomness
    position: Tensor
    counter: Tensor

    def q(self, index: int, p: Tensor) -> Tensor:
        """Returns the distribution that a token was drawn from, (R, V) of the dtype of p."""
        if self.proposal.logits is None:
            return one_hot(self.proposal.tokens[:, index], p)
        return self.proposal.logits[:, index].to(p.dtype).softmax(dim=-1)


class Verification(Protocol):
    """Decides about the tokens of a block."""

    def __call__(self, block: Block) -> Verdict:
        """Returns how many tokens each row keeps, and the next one."""


@dataclass(frozen=True)
class Match:
    """Draws at each position as plain decoding does; keeps drafted tokens while they are the drawn ones.

    Exact for every draft: the tokens are those that the model's sampler draws. With the most probable token
    in place of a draw this is greedy verification.
    """

    def __call__(self, block: Block) -> Verdict:
        """Draws until every row has differed from its draft."""
        tokens, counts, _ = block.proposal
        sampler = block.randomness.sampler("model")
        accepted, following = torch.zeros_like(counts), torch.zeros_like(counts)
        is_open = counts >= 0
        for index in range(tokens.shape[1] + 1):
            scores = block.scores(index)
            drawn = sampler(scores, block.position + index)
            following = torch.where(is_open, drawn.where(~unusable(scores), -1), following)
            if index < tokens.shape[1]:
                is_open = is_open & (index < counts) & (tokens[:, index] == following)
                accepted = accepted + is_open
            if not bool(is_open.any()):
                break
        return Verdict(accepted, following)


# (p, q, token) -> the probability (R,) of keeping it, and the distribution (R, V) of the token in its place
Rule = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class TokenByToken:
    """Keeps drafted tokens one after the other with the probability of a rule."""

    rule: Rule

    def __call__(self, block: Block) -> Verdict:
        """Decides until every row has rejected a token."""
        tokens, counts, _ = block.proposal
        accepted, is_open = torch.zeros_like(counts), counts >= 0
        last = broken = None
        for index in range(tokens.shape[1] + 1):
            scores = block.scores(index)
            p = scores.softmax(dim=-1)
            ended, distribution = is_open, p
            if index < tokens.shape[1]:
                probability, replacement = self.rule(p, block.q(index, p), tokens[:, index])
                drafted = is_open & (index < counts)
                kept = drafted & (_uniform(block, index) < probability)
                distribution = torch.where(drafted[:, None], replacement, p)
                ended, is_open = is_open & ~kept, kept
                accepted = accepted + kept
            last = distribution if last is None else torch.where(ended[:, None], distribution, last)
            broken = unusable(scores) if broken is None else torch.where(ended, unusable(scores), broken)
            if not bool(is_open.any()):
                break
        assert last is not None
        assert broken is not None
        return Verdict(accepted, _draw(block, last, broken))


@dataclass(frozen=True)
class WholeBlock:
    """Keeps the longest prefix of a row's drafted tokens that passes its test (arXiv:2403.10444)."""

    def __call__(self, block: Block) -> Verdict:
        """Decides about all rows at once."""
        tokens, counts, _ = block.proposal
        size = tokens.shape[1]
        scores = torch.stack([block.scores(index) for index in range(size + 1)], dim=1)
        broken = unusable(scores.flatten(0, 1)).view(scores.shape[:2])
        # Tokens that the model bans can lead to histories without any token; their weight is 0.
        p = scores.softmax(dim=-1).masked_fill(broken[..., None], 0.0)
        accepted, rows = torch.zeros_like(counts), torch.arange(len(counts), device=counts.device)
        distribution = p[:, 0]
        if size:
            q = torch.stack([block.q(index, p[:, index]) for index in range(size)], dim=1)
            weights = block_weights(p[:, :size], q, tokens)
            passing = block_accept_probabilities(p[:, :size], q, weights, counts)
            uniform = torch.stack([_uniform(block, index) for index in range(size)], dim=1)
            number = torch.arange(1, size + 1, device=counts.device)
            accepted = ((uniform < passing) * number).amax(dim=1)
            after, following = p[rows, accepted], q[rows, accepted.clamp(max=size - 1)]
            rest = weighted_residual(after, following, weights[rows, accepted])
            distribution = torch.where((accepted < counts)[:, None], rest, after)
        return Verdict(accepted, _draw(block, distribution, broken[rows, accepted]))


def rejection(p: Tensor, q: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
    """Keeps the model's distribution; a `Rule`."""
    return accept_probability(p, q, token), residual(p, q)


@dataclass(frozen=True)
class Ensemble:
    """Rejection with weight p + (1 - weight) q in place of p; a `Rule`. Not exact."""

    weight: float

    def __call__(self, p: Tensor, q: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """(R, V), (R, V), (R,) -> (R,), (R, V)"""
        return rejection(self.weight * p + (1 - self.weight) * q, q, token)


@dataclass(frozen=True)
class Typical:
    """Keeps tokens above min(threshold, sqrt(threshold) e^-H), H the entropy; a `Rule`. Not exact.

    The typical acceptance of Medusa (arXiv:2401.10774), with the relation of its two constants.
    """

    threshold: float

    def __call__(self, p: Tensor, q: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """(R, V), (R, V), (R,) -> (R,), (R, V)"""
        entropy = torch.special.entr(p).sum(dim=-1)
        least = (self.threshold**0.5 * torch.exp(-entropy)).clamp(max=self.threshold)
        return (at(p, token) > least).to(p.dtype), p


@dataclass(frozen=True)
class Lenient:
    """Keeps tokens whose probability is above a threshold; a `Rule`. Not exact."""

    threshold: float

    def __call__(self, p: Tensor, q: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """(R, V), (R, V), (R,) -> (R,), (R, V)"""
        return (at(p, token) > self.threshold).to(p.dtype), p


def _uniform(block: Block, index: int) -> Tensor:
    """Returns the numbers (R,) that decide about a drafted token; 0 where nothing is random."""
    counter = block.counter + index
    drawn = block.randomness.draws
    return block.randomness.uniform(counter) if drawn else torch.zeros_like(counter, dtype=torch.float64)


def _draw(block: Block, distribution: Tensor, broken: Tensor) -> Tensor:
    """Returns the token after the kept ones, by distributions (R, V); -1 where they are broken, (R,) bool."""
    token = block.randomness.sampler("residual")(distribution.log(), block.counter)
    return token.where(~broken, -1)
