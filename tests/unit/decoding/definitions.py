"""Processors from their definitions: one row of logits, numpy, float64. Plain and slow.

z logits (V,), p probabilities. Logits have no ties here, so that every set is defined.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max())
    return e / e.sum()


def entropy(z: Array) -> float:
    p = softmax(z)
    return float(-sum(x * np.log(x) for x in p if x > 0))


def keep(z: Array, kept: list[int]) -> Array:
    cut = np.full_like(z, -np.inf)
    cut[kept] = z[kept]
    return cut


def descending(z: Array) -> list[int]:
    return [int(i) for i in np.argsort(-z) if z[i] > -np.inf]


def prefix(p: Array, order: list[int], mass: float) -> list[int]:
    """The shortest beginning of the order that has at least that mass."""
    kept, total = [], 0.0
    for i in order:
        kept.append(i)
        total += p[i]
        if total >= mass:
            break
    return kept


def temperature(z: Array, t: float) -> Array:
    return z / t


def top_k(z: Array, k: int) -> Array:
    return keep(z, descending(z)[:k])


def top_p(z: Array, mass: float) -> Array:
    return keep(z, prefix(softmax(z), descending(z), mass))


def min_p(z: Array, least: float) -> Array:
    p = softmax(z)
    return keep(z, [i for i in descending(z) if p[i] >= least * p.max()])


def typical_p(z: Array, mass: float) -> Array:
    p, h = softmax(z), entropy(z)
    order = sorted(descending(z), key=lambda i: abs(-np.log(p[i]) - h))
    return keep(z, prefix(p, order, mass))


def epsilon_cutoff(z: Array, e: float) -> Array:
    p = softmax(z)
    return keep(z, [i for i in descending(z) if p[i] >= e] or descending(z)[:1])


def eta_cutoff(z: Array, e: float) -> Array:
    return epsilon_cutoff(z, min(e, np.sqrt(e) * np.exp(-entropy(z))))


def top_h(z: Array, share: float) -> Array:
    best = keep(z, descending(z)[:100])
    p, budget, kept = softmax(best), share * entropy(best), []
    for i in descending(best):
        budget -= -p[i] * np.log(p[i])
        if budget < 0 and kept:
            break
        kept.append(i)
    return keep(z, kept)


def repetition_penalty(z: Array, r: float, seen: list[int]) -> Array:
    return np.array([(x * r if x < 0 else x / r) if i in seen else x for i, x in enumerate(z)])


def openai_penalties(z: Array, frequency: float, presence: float, output: list[int]) -> Array:
    """OpenAI: mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence."""
    counts = np.array([output.count(i) for i in range(len(z))])
    return z - counts * frequency - (counts > 0) * presence


def logit_bias(z: Array, bias: dict[int, float]) -> Array:
    return z + np.array([bias.get(i, 0.0) for i in range(len(z))])


def without(z: Array, ids: list[int]) -> Array:
    return keep(z, [i for i in range(len(z)) if i not in ids])


def completing(sequences: list[list[int]], tokens: list[int]) -> list[int]:
    """The last tokens of those sequences of which the tokens end with all that comes before."""
    return [s[-1] for s in sequences if len(s) == 1 or tokens[-len(s) + 1 :] == s[:-1]]


def ngrams(text: list[int], n: int) -> list[list[int]]:
    return [text[i : i + n] for i in range(len(text) - n + 1)]
