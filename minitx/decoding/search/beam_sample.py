"""Beam search that draws its candidates instead of taking the best: several good texts, not always the same.

P prompts, N beams, K candidates, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from minitx.decoding.loop import Call
from minitx.decoding.output import Result
from minitx.decoding.processors.base import Processor
from minitx.decoding.processors.chain import Chain
from minitx.decoding.processors.truncation import Filter
from minitx.decoding.samplers.counter_rng import CounterGumbel
from minitx.decoding.samplers.sample import MultinomialSampler, Sample
from minitx.decoding.search.beam import Beam

_MOST_DRAWN_FROM = 2**24  # by torch.multinomial


@dataclass(frozen=True, kw_only=True, repr=False)
class BeamSample(Beam, Sample):
    """Beam search whose candidates are drawn, without replacement, with probabilities softmax(their sums).

    The sums are those of the whole texts, so a beam of small probability is hardly ever continued. This
    is a heuristic, as transformers has it (num_beams with do_sample): no distribution of texts is known from
    which it would draw. It has the fields of `Beam` and of `Sample`; each filter keeps at least one token
    more than there are end and stop tokens, and at least 2, so that a beam can go on.

    With `generator` candidates are those of transformers with the same generator. With `seed` a prompt's
    depend on its seed and ids alone, not on the batch.
    """

    def search(self, call: Call) -> Result:
        """Runs the call; raises as `Search.search`."""
        least = max(2, 1 + len({*call.stop.eos, *call.stop.tokens}))
        filters = (
            replace(p, min_tokens_to_keep=least)
            if isinstance(p, Filter) and p.min_tokens_to_keep > 1  # else of a literal chain
            else p
            for p in call.chain.processors
        )
        return super().search(replace(call, chain=Chain(*filters)))

    def check_call(self, call: Call) -> None:
        super().check_call(call)
        assert call.model.head is not None  # its task says so
        choices = self.num_beams * call.model.head.config.num_labels
        if isinstance(call.sampler, MultinomialSampler) and choices > _MOST_DRAWN_FROM:
            raise ValueError(
                f"num_beams={self.num_beams} offer {choices:,} continuations of a prompt, but with "
                f"generator= torch draws from {_MOST_DRAWN_FROM:,} at most; give seed= instead, or "
                "fewer beams."
            )

    def candidates(
        self, sums: Tensor, count: int, call: Call, prompts: list[int], step: int
    ) -> tuple[Tensor, Tensor]:
        """Draws; see `Beam.candidates`."""
        if isinstance(call.sampler, MultinomialSampler):
            # A prompt without a beam is done, and its draws are not looked at; but they must be possible.
            weights = torch.softmax(sums, dim=-1).nan_to_num(nan=1.0)
            places = torch.multinomial(weights, count, generator=call.sampler.generator)
        else:
            assert isinstance(call.sampler, CounterGumbel), "a strategy that draws gets a source of numbers"
            noise = CounterGumbel(call.sampler.keys[prompts]).noise(sums.shape[-1], step)
            places = (sums + noise).topk(count).indices
        return sums.gather(1, places), places

    def _check(self) -> None:
        super()._check()
        if isinstance(self.temperature, tuple) and 0.0 in self.temperature:
            raise ValueError(
                "temperature=0 for a prompt leaves each beam a single way to go on; search it with Beam(...)."
            )

    def _make(self, name: str, value: Any) -> Processor:
        processor = super()._make(name, value)
        return replace(processor, min_tokens_to_keep=2) if isinstance(processor, Filter) else processor
