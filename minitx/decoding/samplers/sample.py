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

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from minitx.decoding.parameters import Integers, Numbers, parameter
from minitx.decoding.presets.orders import DEFAULT, LIKE, ORDERS
from minitx.decoding.processors import feedback, reshape, thresholds
from minitx.decoding.processors.temperature import Temperature
from minitx.decoding.processors.truncation import Epsilon, Eta, MinP, TopH, TopK, TopP, Typical
from minitx.decoding.processors.xtc import XTC
from minitx.decoding.samplers.base import Sampler, SamplerArguments, Seed
from minitx.decoding.samplers.counter_rng import CounterGumbel, row_keys
from minitx.decoding.strategy import Strategy
from minitx.validation import ArgumentValueError, check_choice

# At most one field of each group.
_EXCLUSIVE = (("mirostat", "mirostat_v1", "adaptive_p"), ("xtc", "averaged_xtc"))
_NOT_IN_SEARCHES = {
    "xtc": "its coin would decide for all beams of a step; averaged_xtc has the same law without a coin",
    "adaptive_p": "its logits are no log-probabilities, which a search sums; mirostat can be used",
}


@dataclass(frozen=True, kw_only=True, repr=False)
class Sample(Strategy):
    """Draws each token from the model's distribution, as changed by the fields.

    It also has the fields of every strategy: help(minitx.decoding.Strategy) documents them.
    """

    temperature: Numbers = parameter(
        Temperature,
        "divides the logits; below 1 is less random, above 1 more; 1: off. In a list, 0 makes its row greedy",
    )
    top_h: Numbers | None = parameter(
        TopH, "keep the most probable tokens with at most X of the entropy, from 0 to 1 (arXiv:2509.02510)"
    )
    top_k: Integers = parameter(TopK, "keep the K most probable tokens; 0: all (arXiv:1805.04833)", "K")
    top_p: Numbers = parameter(
        TopP, "keep the fewest most probable tokens of total probability P; 1: all (arXiv:1904.09751)", "P"
    )
    min_p: Numbers = parameter(
        MinP,
        "drop tokens below P times the highest probability; 0: off (arXiv:2407.01082)",
        "P",
    )
    typical_p: Numbers = parameter(
        Typical,
        "keep tokens of typical surprise, of total probability P; 1: all (arXiv:2202.00666)",
        "P",
    )
    epsilon_cutoff: Numbers = parameter(
        Epsilon, "drop tokens less probable than P, such as 3e-4; 0: off (arXiv:2210.15191)", "P"
    )
    eta_cutoff: Numbers = parameter(
        Eta, "as epsilon_cutoff, but less strict where the entropy is high; 0: off (arXiv:2210.15191)", "P"
    )
    top_n_sigma: Numbers = parameter(
        thresholds.TopNSigma,
        "keep logits at most X standard deviations below the largest; 0: all (arXiv:2411.07641)",
    )
    top_a: Numbers = parameter(
        thresholds.TopA, "drop tokens below P times the square of the highest probability; 0: off", "P"
    )
    tfs: Numbers = parameter(
        thresholds.TailFree, "cut where the sorted probabilities become flat, at P of the bends; 1: off", "P"
    )
    p_less: Numbers = parameter(
        thresholds.PLess,
        "1: drop tokens below the probability that two draws are equal; 0: off (arXiv:2509.23234)",
        "P",
    )
    averaged_xtc: tuple[float, ...] | None = parameter(
        reshape.AveragedXTC.from_numbers,
        "exclude the top choices: 0.5,0.1 moves half of their probability to the least of those above 0.1",
        "P,THRESHOLD",
    )
    dynamic_temperature: tuple[float, ...] | None = parameter(
        reshape.DynamicTemperature.from_numbers,
        "0.5,1.5: a temperature between these that grows with the entropy",
        "LOW,HIGH",
    )
    entropy_temperature: tuple[float, ...] | None = parameter(
        reshape.EntropyTemperature.from_numbers,
        "1.0,0.5: the temperature T, lower where the entropy is low (arXiv:2403.14541)",
        "T,THETA",
    )
    smoothing: tuple[float, ...] | None = parameter(
        reshape.Smoothing.from_numbers,
        "0.3,1.0: bends the logits, so that good tokens come closer and bad ones go",
        "FACTOR,CURVE",
    )
    skew: Numbers = parameter(reshape.Skew, "above 0 favours the tail, below 0 the best tokens; 0: off")
    entmax_alpha: Numbers = parameter(
        reshape.Entmax, "from 1, the softmax, to 2, sparsemax: ever fewer tokens (arXiv:2004.02644)", "ALPHA"
    )
    xtc: tuple[float, ...] | None = parameter(
        XTC.from_numbers,
        "exclude the top choices: 0.5,0.1 removes, at every other step, all tokens above 0.1 but the least",
        "P,THRESHOLD",
    )
    mirostat: tuple[float, ...] | None = parameter(
        feedback.Mirostat.from_numbers,
        "5,0.1: a mean surprise of 5 bits per token (arXiv:2007.14966)",
        "TAU,ETA",
    )
    mirostat_v1: tuple[float, ...] | None = parameter(
        feedback.MirostatV1.from_numbers, "the same by a top-k, from an estimate on M tokens", "TAU,ETA,M"
    )
    adaptive_p: tuple[float, ...] | None = parameter(
        feedback.AdaptiveP.from_numbers,
        "0.5,0.9: the chosen tokens have a mean probability of 0.5; needs a filter before it",
        "TARGET,DECAY",
    )
    order: str = parameter(None, f"whose order of steps: {', '.join(ORDERS)}", "NAME", off=DEFAULT)

    _order: ClassVar[str] = "order"
    _keyed: ClassVar[bool] = True

    @classmethod
    def like(cls, library: str, **changes: Any) -> Self:
        """Returns the strategy with the default values and the order of another library.

        Args:
            library: "transformers" (with do_sample=True), "vllm", "llama.cpp", "ollama", "exllamav2" or
                "text-generation-webui". Values that a checkpoint states are not part of it; these are
                strategy="checkpoint".
            **changes: fields with other values.

        Raises:
            TypeError: an unknown field.
            ArgumentValueError: another library, or a value that the field refuses.
        """
        check_choice("library", library, tuple(LIKE))
        return cls(**{**LIKE[library], **changes})

    def _check(self) -> None:
        super()._check()
        for group in _EXCLUSIVE:
            used = [name for name in group if getattr(self, name) is not None]
            if len(used) > 1:
                hint = "they are two ways to the same end"
                raise ArgumentValueError(used[1], getattr(self, used[1]), f"left out beside {used[0]}", hint)
        for name, hint in _NOT_IN_SEARCHES.items():
            if self.searches and getattr(self, name) is not None:
                kind = type(self).__name__
                raise ArgumentValueError(name, getattr(self, name), f"left out of {kind}", hint)

    def _sampler(self, call: SamplerArguments) -> Sampler:
        keyed = None if self.watermark is None else self.watermark.sampler(call)
        if keyed is not None:
            return keyed
        if call.generator is None:
            seed = int(torch.randint(2**62, ())) if call.seed is None else call.seed
            return self._from_seed(seed, call)
        if call.seed is not None:
            hint = "they are two sources of randomness"
            raise ArgumentValueError("seed", call.seed, "left out if generator= is passed", hint)
        return self._from_generator(call.generator, call)

    def _from_generator(self, generator: torch.Generator, call: SamplerArguments) -> Sampler:
        return MultinomialSampler(generator)

    def _from_seed(self, seed: Seed, call: SamplerArguments) -> Sampler:
        return CounterGumbel(row_keys(seed, call.prompts, call.num_samples, call.device))


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
