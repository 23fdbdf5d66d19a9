"""Sampling: each token is drawn from the processed distribution.

Both samplers run a race: token i gets the arrival time E_i / p_i, where the E_i are independent draws of an
exponential distribution; the token that arrives first is i with probability p_i. They differ in the source of
randomness:

- `MultinomialSampler` draws from a `torch.Generator`, as `torch.multinomial` does internally: the same
  generator gives the same tokens. The draws of a row depend on the other rows.
- `CounterGumbel` (counter_rng.py) computes it from the row's key, the position and the token id: a row gets
  the same tokens alone, in a batch, at another index, and whatever was drawn before.

B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minitx.decoding.parameters import Integers, Numbers, parameter
from minitx.decoding.processors.temperature import Temperature
from minitx.decoding.processors.truncation import Epsilon, Eta, MinP, TopH, TopK, TopP, Typical
from minitx.decoding.samplers.base import Sampler, Seed
from minitx.decoding.samplers.counter_rng import CounterGumbel, row_keys
from minitx.decoding.strategy import ORDERS, Order, Strategy
from minitx.validation import ArgumentValueError, check_choice


@dataclass(frozen=True, kw_only=True, repr=False)
class Sample(Strategy):
    """Draws each token from the model's distribution, as changed by the fields.

    It also has the fields of every strategy: help(minitx.decoding.Strategy) documents them.
    """

    temperature: Numbers = parameter(
        Temperature,
        off=1.0,
        per_row=True,
        help="divides the logits; below 1 is less random, above 1 more; 1: off. In a list, 0 makes its row "
        "greedy",
        metavar="X",
    )
    top_h: Numbers | None = parameter(
        TopH,
        off=None,
        per_row=True,
        help="keep the most probable tokens with at most X of the entropy, from 0 to 1 (arXiv:2509.02510)",
        metavar="X",
    )
    top_k: Integers = parameter(
        TopK,
        off=0,
        per_row=True,
        help="keep the K most probable tokens; 0: all (arXiv:1805.04833)",
        metavar="K",
    )
    top_p: Numbers = parameter(
        TopP,
        off=1.0,
        per_row=True,
        help="keep the fewest most probable tokens of total probability P; 1: all (arXiv:1904.09751)",
        metavar="P",
    )
    min_p: Numbers = parameter(
        MinP,
        off=0.0,
        per_row=True,
        help="drop tokens below P times the highest probability; 0: off (arXiv:2407.01082)",
        metavar="P",
    )
    typical_p: Numbers = parameter(
        Typical,
        off=1.0,
        per_row=True,
        help="keep the tokens whose surprise is nearest to the entropy, of total probability P; 1: all "
        "(arXiv:2202.00666)",
        metavar="P",
    )
    epsilon_cutoff: Numbers = parameter(
        Epsilon,
        off=0.0,
        per_row=True,
        help="drop tokens less probable than P, such as 3e-4; 0: off (arXiv:2210.15191)",
        metavar="P",
    )
    eta_cutoff: Numbers = parameter(
        Eta,
        off=0.0,
        per_row=True,
        help="as epsilon_cutoff, but less strict where the entropy is high; 0: off (arXiv:2210.15191)",
        metavar="P",
    )
    order: Order = parameter(
        None,
        off="transformers",
        help='order of the steps: "transformers", "vllm" (min_p before the other filters) or "llama.cpp" '
        "(temperature after them)",
        metavar="NAME",
    )

    def sampler(
        self,
        prompts: Sequence[Sequence[int]],
        num_samples: int = 1,
        *,
        seed: Seed | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> Sampler:
        """Returns the sampler of a call; see `Strategy.sampler`. Without a seed, the seed is random."""
        if generator is not None and seed is not None:
            hint = "they are two sources of randomness"
            raise ArgumentValueError("seed", seed, "left out if generator= is passed", hint)
        if generator is not None:
            return self._sampler_from(generator, len(prompts), num_samples)
        seed = int(torch.randint(2**62, ())) if seed is None else seed
        return self._seeded_sampler(seed, prompts, num_samples, device)

    def _sampler_from(self, generator: torch.Generator, num_prompts: int, num_samples: int) -> Sampler:
        return MultinomialSampler(generator)

    def _seeded_sampler(
        self, seed: Seed, prompts: Sequence[Sequence[int]], num_samples: int, device: torch.device | str
    ) -> Sampler:
        return CounterGumbel(row_keys(seed, prompts, num_samples, device))

    def _check(self) -> None:
        check_choice("order", self.order, ORDERS)
        super()._check()


class MultinomialSampler:
    """Samples with a generator; the tokens equal those of `torch.multinomial`.

    They are equal bit for bit: `torch.multinomial(softmax(logits, -1), 1, generator=generator)` runs this
    race too, after checks that synchronise the device.

    Args:
        generator: on the device of the logits; None for torch's global one.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator

    def __call__(self, logits: Tensor, position: int | Tensor) -> Tensor:
        """(B, V) -> (B,)."""
        probabilities = torch.softmax(logits, dim=-1)
        times = torch.empty_like(probabilities).exponential_(1, generator=self.generator)
        return probabilities.div_(times).argmax(dim=-1)
