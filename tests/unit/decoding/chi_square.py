"""Pearson's chi-square test, and that of Kolmogorov and Smirnov: do draws follow a distribution?"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# A right sampler is called wrong once in a million tests; with 100,000 draws over ten equally likely
# cells, an error of 0.004 in each probability is found almost surely.
ALPHA = 1e-6
DRAWS = 100_000


def p_value(observed: Tensor, expected: Tensor, parameters: int = 0) -> float:
    """How probable counts at least this far from the expected ones are.

    Args:
        observed, expected: (cells,) counts; cells with fewer than 5 expected are pooled.
        parameters: how many were estimated from the counts.
    """
    observed, expected = observed.double(), expected.double()
    few = expected < 5
    if few.any():
        observed = torch.cat([observed[~few], observed[few].sum()[None]])
        expected = torch.cat([expected[~few], expected[few].sum()[None]])
    impossible = expected == 0
    if observed[impossible].any():
        return 0.0
    observed, expected = observed[~impossible], expected[~impossible]
    statistic = ((observed - expected) ** 2 / expected).sum()
    freedom = len(expected) - 1 - parameters
    return float(torch.special.gammaincc(torch.tensor(freedom / 2).double(), statistic / 2))


def fit(draws: Tensor, probabilities: Tensor) -> float:
    """The p-value of (N,) draws against (V,) probabilities."""
    return p_value(torch.bincount(draws, minlength=len(probabilities)), probabilities.double() * len(draws))


def independence(first: Tensor, second: Tensor, size: int) -> float:
    """The p-value of (N,) pairs of draws, from 0 to `size` - 1, against the product of their marginals."""
    joint = torch.bincount(first * size + second, minlength=size * size).double().view(size, size)
    expected = joint.sum(1, keepdim=True) * joint.sum(0) / joint.sum()
    return p_value(joint.flatten(), expected.flatten(), parameters=2 * (size - 1))


def kolmogorov_smirnov(numbers: Tensor) -> float:
    """The p-value of (N,) numbers against the uniform law on [0, 1], by its limit for many of them."""
    count, ordered = len(numbers), numbers.double().sort().values
    steps = torch.arange(count + 1) / count
    scaled = float(torch.maximum((ordered - steps[:-1]).max(), (steps[1:] - ordered).max())) * math.sqrt(
        count
    )
    return 2 * sum((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 100))
