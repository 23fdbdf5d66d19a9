"""Beam search: the N most probable partial sequences side by side, instead of the single best.

At each step the continuations of all beams of a prompt compete by the log-probability of the whole sequence.
The best C of them are the candidates, C = N * max(2, 1 + ending tokens), so that at least N of them continue.
Those that end are finished hypotheses if they are among the best N, with the score

    score = log-probability / norm(number of tokens, the ending one included),   norm(n) = n ** length_penalty

The best N of the others are the next beams. The order in which float32 numbers are added and divided is that
of transformers 5.23, so that tokens and scores are equal to its.

P prompts, N beams, C candidates, M places for finished hypotheses, V vocabulary, R rows, S source tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from minitx.decoding.loop import RowState
from minitx.decoding.parameters import NON_NEGATIVE, POSITIVE, parameter
from minitx.decoding.request import GenerationRequest
from minitx.decoding.samplers.sample import MultinomialSampler
from minitx.decoding.search.base import ScoredSearch, num_candidates
from minitx.decoding.search.state import BeamState, Candidates, Kept
from minitx.decoding.session import DecodingSession
from minitx.validation import ArgumentValueError, check_choice

LengthNorm = Literal["power", "gnmt"]

_MOST_HYPOTHESES = 2**16


class _State(BeamState):
    """Also holds the rows and the source coverage of the beams, where the search needs them."""

    rows: _BeamRows | None = None
    coverage: _Coverage | None = None

    def move(self, candidates: Candidates, kept: Tensor, staying: Sequence[int]) -> Tensor:
        """Also moves rows and coverage with the beams."""
        if self.rows is not None:
            self.rows.select(staying, kept)
        rows = super().move(candidates, kept, staying)
        if self.coverage is not None:
            self.coverage.select(rows)
        return rows


@dataclass(frozen=True, kw_only=True, repr=False)
class Beam(ScoredSearch):
    """Beam search. `num_samples` of `generate` is the number of hypotheses that it returns, best first.

    Log-probabilities are the model's, changed by the processors and not normalised again. A hypothesis is
    scored by their sum over its tokens, divided by a norm of their number.

    The norm "gnmt" is that of arXiv:1609.08144, equation 14.

    A prompt with all its finished hypotheses is done by `early_stopping`: True, False and "never" as in
    `ScoredSearch`, or "exact": when no beam can become one of the `num_samples` best, whatever the sign of
    length_penalty. The proof needs sums that only fall. Where a processor may make a log-probability positive
    (a bias above 0, a negative presence penalty, a custom processor), the search continues until its beams
    end or have `max_new_tokens`; with renormalize_logits=True sums fall whatever the others do.

    For encoder-decoders, `coverage_penalty` penalises hypotheses that leave source tokens without
    cross-attention: the score gets coverage_penalty * sum over source tokens of log(min(a, 1)), with the
    attention a summed over the hypothesis (arXiv:1609.08144, equation 14; last layer, mean over heads). Beams
    compete without it.
    """

    length_norm: LengthNorm = parameter(
        None, '"power" is n ** length_penalty; "gnmt" has (5 + n) / 6 for n', "NAME", off="power"
    )
    coverage_penalty: float = parameter(
        None, off=0.0, metavar="X", help="weight of the penalty for source tokens without attention; 0: off"
    )
    patience: float = parameter(
        None, off=1.0, metavar="X", help="keep round(X * num_beams) finished hypotheses (arXiv:2204.05424)"
    )

    _ways_to_stop: ClassVar[tuple[str, ...]] = ("never", "exact")
    _sees_rows: ClassVar[bool] = True

    @property
    def max_hypotheses(self) -> int:
        """M: the number of finished hypotheses that a prompt keeps."""
        return max(1, round(self.num_beams * self.patience))

    def begin(self, session: DecodingSession) -> BeamState:
        """Starts the session with N beams per prompt."""
        request = session.request
        session.start(self.num_beams, cross_attention=self.coverage_penalty > 0)
        state = _State(session, num_candidates(request, self.num_beams), self.max_hypotheses)
        if self.coverage_penalty:
            state.coverage = _Coverage(request, self.num_beams, session.device)
        if request.stop.needs_rows:
            state.rows = _BeamRows(request, self.num_beams)
        return state

    def propose(self, state: _State) -> Candidates:
        """Selects C continuations of all beams."""
        processed, continued = state.continued()
        sums, index = self.select(continued.flatten(1), state)
        return Candidates(processed, index, sums)

    def select(self, sums: Tensor, state: BeamState) -> tuple[Tensor, Tensor]:
        """Returns the C best of all continuations: (P, N * V) sums -> sums and places, (P, C) each."""
        best = sums.topk(state.record.width)
        return best.values, best.indices

    def score(self, state: _State, candidates: Candidates) -> Candidates:
        """Also adds the coverage penalty and finds the ends by text, repetition or function."""
        candidates = super().score(state, candidates)
        if state.coverage is not None:
            covered = state.coverage.add(state.session.cross_attention).gather(1, candidates.parents)
            candidates.scores = candidates.scores + self.coverage_penalty * covered
        if state.at_limit:
            candidates.ends = torch.ones_like(candidates.ends)
        elif state.rows is not None:
            candidates.ends = state.rows.push(candidates)
        return candidates

    def keep(self, state: _State, candidates: Candidates) -> Kept:
        """Finishes those of the best N that end; the best N of the others are the next beams."""
        hypotheses = candidates.scores.masked_fill(~candidates.ends, -torch.inf)
        hypotheses[:, self.num_beams :] = -torch.inf
        state.finished.add(hypotheses, state.codes)
        sums, beams = candidates.sums.masked_fill(candidates.ends, -torch.inf).topk(self.num_beams)
        return Kept(beams, sums, self.is_done(state, sums[:, 0]))

    def may_leave(self, request: GenerationRequest) -> bool:
        """Whether prompts that are done leave the batch.

        They stay where all draw from one generator, which gives each the numbers that it gets in
        transformers, and where a processor identifies rows by their places.
        """
        return request.chain.batch_invariant and not isinstance(request.sampler, MultinomialSampler)

    def norm_base(self, length: int) -> float:
        """Returns n, or (5 + n) / 6."""
        return length if self.length_norm == "power" else (5 + length) / 6

    def is_done(self, state: BeamState, best: Tensor) -> Tensor:
        """Also decides "exact"."""
        if self.early_stopping != "exact":
            return super().is_done(state, best)
        if not state.request.chain.keeps_log_probs_nonpositive():
            return torch.zeros_like(best, dtype=torch.bool)
        # A negative sum that fell no further would score best under the largest norm: the next or the last.
        attainable = best / max(self.norm(state.length + 1), self.norm(state.request.max_new_tokens))
        return state.finished.scores[:, state.request.num_samples - 1] >= attainable

    def adapt(self, request: GenerationRequest) -> GenerationRequest:
        """Also checks coverage_penalty and patience."""
        if self.coverage_penalty and request.sources is None:
            expected = "0 for models without an encoder"
            raise ArgumentValueError("coverage_penalty", self.coverage_penalty, expected)
        request = super().adapt(request)
        if request.num_samples > self.max_hypotheses:
            settings = f"num_beams={self.num_beams}, patience={self.patience:g}"
            expected = f"at most {self.max_hypotheses} with {settings}"
            raise ArgumentValueError("num_samples", request.num_samples, expected, "raise patience")
        return request

    def _check(self) -> None:
        self._check_number("coverage_penalty", NON_NEGATIVE, "0 is off")
        self._check_number("patience", POSITIVE, "1 keeps as many finished hypotheses as beams")
        check_choice("length_norm", self.length_norm, ("power", "gnmt"))
        super()._check()
        if self.num_beams * self.patience > _MOST_HYPOTHESES:
            expected = f"at most {_MOST_HYPOTHESES / self.num_beams:g} with num_beams={self.num_beams}"
            hint = f"a prompt keeps at most {_MOST_HYPOTHESES} finished hypotheses"
            raise ArgumentValueError("patience", self.patience, expected, hint)


class _BeamRows:
    """The tokens and texts of all beams, for the conditions that need them."""

    def __init__(self, request: GenerationRequest, beams: int) -> None:
        request = request if request.stop.has_text else replace(request, tokenizer=None)
        prompts = range(len(request.prompts))
        self._beams = [[RowState.of(request, prompt, prompt)] * beams for prompt in prompts]
        self._candidates: list[list[RowState]] = []

    def push(self, candidates: Candidates) -> Tensor:
        """Appends the candidates' tokens to copies of their beams; returns which end, (P, C) bool."""
        parents, tokens = candidates.parents.tolist(), candidates.tokens.tolist()
        ends = candidates.ends.tolist()
        self._candidates = [[self._beams[p][beam].copy() for beam in row] for p, row in enumerate(parents)]
        for place, rows in enumerate(self._candidates):
            for number, row in enumerate(rows):
                if not ends[place][number]:
                    row.push(tokens[place][number], late=False)
                    ends[place][number] = row.reason is not None
        return torch.tensor(ends, device=candidates.ends.device)

    def select(self, places: Sequence[int], kept: Tensor) -> None:
        """Continues with the prompts at these places, and of each with its candidates in (P, N) `kept`."""
        chosen = kept.tolist()
        self._beams = [[self._candidates[place][number] for number in chosen[place]] for place in places]


class _Coverage:
    """The cross-attention that each source token has received from each beam."""

    def __init__(self, request: GenerationRequest, beams: int, device: torch.device) -> None:
        sources = request.sources or []
        self._beams = beams
        # (R, S) float32, whatever the default dtype
        self._sum = torch.zeros(len(sources) * beams, max(map(len, sources)), device=device).float()
        lengths = torch.tensor([len(source) for source in sources], device=device).repeat_interleave(beams)
        self._valid = torch.arange(self._sum.shape[1], device=device) < lengths[:, None]

    def add(self, cross_attention: Tensor | None) -> Tensor:
        """Adds the last token's attention (R, S); returns the coverage of each beam, (P, N), at most 0."""
        assert cross_attention is not None, "the session computes it"
        self._sum = self._sum + cross_attention
        tiny = torch.finfo(self._sum.dtype).tiny  # a token without attention weighs much, but not infinitely
        covered = self._sum.clamp(tiny, 1.0).log().masked_fill(~self._valid, 0.0)
        return covered.sum(dim=1).view(-1, self._beams)

    def select(self, rows: Tensor) -> None:
        """Continues with these rows, (R',) long."""
        self._sum, self._valid = self._sum[rows], self._valid[rows]
