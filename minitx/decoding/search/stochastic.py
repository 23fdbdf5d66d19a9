"""Stochastic beam search: draws whole texts from the model without replacement, no text twice.

Kool, van Hoof and Welling 2019, "Stochastic Beams and Where to Find Them: The Gumbel-Top-k Trick for Sampling
Sequences Without Replacement", arXiv:1903.06059. Give every text its log-probability plus independent Gumbel
noise: the k largest of these numbers are of k texts drawn one after the other without replacement. A beam
search finds them without looking at all texts. The largest number below a beginning of probability p is
itself Gumbel noise plus log p; so beginnings are drawn first, and the numbers of their continuations under
the condition that the largest of them is the beginning's (section 4.1).

A text that is drawn so is in the sample more often than its probability says. With the threshold kappa, the
number of the best text that is not in the sample, a text of log-probability l is in it with probability
q = 1 - exp(-exp(l - kappa)), and the sum over the sample of f(text) exp(l) / q estimates the mean of f
without bias (section 4.2).

P prompts, N beams, V vocabulary, C children of a beam, R = P * N rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from minitx.decoding.loop import Call
from minitx.decoding.output import Result
from minitx.decoding.processors.chain import unusable
from minitx.decoding.samplers.counter_rng import CounterGumbel
from minitx.decoding.samplers.sample import MultinomialSampler, Sample
from minitx.decoding.search.base import Run, Search
from minitx.decoding.search.record import Link
from minitx.decoding.search.rows import BeamHypotheses


@dataclass(frozen=True, kw_only=True, repr=False)
class StochasticBeam(Search, Sample):
    """Draws `num_samples` different texts per prompt from the distribution of `Sample` with the same fields.

    The order of a prompt's rows is that in which they were drawn. `scores` are the log-probabilities with
    their noise; `log_weights` is ln(p / q) of each row, for estimates: the sum over a prompt's rows of
    exp(log_weight) * f(text) has the mean of f as its expectation. (A text that has `max_new_tokens` without
    an end counts as a text.)

    Attributes:
        num_beams: N, at least one more than num_samples: the first text that is not in the sample gives the
            threshold. More cost time and change nothing.
    """

    def search(self, call: Call) -> Result:
        """Runs the call; raises as `Search.search`."""
        result = super().search(call)
        if call.max_new_tokens > 0:
            return result
        # The empty text, as often as asked for; the weights of a prompt's rows sum to 1.
        weight = -math.log(call.num_samples)
        return replace(result, log_weights=[weight] * (len(call.prompts) * call.num_samples))

    def begin(self, call: Call) -> _Run:
        return _Run(self, call)

    def check_call(self, call: Call) -> None:
        super().check_call(call)
        if call.num_samples >= self.num_beams:
            raise ValueError(
                f"num_samples={call.num_samples} texts need num_beams={call.num_samples + 1} or more: the "
                "beam that is left gives the threshold of their weights."
            )


class _Run(Run[StochasticBeam]):
    """One search. A beam or text that does not exist has the number -inf."""

    def __init__(self, strategy: StochasticBeam, call: Call) -> None:
        self._beams = strategy.num_beams
        super().__init__(strategy, call, self._beams)
        shape = (len(call.prompts), self._beams)
        self._logp = torch.zeros(shape, dtype=torch.float64, device=self.device)
        self._numbers = torch.full_like(self._logp, -torch.inf)  # of the beams
        self._numbers[:, :1] = self._noise(1, 0)
        self._pool = BeamHypotheses(*shape, self._numbers)  # the numbers of finished texts

    def step(self) -> None:
        before = self._numbers > -torch.inf
        processed = self.rows.processed(self.rows.logits)
        broken = unusable(processed) & before.flatten()
        if bool(broken.any()):
            self.rows.raise_for_empty_rows(broken)
        logp = processed.double().log_softmax(dim=-1).view(*before.shape, -1) + self._logp[:, :, None]
        numbers, index = self._children(logp)  # (P, N), the best first
        end = self.ends(index % logp.shape[-1])
        if self.length == self.call.max_new_tokens:
            end = torch.ones_like(end)
        # A child that N texts and better children surpass is not in the sample, whatever becomes of it.
        behind = torch.arange(self._beams, device=self.device)
        surpassed = (self._pool.scores[:, None] > numbers[:, :, None]).sum(dim=-1) + behind >= self._beams
        scores, numbers = numbers, numbers.masked_fill(surpassed, -torch.inf)
        self._pool.add(numbers.masked_fill(~end, -torch.inf), self.codes)
        self._numbers, kept = numbers.masked_fill(end, -torch.inf).topk(self._beams)
        sums = logp.flatten(1).gather(1, index)
        self.record(processed, index, sums, scores, end, self._numbers, kept, self._pool.codes)
        self._logp = sums.gather(1, self.trace.steps[-1].kept)
        for prompt in (self._numbers[:, 0] == -torch.inf).nonzero().flatten().tolist():
            self.trace.done.setdefault(prompt, len(self.trace.steps))
        if not self.done:
            self.go_on()

    def result(self) -> Result:
        return replace(super().result(), log_weights=self.log_weights(self.found()))

    def hypotheses(self, prompt: int) -> list[tuple[float, int]]:
        """Number and last candidate of each text that was drawn, in their order."""
        return self._pool.of(prompt)

    def log_weights(self, found: list[list[tuple[float, Link]]]) -> list[float]:
        """ln(p / q) of each text that was found."""
        threshold = self._pool.scores[:, self.call.num_samples, None].cpu()
        logp = [
            [self.trace.at(link.step, "sums", prompt)[link.candidate] for _, link in texts]
            for prompt, texts in enumerate(found)
        ]
        above = torch.tensor(logp, dtype=torch.float64) - threshold
        # 1 - exp(-x) is x for an x so small that a float cannot tell.
        log_q = torch.where(above < -40, above, (-torch.expm1(-above.exp())).log())
        weights: list[float] = (torch.tensor(logp, dtype=torch.float64) - log_q).flatten().tolist()
        return weights

    def _children(self, logp: Tensor) -> tuple[Tensor, Tensor]:
        """(P, N, V) log-probabilities -> twice (P, N): the largest numbers of children, and their places.

        A beam's children keep their order under the condition on the largest, so only its best N are asked.
        """
        size, vocab_size = self._beams, logp.shape[-1]
        noisy = logp + self._noise(size * vocab_size, self.length).view_as(logp)
        best, token = noisy.topk(min(size, vocab_size))  # (P, N, C)
        numbers = conditioned(best, self._numbers[:, :, None])
        index = token + torch.arange(size, device=self.device)[:, None] * vocab_size
        if best.shape[-1] < size:  # so that there are N
            numbers = torch.nn.functional.pad(numbers, (0, size - best.shape[-1]), value=-torch.inf)
            index = torch.nn.functional.pad(index, (0, size - best.shape[-1]))
        largest, place = numbers.flatten(1).topk(size)
        return largest, index.flatten(1).gather(1, place)

    def _noise(self, count: int, position: int) -> Tensor:
        """(P, count) Gumbel noise, float64."""
        source, prompts = self.call.sampler, len(self.call.prompts)
        if isinstance(source, MultinomialSampler):
            waiting = torch.empty(prompts, count, dtype=torch.float64, device=self.device)
            return waiting.exponential_(generator=source.generator).log_().neg_()
        assert isinstance(source, CounterGumbel), "a strategy that draws gets a source of numbers"
        return source.noise(count, position).double()


def conditioned(numbers: Tensor, largest: Tensor) -> Tensor:
    """The numbers of children, under the condition that the largest of them is a given one.

    With Z the largest of the numbers and T the given one: -ln(exp(-T) - exp(-Z) + exp(-number)), in the form
    of appendix B.3, which neither overflows nor loses digits.

    Args:
        numbers: (..., C), the largest first; -inf for none.
        largest: (..., 1), -inf for a parent that does not exist.
    """
    below = numbers - numbers[..., :1]  # at most 0
    log1mexp = torch.where(below > -0.7, (-torch.expm1(below)).log(), torch.log1p(-below.exp()))
    v = largest - numbers + log1mexp
    found = largest - v.clamp(min=0) - torch.log1p(torch.exp(-v.abs()))
    # Of the largest v is -inf, which gives T itself.
    return found.masked_fill((numbers == -torch.inf) | (largest == -torch.inf), -torch.inf)
