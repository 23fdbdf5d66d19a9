"""Arithmetic sampling: the samples of a prompt are spread evenly over the model's distribution.

Vilnis et al. 2023, "Arithmetic Sampling: Parallel Diverse Decoding for Large Language Models",
arXiv:2210.15458. All outputs partition the interval from 0 to 1 in lexicographic order, each as wide as it is
probable:

    0         0.3            0.8     1
    |    a     |      b       |  c   |      first token
    | aa | ab  | ba |   bb    | ...         second token

A number of the interval, a code, determines an output: it selects the first token, and its relative
position within that token's part is the code of the rest. A uniform code is a draw from the model. The N
codes of a prompt are one uniform code and its shifts by 1/N, 2/N, ... on the circle: each alone is a draw
from the model, and together they leave no part of the interval empty. A prefix of probability q gets N q
samples, rounded up or down; independent draws may all have the same one.

Once a prefix of probability q has N q < 1, its part contains at most one code, whose position in it is
uniform independently of the others: from then on each token gets a fresh uniform number as its code. The
paper continues with the old one. But each token amplifies the rounding errors of the logits by 1 / p, so that
after some twenty tokens a code would consist of them alone, and depend on the other rows of the batch.

B rows, V vocabulary, N samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from minitx.decoding.samplers.base import Device, Sampler, SamplerArguments, Seed
from minitx.decoding.samplers.counter_rng import CounterGumbel, row_keys
from minitx.decoding.samplers.sample import Sample
from minitx.device import as_tensor

_LARGEST = 1 - 2.0**-53  # the largest float64 below 1
# A row is alone in its part if N q is below this: with 1, rounding would decide for equally probable tokens.
_ALONE = 0.99

# position -> (B,) float64 in [0, 1), one independent number for each row.
Uniform = Callable[[int | Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, repr=False)
class ArithmeticSample(Sample):
    """Draws as `Sample` does, but so that the samples of a prompt differ as much as draws can.

    Each row alone is an exact draw; only the joint distribution of the `num_samples` rows of a prompt
    differs. Averages over them have a smaller variance, and fewer of them are equal.
    """

    def _from_generator(self, generator: torch.Generator, call: SamplerArguments) -> Sampler:
        return ArithmeticCode.from_generator(generator, len(call.prompts), call.num_samples)

    def _from_seed(self, seed: Seed, call: SamplerArguments) -> Sampler:
        return ArithmeticCode.from_seed(seed, call.prompts, call.num_samples, call.device)


class ArithmeticCode:
    """Takes the token that contains a row's code, and keeps the code's relative position in its part.

    It has a state: positions must be consecutive, and 0 starts again.

    Args:
        codes: (B,) float64 in [0, 1), from `spread`.
        num_samples: N, the rows per prompt.
        fresh: codes of rows that are alone in their part of the interval.

    Attributes:
        keys: (B,) long, of the rows; None with a generator.
        generator: None with a seed.
    """

    keys: Tensor | None = None
    generator: torch.Generator | None = None

    def __init__(self, codes: Tensor, num_samples: int, fresh: Uniform) -> None:
        self._first = self._codes = codes
        self._num_samples = num_samples
        self._fresh = fresh
        self._widths = torch.ones_like(codes)  # the probabilities of the rows' prefixes

    @classmethod
    def from_seed(
        cls, seed: Seed, prompts: Sequence[Sequence[int]], num_samples: int, device: Device = "cpu"
    ) -> Self:
        """The sampler of a call: a prompt's samples depend on its seed and ids, and not on the batch.

        Takes the arguments of `row_keys`, and raises its errors.
        """
        shift = CounterGumbel(row_keys(seed, prompts, 1, device)).uniform(0)
        fresh = CounterGumbel(row_keys(seed, prompts, num_samples, device))
        # The first sample has the key of its prompt, whose position 0 is used by the shift.
        code = cls(spread(shift, num_samples), num_samples, lambda position: fresh.uniform(position + 1))
        code.keys = fresh.keys
        return code

    @classmethod
    def from_generator(cls, generator: torch.Generator, num_prompts: int, num_samples: int) -> Self:
        """The sampler of a call that draws from a generator, on the device of the logits."""

        def _draw(count: int) -> Tensor:
            return torch.rand(count, generator=generator, dtype=torch.float64, device=generator.device)

        codes = spread(_draw(num_prompts), num_samples)
        code = cls(codes, num_samples, lambda _: _draw(len(codes)))
        code.generator = generator
        return code

    def __call__(self, logits: Tensor, position: int | Tensor) -> Tensor:
        """(B, V) -> (B,)."""
        is_first = as_tensor(position, logits.device) == 0
        width = torch.where(is_first, 1.0, self._widths)
        code = torch.where(is_first, self._first, self._codes)
        code = torch.where(width * self._num_samples < _ALONE, self._fresh(position), code)
        ends = logits.softmax(dim=-1, dtype=torch.float64).cumsum(dim=-1)  # of each token's part, (B, V)
        place = code[:, None] * ends[:, -1:]  # the last end is 1 up to rounding
        # The first token that ends after the place: never one of width 0.
        token = torch.searchsorted(ends, place, right=True).clamp_(max=logits.shape[-1] - 1)
        end = ends.gather(1, token)
        start = ends.gather(1, (token - 1).clamp(min=0)).where(token > 0, 0.0)
        self._codes = ((place - start) / (end - start)).squeeze(1).clamp(0, _LARGEST)
        self._widths = width * ((end - start) / ends[:, -1:]).squeeze(1)
        return token.squeeze(1)


def spread(shift: Tensor, num_samples: int) -> Tensor:
    """Returns the codes of N samples per prompt: shifts (prompts,) in [0, 1) -> (prompts * N,).

    The n-th code of a prompt is its shift plus n / N, on a circle of length 1 (section 4.1, but with N
    equal steps in place of N + 1).
    """
    steps = torch.arange(num_samples, dtype=torch.float64, device=shift.device) / num_samples
    return ((shift.double()[:, None] + steps) % 1).flatten()
