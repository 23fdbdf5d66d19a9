"""Processors from their definitions: one row of logits, numpy, float64. Plain and slow.

z logits (V,), p probabilities. Logits have no ties here, so that every set is defined.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def top_n_sigma(z: Array, n: float) -> Array:
    finite = z[z > -np.inf]
    return keep(z, [i for i in descending(z) if z[i] >= finite.max() - n * finite.std()])


def top_a(z: Array, a: float) -> Array:
    p = softmax(z)
    return keep(z, [i for i in descending(z) if p[i] >= a * p.max() ** 2])


def p_less(z: Array) -> Array:
    p = softmax(z)
    return keep(z, [i for i in descending(z) if p[i] >= (p**2).sum()])


def tail_free(z: Array, share: float) -> Array:
    order = [int(i) for i in np.argsort(-z)]
    p = softmax(z)[order]
    bends = [abs((p[i] - p[i + 1]) - (p[i + 1] - p[i + 2])) for i in range(len(p) - 2)]
    sums = np.cumsum(bends) / sum(bends)
    kept = [order[0], *(order[i + 1] for i in range(len(sums)) if sums[i] <= share)]
    return keep(z, [i for i in kept if z[i] > -np.inf])


def log(p: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.log(p)


def averaged_xtc(z: Array, share: float, threshold: float) -> Array:
    p = softmax(z)
    high = [i for i in descending(z) if p[i] >= threshold]
    if len(high) < 2:
        return z
    cut = np.array([0.0 if i in high[:-1] else x for i, x in enumerate(p)])
    return log((1 - share) * p + share * cut / cut.sum())


def dynamic_temperature(z: Array, low: float, high: float, exponent: float) -> Array:
    n = len(descending(z))
    return z if n < 2 else z / (low + (high - low) * (entropy(z) / np.log(n)) ** exponent)


def entropy_temperature(z: Array, t: float, theta: float) -> Array:
    return (z - z.max()) / max(1e-6, t * 0.8 ** (theta / max(entropy(z), 1e-6)))


def smoothing(z: Array, factor: float, curve: float) -> Array:
    def bent(d: float) -> float:
        return -(3 - curve) / 2 * factor * d**2 + (curve - 1) / 2 * factor * d**3

    return np.array([bent(x - z.max()) if x > -np.inf else x for x in z])


def skew(z: Array, s: float) -> Array:
    order, p, total, before = descending(z), softmax(z), 0.0, 0.0
    result = np.zeros_like(z)
    for i in order:
        total = min(1.0, total + p[i])
        result[i], before = total ** np.exp(s) - before, total ** np.exp(s)
    return log(result)


def sparsemax(z: Array) -> Array:
    """The projection on the simplex, by sorting (arXiv:1602.02068, algorithm 1)."""
    u = np.sort(z[z > -np.inf])[::-1]
    k = max(i + 1 for i in range(len(u)) if 1 + (i + 1) * u[i] > u[: i + 1].sum())
    return log(np.maximum(z - (u[:k].sum() - 1) / k, 0))


def entmax15(z: Array) -> Array:
    """The exact solution for alpha = 1.5, by sorting (arXiv:1905.05702, algorithm 2)."""
    half = z / 2 - (z / 2).max()
    u = np.sort(half[half > -np.inf])[::-1]
    taus = []
    for k in range(1, len(u) + 1):
        mean, squares = u[:k].mean(), (u[:k] ** 2).mean()
        taus.append(mean - np.sqrt(max(0.0, (1 - k * (squares - mean**2)) / k)))
    k = max(i + 1 for i in range(len(u)) if taus[i] <= u[i])
    return log(np.maximum(half - taus[k - 1], 0) ** 2)


def repetition_penalty(z: Array, r: float, seen: list[int]) -> Array:
    return np.array([(x * r if x < 0 else x / r) if i in seen else x for i, x in enumerate(z)])


def openai_penalties(z: Array, frequency: float, presence: float, output: list[int]) -> Array:
    """OpenAI: mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence."""
    counts = np.array([output.count(i) for i in range(len(z))])
    return z - counts * frequency - (counts > 0) * presence


def relative_frequency_penalty(z: Array, penalty: float, seen: list[int]) -> Array:
    """Text Generation Inference: the penalty times count / length."""
    return z - penalty * np.array([seen.count(i) / max(1, len(seen)) for i in range(len(z))])


def repeat_counts(text: list[int], breakers: Sequence[int] = ()) -> list[int]:
    """At each position the length of the longest text without breakers that ends there and at the end."""
    counts = []
    for end in range(1, len(text) + 1):
        lengths = [n for n in range(end + 1) if text[end - n : end] == text[len(text) - n :]]
        lengths = [n for n in lengths if not set(text[end - n : end]) & {*breakers}]
        counts.append(max(lengths) if end < len(text) else 0)
    return counts


def dry(
    z: Array, text: list[int], multiplier: float, base: float, allowed: int, breakers: Sequence[int] = ()
) -> Array:
    longest = np.zeros(len(z), dtype=int)
    for token, count in zip(text[1:], repeat_counts(text, breakers), strict=False):
        longest[token] = max(longest[token], count)
    penalised = [i for i in range(len(z)) if longest[i] >= allowed and i not in breakers]
    return z - np.array(
        [multiplier * base ** (longest[i] - allowed) if i in penalised else 0 for i in range(len(z))]
    )


def logit_bias(z: Array, bias: dict[int, float]) -> Array:
    return z + np.array([bias.get(i, 0.0) for i in range(len(z))])


def without(z: Array, ids: list[int]) -> Array:
    return keep(z, [i for i in range(len(z)) if i not in ids])


def completing(sequences: list[list[int]], tokens: list[int]) -> list[int]:
    """The last tokens of those sequences of which the tokens end with all that comes before."""
    return [s[-1] for s in sequences if len(s) == 1 or tokens[-len(s) + 1 :] == s[:-1]]


def ngrams(text: list[int], n: int) -> list[list[int]]:
    return [text[i : i + n] for i in range(len(text) - n + 1)]
