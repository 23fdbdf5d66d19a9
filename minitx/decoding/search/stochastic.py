"""Stochastic beam search: draws whole sequences from the model without replacement, none twice.

Kool, van Hoof and Welling 2019, "Stochastic Beams and Where to Find Them: The Gumbel-Top-k Trick for Sampling
Sequences Without Replacement", arXiv:1903.06059. The perturbed log-probability of a sequence is its
log-probability plus independent Gumbel noise: the k sequences with the largest are k draws without
replacement. A beam search finds them without enumerating all sequences. The largest perturbed log-probability
of all continuations of a prefix of probability p is itself Gumbel noise plus log p; so prefixes are drawn
first, and then their continuations, conditioned on their largest being the prefix's (section 4.1).

A sequence drawn in this way is in the sample more often than its probability. With the threshold kappa, the
perturbed log-probability of the best sequence outside the sample, a sequence of log-probability l is in it
with probability q = 1 - exp(-exp(l - kappa)), and the sum over the sample of f(sequence) exp(l) / q is an
unbiased estimate of the mean of f (section 4.2).

P prompts, N beams, V vocabulary, C continuations of a beam, R = P * N rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from minitx.decoding.loop import Observer
from minitx.decoding.output import Event
from minitx.decoding.request import GenerationRequest
from minitx.decoding.samplers.counter_rng import CounterGumbel
from minitx.decoding.samplers.sample import MultinomialSampler, Sample
from minitx.decoding.search.base import Search
from minitx.decoding.search.state import BeamState, Candidates, Kept
from minitx.decoding.session import DecodingSession
from minitx.validation import ArgumentValueError


class _State(BeamState):
    """`sums` are perturbed log-probabilities, float64.

    Attributes:
        log_probs: (P, N) float64, of the beams, without noise.
    """

    dtype = torch.float64
    log_probs: Tensor


@dataclass(frozen=True, kw_only=True, repr=False)
class StochasticBeam(Search, Sample):
    """Draws `num_samples` different sequences per prompt from the distribution of `Sample`, none twice.

    The rows of a prompt are in the order in which they were drawn. `scores` are the perturbed
    log-probabilities; `log_weights` is ln(p / q) of each row, for estimates: the sum over a prompt's rows of
    exp(log_weight) * f(sequence) has the mean of f as its expectation. (A sequence of `max_new_tokens` tokens
    without an end is a sequence too.)

    `num_beams` is at least num_samples + 1: the first sequence outside the sample gives the threshold. More
    cost time and change nothing.
    """

    @torch.inference_mode()
    def run(self, session: DecodingSession, observe: Observer | None = None) -> Iterator[list[Event]]:
        """Also fills the session's log_weights."""
        samples = session.request.num_samples
        # Without tokens, num_samples times the empty sequence; the weights of a prompt's rows sum to 1.
        session.log_weights = [-math.log(samples)] * (len(session.request.prompts) * samples)
        yield from super().run(session, observe)

    def search(self, session: DecodingSession) -> _State:
        """Also computes the log_weights."""
        state: _State = super().search(session)
        if all(len(pairs) >= session.request.num_samples for pairs in state.hypotheses.values()):
            session.log_weights = self._log_weights(state)
        return state

    def begin(self, session: DecodingSession) -> _State:
        """Starts the session with one beam, the empty prefix of log-probability 0."""
        request, beams = session.request, self.num_beams
        session.start(beams)
        state = _State(session, beams, beams)
        state.sums[:, :1] = _noise(request, 1, 0, session.device)
        state.log_probs = torch.zeros_like(state.sums)
        return state

    def propose(self, state: _State) -> Candidates:
        """Selects N continuations; `sums` are log-probabilities, `scores` the perturbed ones.

        Conditioning on the largest keeps the order of a beam's continuations, so only its best N are
        computed.
        """
        size = self.num_beams
        processed = state.session.process(state.session.logits)
        following = processed.double().log_softmax(dim=-1)
        logp = following.view(*state.sums.shape, -1) + state.log_probs[:, :, None]
        vocab_size = logp.shape[-1]
        noise = _noise(state.request, size * vocab_size, state.length, logp.device)
        best, token = (logp + noise.view_as(logp)).topk(min(size, vocab_size))  # (P, N, C)
        perturbed = conditioned(best, state.sums[:, :, None])
        index = token + torch.arange(size, device=logp.device)[:, None] * vocab_size
        padding = (0, size - best.shape[-1])  # to N
        perturbed, index = F.pad(perturbed, padding, value=-torch.inf), F.pad(index, padding)
        largest, place = perturbed.flatten(1).topk(size)
        index = index.flatten(1).gather(1, place)
        candidates = Candidates(processed, index, logp.flatten(1).gather(1, index))
        candidates.scores = largest
        return candidates

    def keep(self, state: _State, candidates: Candidates) -> Kept:
        """Finishes those that end; drops those that N better sequences and candidates surpass."""
        if state.at_limit:
            candidates.ends = torch.ones_like(candidates.ends)
        perturbed, end, size = candidates.scores, candidates.ends, self.num_beams
        better = torch.arange(size, device=perturbed.device)
        surpassed = (state.finished.scores[:, None] > perturbed[:, :, None]).sum(dim=-1) + better >= size
        perturbed = perturbed.masked_fill(surpassed, -torch.inf)
        state.finished.add(perturbed.masked_fill(~end, -torch.inf), state.codes)
        sums, places = perturbed.masked_fill(end, -torch.inf).topk(size)
        beams = Kept(places, sums)
        state.log_probs = candidates.sums.gather(1, beams.rows)
        return beams

    def adapt(self, request: GenerationRequest) -> GenerationRequest:
        """Also checks that a beam is left for the threshold."""
        if request.num_samples >= self.num_beams:
            expected = f"at least {request.num_samples + 1} for num_samples={request.num_samples}"
            hint = "the beam that is left gives the threshold of the weights"
            raise ArgumentValueError("num_beams", self.num_beams, expected, hint)
        return super().adapt(request)

    def _log_weights(self, state: _State) -> list[float]:
        """Returns ln(p / q) of each returned row."""
        samples, record = state.request.num_samples, state.record
        threshold = state.finished.scores[:, samples, None].cpu()
        rows = [
            [record.value(prompt, record.link(code), "sums") for _, code in hypotheses[:samples]]
            for prompt, hypotheses in sorted(state.hypotheses.items())
        ]
        logp = torch.tensor(rows, dtype=torch.float64)
        above = logp - threshold
        # 1 - exp(-x) is x for an x too small for floats to tell them apart.
        log_q = torch.where(above < -40, above, (-torch.expm1(-above.exp())).log())
        weights: list[float] = (logp - log_q).flatten().tolist()
        return weights


