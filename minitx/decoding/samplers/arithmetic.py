"""Arithmetic sampling: the samples of a prompt are spread evenly over what the model would say.

Vilnis et al. 2023, "Arithmetic Sampling: Parallel Diverse Decoding for Large Language Models",
arXiv:2210.15458. All texts lie side by side on the interval from 0 to 1, each as wide as it is probable,
in the order of a dictionary:

    0         0.3            0.8     1
    |    a     |      b       |  c   |      first token
    | aa | ab  | ba |   bb    | ...         second token

A number of the interval, a code, is a text: it says which token comes first, and its place within that
token's part is the code of what follows. A uniform code is a draw from the model. The N codes of a prompt
are one uniform code and what lies 1/N, 2/N, ... behind it on the circle: each alone is a draw from the
model, and together they leave no part of the interval empty. A beginning of probability q is that of N q
samples, rounded up or down; independent draws may all take the same.

Once a beginning of probability q has N q < 1, its part holds one code at most, whose place in there
is uniform whatever the others are: from then on each token gets a fresh uniform number for its code. The
paper goes on with the old one. But each token makes the rounding errors of the logits 1 / p times as large,
so that after some twenty tokens a code would consist of them alone, and be another one beside other rows.

B rows, V vocabulary, N samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minitx.decoding.samplers.select import CounterGumbel, row_keys
from minitx.decoding.strategy import Sample

_LARGEST = 1 - 2.0**-53  # the largest float64 below 1
# A row is taken to be alone if N q is below this: with 1, rounding would decide where tokens are alike.
_ALONE = 0.99

# The position -> (B,) float64 in [0, 1), one independent number for each row.
Uniform = Callable[[int | Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, repr=False)
class ArithmeticSample(Sample):
    """Draws as `Sample` does, but so that the samples of a prompt differ as much as draws can.

    Each row alone is an exact draw; only how the `num_samples` rows of a prompt go together is another.
    Averages over them have a smaller variance, and fewer of them are the same.
    """


class ArithmeticCode:
    """Takes the token that a row's code points at, and goes on with the code within that token's part.

    It counts along with the loop: position 0 begins anew, the others follow one another.

    Args:
        codes: (B,) float64 in [0, 1); `spread` makes them.
        num_samples: N, the rows per prompt.
        fresh: the codes of rows that have their part of the interval for themselves.
    """

    def __init__(self, codes: Tensor, num_samples: int, fresh: Uniform) -> None:
        self._first = self._codes = codes
        self._num_samples = num_samples
        self._fresh = fresh
        self._widths = torch.ones_like(codes)  # the probabilities of what the rows begin with

    def __call__(self, logits: Tensor, position: int | Tensor) -> Tensor:
        """(B, V) -> (B,)."""
        begins = torch.as_tensor(position, device=logits.device) == 0
        width = torch.where(begins, 1.0, self._widths)
        code = torch.where(begins, self._first, self._codes)
        code = torch.where(width * self._num_samples < _ALONE, self._fresh(position), code)
        ends = logits.softmax(dim=-1, dtype=torch.float64).cumsum(dim=-1)  # of each token's part, (B, V)
        place = code[:, None] * ends[:, -1:]  # rounding makes the last end a little more or less than 1
        # The first token that ends behind the place: never one without a part.
        token = torch.searchsorted(ends, place, right=True).clamp_(max=logits.shape[-1] - 1)
        end = ends.gather(1, token)
        start = ends.gather(1, (token - 1).clamp(min=0)).where(token > 0, 0.0)
        self._codes = ((place - start) / (end - start)).squeeze(1).clamp(0, _LARGEST)
        self._widths = width * ((end - start) / ends[:, -1:]).squeeze(1)
        return token.squeeze(1)


def spread(shift: Tensor, num_samples: int) -> Tensor:
    """The codes of N samples for each prompt: (prompts,) in [0, 1) -> (prompts * N,).

    The n-th code of a prompt is its shift plus n / N, on a circle of length 1 (section 4.1, but with N
    equal steps in place of N + 1).
    """
    steps = torch.arange(num_samples, dtype=torch.float64, device=shift.device) / num_samples
    return ((shift.double()[:, None] + steps) % 1).flatten()


def code_of(
    seed: int | Sequence[int] | Tensor,
    prompts: Sequence[Sequence[int]],
    num_samples: int,
    device: torch.device | str = "cpu",
) -> ArithmeticCode:
    """The selector of a call: a prompt's samples depend on its seed and ids, and not on the batch.

    Args:
        seed, prompts, num_samples, device: as for `row_keys`.

    Raises:
        TypeError, ValueError: as `row_keys`.
    """
    shift = _Uniforms(row_keys(seed, prompts, 1, device)).at(0)
    fresh = _Uniforms(row_keys(seed, prompts, num_samples, device))
    # The first sample has its prompt's key; position 0 is for the shift.
    return ArithmeticCode(spread(shift, num_samples), num_samples, lambda position: fresh.at(position + 1))


def code_from(generator: torch.Generator, prompts: int, num_samples: int) -> ArithmeticCode:
    """The selector of a call that draws from a generator, on the device of the logits."""

    def uniforms(count: int) -> Tensor:
        return torch.rand(count, generator=generator, dtype=torch.float64, device=generator.device)

    codes = spread(uniforms(prompts), num_samples)
    return ArithmeticCode(codes, num_samples, lambda _: uniforms(len(codes)))


class _Uniforms(CounterGumbel):
    """Uniform numbers in place of noise for tokens."""

    def at(self, position: int | Tensor) -> Tensor:
        """One float64 in [0, 1) for each (key, position), (B,)."""
        start, stride = self._counters(position)  # 32 random bits, and 31 above one that is set
        return (start * 2**21 + (stride >> 11)).double() * 2.0**-53
