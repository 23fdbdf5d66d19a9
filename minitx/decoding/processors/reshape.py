"""Processors that change the shape of the distribution. z logits, p = softmax(z), H its entropy in nats.

B rows, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from minitx.decoding.parameters import NON_NEGATIVE, POSITIVE, Numbers, Rule, set_frozen, to_plain
from minitx.decoding.processors.base import LogitsProcessor, NumericProcessor, positional_fields
from minitx.decoding.processors.context import Context
from minitx.decoding.processors.truncation import Filter
from minitx.validation import ArgumentTypeError, ArgumentValueError, Interval, check_number

_BISECTIONS = 60  # halves a float64 interval to its last bit
_SHARE = Interval(0, 1)
_FAINTEST = -80.0  # log-probability of tokens that are kept although their probability is 0
_COLDEST = 1e-6  # temperature, so that nothing is divided by 0


@dataclass(frozen=True)
class Shape(LogitsProcessor):
    """A processor of a few numbers, given as a tuple in the field of a strategy."""

    elementwise = True
    parameter = ""

    @classmethod
    def from_numbers(cls, values: Any) -> Self:
        """Returns the processor of a number or a tuple of numbers, the value of a strategy's field."""
        plain = to_plain(values)
        values = plain if isinstance(plain, tuple | list) else (plain,)
        names = positional_fields(cls)
        if not 1 <= len(values) <= len(names):
            expected = f"a tuple of at most {len(names)} numbers: {', '.join(names)}"
            raise ArgumentTypeError(cls.parameter, values, expected)
        return cls(*values)

    def _checked(self, **intervals: Interval) -> None:
        """Checks the numbers of the fields and keeps them as floats."""
        for name, interval in intervals.items():
            value = check_number(f"{self.parameter}: {name}", to_plain(getattr(self, name)), interval)
            set_frozen(self, **{name: value})


@dataclass(frozen=True)
class DynamicTemperature(Shape):
    """Divides by a temperature that grows with the entropy: low + (high - low) * (H / ln n)^exponent.

    n is the number of tokens that are left, so that H / ln n is between 0 and 1 (llama.cpp, whose range r
    around a temperature t is low = t - r, high = t + r). A row with one token does not change.

    Args:
        low: temperature of a certain distribution, above 0.
        high: temperature of a uniform one, at least low.
        exponent: above 0.
    """

    low: float
    high: float
    exponent: float = 1.0
    parameter = "dynamic_temperature"

    def __post_init__(self) -> None:
        self._checked(low=POSITIVE, high=POSITIVE, exponent=POSITIVE)
        if self.high < self.low:
            hint = "the temperature grows with the entropy"
            raise ArgumentValueError(self.parameter, (self.low, self.high), "(low, high) in this order", hint)

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        count = (logits > -torch.inf).sum(dim=-1, keepdim=True)
        share = entropy(logits) / count.clamp(min=2).to(logits.dtype).log()
        temperature = self.low + (self.high - self.low) * share.clamp(0, 1) ** self.exponent
        return torch.where(count > 1, logits / temperature, logits)


@dataclass(frozen=True)
class EntropyTemperature(Shape):
    """Divides by the temperature t * 0.8^(theta / H): t where the entropy is high (arXiv:2403.14541).

    Args:
        temperature: t, above 0.
        theta: at least 0; 0 is the temperature t alone.
    """

    temperature: float
    theta: float = 1.0
    parameter = "entropy_temperature"

    def __post_init__(self) -> None:
        self._checked(temperature=POSITIVE, theta=NON_NEGATIVE)

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        exponent = self.theta / entropy(logits.double()).clamp(min=1e-6)  # which multiplies rounding errors
        temperature = (self.temperature * 0.8**exponent).clamp(min=_COLDEST).to(logits.dtype)
        return (logits - logits.amax(dim=-1, keepdim=True)) / temperature


@dataclass(frozen=True)
class Smoothing(Shape):
    """Bends the logits: with d = z - max(z), z' = -k f d^2 + s f d^3, k = (3 - c) / 2, s = (c - 1) / 2.

    Tokens close to the best one come closer, improbable ones become far less probable (the quadratic and
    cubic sampling of text-generation-webui).

    Args:
        factor: f, above 0.
        curve: c, from 1 to 3; 1.0 is the quadratic curve alone.
    """

    factor: float
    curve: float = 1.0
    parameter = "smoothing"

    def __post_init__(self) -> None:
        self._checked(factor=POSITIVE, curve=Interval(1, 3))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        distance = logits - logits.amax(dim=-1, keepdim=True)
        quadratic, cubic = (3 - self.curve) / 2, (self.curve - 1) / 2
        finite = distance.clamp(min=-1e9)  # -inf * 0 would be NaN
        bent = self.factor * finite.square() * (cubic * finite - quadratic)
        return bent.masked_fill(distance == -torch.inf, -torch.inf)


