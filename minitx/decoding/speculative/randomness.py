"""Independent sources of randomness for the model, the draft and the acceptance.

Speculative sampling is exact only if the uniform numbers that accept tokens are independent of the noise that
drew them. With a seed, every stream is a counter-based generator with keys of its own, so that a row's tokens
do not depend on the batch; with a `torch.Generator` all streams draw from it one after the other.

R rows, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from minitx.decoding.samplers.base import Argmax, Sampler
from minitx.decoding.samplers.counter_rng import CounterGumbel
from minitx.decoding.samplers.sample import MultinomialSampler

Stream = Literal["model", "draft", "accept", "residual"]
# Combined with a row's key; the stream "model" has the key itself, which is that of plain sampling.
_STREAMS: dict[str, int] = {
    "model": 0,
    "draft": 0x3C6EF372FE94F82B,
    "accept": 0x510E527FADE682D1,
    "residual": 0x1F83D9ABFB41BD6B,
}


@dataclass(frozen=True)
class Randomness:
    """The random numbers of a call, per row.

    Attributes:
        keys: (R,) long, from `row_keys`; None without a seed.
        generator: on the device of the logits; None with a seed. Without either, nothing is drawn: the most
            probable token is taken.
    """

    keys: Tensor | None = None
    generator: torch.Generator | None = None

    @classmethod
    def of(cls, sampler: Sampler) -> Self:
        """Returns the randomness of the sampler of a strategy."""
        if isinstance(sampler, CounterGumbel):
            return cls(keys=sampler.keys)
        return cls(generator=sampler.generator) if isinstance(sampler, MultinomialSampler) else cls()

    @property
    def draws(self) -> bool:
        """Whether tokens are drawn, and not the most probable ones taken."""
        return self.keys is not None or self.generator is not None

    @property
    def per_row(self) -> bool:
        """Whether the numbers of a row do not depend on the other rows."""
        return self.generator is None

    def select(self, rows: Tensor) -> Randomness:
        """Keeps these rows, (R',) long, in this order."""
        return self if self.keys is None else replace(self, keys=self.keys[rows])

    def sampler(self, stream: Stream) -> Sampler:
        """Returns a sampler of logits (R, V) at a counter, an integer or (R,)."""
        if self.keys is not None:
            return CounterGumbel(self.keys ^ _STREAMS[stream])
        return Argmax() if self.generator is None else MultinomialSampler(self.generator)

    def uniform(self, counter: Tensor) -> Tensor:
        """Returns float64 numbers in [0, 1) that accept tokens: counters (R,) -> (R,)."""
        if self.keys is not None:
            return CounterGumbel(self.keys ^ _STREAMS["accept"]).uniform(counter)
        device = counter.device
        return torch.rand(counter.shape, generator=self.generator, dtype=torch.float64, device=device)
