"""Mirostat 1 and 2 and adaptive-p as llama.cpp defines them: one row, numpy, float64, with a state."""

from __future__ import annotations

import numpy as np

from tests.unit.decoding.definitions import Array, descending, keep, softmax


class Mirostat2:
    """The state is mu; `process` gives the logits, `accept` takes the token that was drawn from them."""

    def __init__(self, tau: float, eta: float) -> None:
        self.tau, self.eta, self.mu = tau, eta, 2 * tau

    def process(self, z: Array) -> Array:
        order, p = descending(z), softmax(z)
        count = 0
        while count < len(order) and -np.log2(p[order[count]]) <= self.mu:
            count += 1
        self.cut = keep(z, order[: max(count, 1)])
        return self.cut

    def accept(self, token: int) -> float:
        """Gives the surprise of the token."""
        surprise = float(-np.log2(softmax(self.cut)[token]))
        self.mu -= self.eta * (surprise - self.tau)
        return surprise


class Mirostat1(Mirostat2):
    def __init__(self, tau: float, eta: float, m: int) -> None:
        super().__init__(tau, eta)
        self.m = m

    def process(self, z: Array) -> Array:
        order, p = descending(z), softmax(z)
        top = 0.0
        bottom = 0.0
        for i in range(min(self.m, len(order)) - 1):
            t = np.log((i + 2) / (i + 1))
            b = np.log(p[order[i]] / p[order[i + 1]])
            top, bottom = top + t * b, bottom + t * t
        s = top / bottom
        e = s - 1
        k = (e * 2**self.mu / (1 - len(z) ** -e)) ** (1 / s)
        self.cut = keep(z, order[: max(int(k), 1)])
        return self.cut


class AdaptiveP:
    def __init__(self, target: float, decay: float) -> None:
        self.target, self.decay = target, decay
        self.total, self.weight = target / (1 - decay), 1 / (1 - decay)

    def process(self, z: Array) -> Array:
        self.p = softmax(z)
        wanted = min(1.0, max(0.0, 2 * self.target - self.total / self.weight))
        distance = np.abs(self.p - wanted) / 0.3
        changed = 5 - 10 * distance**2 / (1 + distance)
        return np.where(z > -np.inf, changed, -np.inf)

    def accept(self, token: int) -> float:
        """Gives the probability that the token had."""
        self.total = float(self.p[token]) + self.decay * self.total
        self.weight = 1 + self.decay * self.weight
        return float(self.p[token])