@dataclass(frozen=True)
class Skew(NumericProcessor):
    """Takes the cumulative probabilities, of the most probable first, to the power e^skew (exllamav2).

    Above 0 the tail becomes more probable, below 0 the best tokens do.

    Args:
        skew: one or per row; 0.0 changes nothing.
    """

    skew: Numbers
    rule = Rule("skew", "0.0 changes nothing, above 0 favours the tail", Interval(-10, 10), 0.0)
    elementwise = True

    def apply(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        order = logits.sort(dim=-1, descending=True, stable=True)
        sums = order.values.double().softmax(dim=-1).cumsum(dim=-1).clamp(max=1)
        skew = self.tensor(logits)
        shares = torch.nn.functional.pad(sums ** skew.double().exp(), (1, 0)).diff(dim=-1)
        skewed = shares.clamp(min=0).log().to(logits.dtype)
        skewed = skewed.masked_fill(order.values == -torch.inf, -torch.inf)
        changed = torch.empty_like(logits).scatter_(1, order.indices, skewed)
        return torch.where(skew == 0, logits, changed)


@dataclass(frozen=True)
class Entmax(Filter):
    """Replaces the softmax by alpha-entmax: p = max((alpha - 1) z - tau, 0)^(1 / (alpha - 1)).

    tau makes the sum 1. Improbable tokens get the probability 0, without a filter (arXiv:1905.05702, equation
    10; sampling from it: arXiv:2004.02644). alpha = 2 is sparsemax (arXiv:1602.02068), 1 the softmax.

    Args:
        alpha: one or per row, from 1 to 10; 1.0 changes nothing.
    """

    alpha: Numbers
    rule = Rule("entmax_alpha", "1.0 is the softmax, 2.0 sparsemax", Interval(1, 10), 1.0)
    elementwise = True

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        changed = NumericProcessor.__call__(self, logits, context)
        if self.min_tokens_to_keep == 1:
            return changed
        worst = logits.topk(min(self.min_tokens_to_keep, logits.shape[-1])).values[:, -1:]
        revived = (logits >= worst) & (logits > -torch.inf) & (changed == -torch.inf)
        return changed.masked_fill(revived, _FAINTEST)

    def apply(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        alpha = self.tensor(logits).double()
        power = (alpha - 1).clamp(min=1e-9)
        scaled = (logits.double() - logits.amax(dim=-1, keepdim=True)) * power  # at most 0
        low, high = torch.full_like(scaled[:, :1], -1.0), torch.zeros_like(scaled[:, :1])
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            mass = (scaled - middle).clamp(min=0).pow(1 / power).sum(dim=-1, keepdim=True)
            low, high = torch.where(mass >= 1, middle, low), torch.where(mass >= 1, high, middle)
        changed = ((scaled - low).clamp(min=0).log() / power).to(logits.dtype)
        return torch.where(alpha == 1, logits, changed)


@dataclass(frozen=True)
class AveragedXTC(Shape):
    """Moves probability from the most probable tokens to the least probable one above a threshold.

    XTC ("exclude top choices") removes, with some probability, all tokens of at least the threshold but the
    least probable of them. This is its mean, p' = (1 - x) p + x p_cut: the same law for each token, without a
    coin (exllamav3). Where fewer than two tokens reach the threshold nothing changes.

    Args:
        probability: x, of the removal, in [0, 1].
        threshold: in (0, 0.5].
    """

    probability: float
    threshold: float = 0.1
    parameter = "averaged_xtc"

    def __post_init__(self) -> None:
        self._checked(probability=_SHARE, threshold=Interval(0, 0.5, open_low=True))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        probabilities = logits.softmax(dim=-1)
        high = probabilities >= self.threshold
        least = torch.where(high, logits, torch.inf).amin(dim=-1, keepdim=True)
        removed = high & (logits > least) & (high.sum(dim=-1, keepdim=True) > 1)
        rest = probabilities.masked_fill(removed, 0.0)
        cut = rest / rest.sum(dim=-1, keepdim=True)
        mixed = (probabilities + self.probability * (cut - probabilities)).log()
        return torch.where(removed.any(dim=-1, keepdim=True), mixed, logits)


def entropy(logits: Tensor) -> Tensor:
    """(B, V) -> (B, 1), in nats."""
    surprise: Tensor = torch.special.entr(logits.softmax(dim=-1))
    return surprise.sum(dim=-1, keepdim=True)