def conditioned(perturbed: Tensor, largest: Tensor) -> Tensor:
    """Returns perturbed log-probabilities, conditioned on their largest being `largest`.

    With G a perturbed log-probability, Z the largest of them and T the condition, this is
    -ln(exp(-T) - exp(-Z) + exp(-G)), in the form of appendix B.3, which neither overflows nor loses digits.

    Args:
        perturbed: (..., C), the largest first; -inf for none.
        largest: (..., 1), -inf for a parent that does not exist.
    """
    below = perturbed - perturbed[..., :1]  # at most 0
    log1mexp = torch.where(below > -0.7, (-torch.expm1(below)).log(), torch.log1p(-below.exp()))
    v = largest - perturbed + log1mexp
    result = largest - v.clamp(min=0) - torch.log1p(torch.exp(-v.abs()))
    # Of the largest v is -inf, which gives T itself.
    return result.masked_fill((perturbed == -torch.inf) | (largest == -torch.inf), -torch.inf)


def _noise(request: GenerationRequest, count: int, position: int, device: torch.device) -> Tensor:
    """Returns (P, count) Gumbel noise, float64."""
    if isinstance(request.sampler, MultinomialSampler):
        waiting = torch.empty(len(request.prompts), count, dtype=torch.float64, device=device)
        return waiting.exponential_(generator=request.sampler.generator).log_().neg_()
    assert isinstance(request.sampler, CounterGumbel), "a strategy that draws has one of the two"
    return request.sampler.noise(count, position).double()
