"""Beam search that draws its candidates instead of taking the best: several good sequences that vary.

P prompts, N beams, C candidates, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from minitx.decoding.parameters import Parameter
from minitx.decoding.processors.chain import Chain
from minitx.decoding.processors.truncation import keeping
from minitx.decoding.request import GenerationRequest
from minitx.decoding.samplers.counter_rng import CounterGumbel
from minitx.decoding.samplers.sample import MultinomialSampler, Sample
from minitx.decoding.search.base import least_choices
from minitx.decoding.search.beam import Beam
from minitx.decoding.search.state import BeamState
from minitx.device import constant
from minitx.validation import ArgumentValueError

_LARGEST_MULTINOMIAL = 2**24  # categories that torch.multinomial draws from


@dataclass(frozen=True, kw_only=True, repr=False)
class BeamSample(Beam, Sample):
    """Beam search whose candidates are drawn, without replacement, with probabilities softmax(their sums).

    The sums are those of whole sequences, so an improbable beam is hardly ever continued. This is a
    heuristic, as in transformers (num_beams with do_sample): no distribution of sequences is known from which
    it would draw. It has the fields of `Beam` and of `Sample`; each filter keeps at least one token more than
    there are end and stop tokens, and at least 2, so that a beam can continue.

    With `generator` candidates are those of transformers with the same generator. With `seed` the candidates
    of a prompt depend on its seed and ids alone, not on the batch.
    """

    def adapt(self, request: GenerationRequest) -> GenerationRequest:
        """Also lets each filter keep enough tokens for a beam to continue."""
        least = least_choices(request)
        chain = (keeping(processor, least) for processor in request.chain.processors)
        request = super().adapt(replace(request, chain=Chain(*chain)))
        choices = self.num_beams * request.vocab_size
        if isinstance(request.sampler, MultinomialSampler) and choices > _LARGEST_MULTINOMIAL:
            expected = f"at most {_LARGEST_MULTINOMIAL // request.vocab_size} with generator="
            hint = f"torch.multinomial draws from at most {_LARGEST_MULTINOMIAL:,} categories; or use seed="
            raise ArgumentValueError("num_beams", self.num_beams, expected, hint)
        return request

    def select(self, sums: Tensor, state: BeamState) -> tuple[Tensor, Tensor]:
        """Draws; see `Beam.select`."""
        sampler, count = state.request.sampler, state.record.width
        if isinstance(sampler, MultinomialSampler):
            # A prompt that is done has no beams; its draws are ignored, but must be possible.
            weights = torch.softmax(sums, dim=-1).nan_to_num(nan=1.0)
            places = torch.multinomial(weights, count, generator=sampler.generator)
        else:
            assert isinstance(sampler, CounterGumbel), "a strategy that draws has one of the two"
            rows = constant(tuple(state.prompts), torch.long, sums.device)
            noise = CounterGumbel(sampler.keys[rows]).noise(sums.shape[-1], state.length - 1)
            places = (sums + noise).topk(count).indices
        return sums.gather(1, places), places

    def _check(self) -> None:
        super()._check()
        if isinstance(self.temperature, tuple) and 0.0 in self.temperature:
            hint = "temperature 0 leaves each beam a single continuation; use Beam(...) for that prompt"
            raise ArgumentValueError("temperature", self.temperature, "above 0 for every prompt", hint)

    def _make(self, name: str, declared: Parameter, value: Any) -> Any:
        return keeping(super()._make(name, declared, value), 2)
