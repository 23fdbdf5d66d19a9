"""The probabilities of speculative sampling, as pure functions.

A token drawn from the draft's distribution q is accepted with probability min(1, p / q); after a rejection
one is drawn from the residual, (p - q)+ normalised. The result has the distribution p exactly (Leviathan et
al. 2022, arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318).

`block_weights` and `block_accept_probabilities` are those of block verification, which decides about all
tokens of a block together and accepts at least as many (Sun et al. 2024, arXiv:2403.10444).

Probabilities are of any floating-point type; a draft that draws nothing has a one-hot q. V vocabulary, K
drafted tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor


def one_hot(tokens: Tensor, like: Tensor) -> Tensor:
    """Returns the distribution of a draft that draws nothing: ids (...), like (..., V) -> (..., V)."""
    return torch.zeros_like(like).scatter_(-1, tokens[..., None], 1.0)


def at(probabilities: Tensor, tokens: Tensor) -> Tensor:
    """Returns the probabilities of tokens: (..., V), ids (...) -> (...)."""
    return probabilities.gather(-1, tokens[..., None]).squeeze(-1)


def accept_probability(p: Tensor, q: Tensor, token: Tensor) -> Tensor:
    """Returns min(1, p / q) of drafted tokens, 0 where p is 0.

    Args:
        p: (..., V), of the model after its processors.
        q: (..., V), the distribution that the tokens were drawn from.
        token: (...).

    Returns:
        (...)
    """
    target, draft = at(p, token), at(q, token)
    return torch.where(target < draft, target / draft, (target > 0).to(p.dtype))


def residual(p: Tensor, q: Tensor) -> Tensor:
    """Returns (p - q)+ normalised, the distribution of the token after a rejection.

    Where p is nowhere above q, as rounding can make it, p itself: then a rejection has probability 0.

    (..., V), (..., V) -> (..., V)
    """
    positive = (p - q).clamp(min=0)
    total = positive.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, positive / total, p)


def block_weights(p: Tensor, q: Tensor, tokens: Tensor) -> Tensor:
    """Returns the weight of each prefix of a block: w_0 = 1, w_i = min(1, w_(i-1) p(x_i) / q(x_i)).

    Args:
        p: (..., K, V), of the model at each drafted token.
        q: (..., K, V), of the draft.
        tokens: (..., K).

    Returns:
        (..., K + 1)
    """
    target, draft = at(p, tokens), at(q, tokens)
    weights = [torch.ones_like(target[..., 0])]
    for numerator, denominator in zip(target.unbind(-1), draft.unbind(-1), strict=True):
        weight = weights[-1] * numerator
        weights.append(torch.where(weight < denominator, weight / denominator, (weight > 0).to(p.dtype)))
    return torch.stack(weights, dim=-1)


def block_accept_probabilities(p: Tensor, q: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
    """Returns the probability that each prefix of a block passes its test; the longest one that does is kept.

    Args:
        p: (..., K, V), of the model at each drafted token.
        q: (..., K, V), of the draft.
        weights: (..., K + 1), from `block_weights`.
        counts: (...), the number of drafted tokens; those after them do not count.

    Returns:
        (..., K), for the prefixes of 1 to K tokens; that of the whole block is its weight.
    """
    size = p.shape[-2]
    number = torch.arange(1, size + 1, device=p.device)
    inner = weights[..., 1:size]
    excess = (inner[..., None] * p[..., 1:, :] - q[..., 1:, :]).clamp(min=0).sum(dim=-1)  # (..., K - 1)
    rest = excess + 1 - inner
    passing = torch.where(rest > 0, excess / rest, 1.0)
    passing = torch.cat((passing, weights[..., size:]), dim=-1)
    passing = torch.where(number == counts[..., None], weights[..., 1:], passing)
    return torch.where(number > counts[..., None], 0.0, passing)


def weighted_residual(p: Tensor, q: Tensor, weight: Tensor) -> Tensor:
    """Returns (w p - q)+ normalised, the distribution of the token after a block of weight w was cut.

    (..., V), (..., V), (...) -> (..., V)
    """
    positive = (weight[..., None] * p - q).clamp(min=0)
    total = positive.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, positive / total, p)
