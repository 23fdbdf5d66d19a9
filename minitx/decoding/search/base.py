"""Searches: strategies that keep several hypotheses per prompt and compare whole sequences.

At each step a search proposes continuations of its beams (`propose`), scores them as finished hypotheses and
marks those that end (`score`), and keeps some as the next beams and others as finished (`keep`). `Search.run`
is the loop around the three; a search overrides those in which it differs. `state.py` holds the state of
a running search, `record.py` the history from which hypotheses are read.

P prompts, N beams, C candidates, M places for finished hypotheses, V vocabulary, R = P * N rows.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from minitx.decoding.loop import Observer, RowState
from minitx.decoding.output import Event
from minitx.decoding.parameters import Integers, Parameter, parameter, parameters_of, set_frozen
from minitx.decoding.processors.chain import Chain
from minitx.decoding.processors.constraints import MinNewTokens, PrefixAllowed
from minitx.decoding.request import GenerationRequest
from minitx.decoding.search.record import Link, SearchRecord
from minitx.decoding.search.state import BeamState, Candidates, Kept
from minitx.decoding.search.tree import BeamTree
from minitx.decoding.session import DecodingSession
from minitx.decoding.strategy import Strategy
from minitx.validation import ArgumentValueError, Interval, check_choice, check_integer, check_number

EarlyStopping = bool | Literal["never", "exact"]

_MOST_BEAMS = 4096  # each is a row of the model's batch, with a cache and V logits, for every prompt
_LARGEST_PENALTY = 40
_LARGEST_NORM = 30 * math.log(10)  # its logarithm; scores are float32 and must neither vanish nor overflow
_LONGEST = 2**16  # larger limits mostly mean "until it ends"


@dataclass(frozen=True, kw_only=True, repr=False)
class Search(Strategy, example="Beam"):
    """A strategy that keeps several hypotheses per prompt and returns the best of them.

    Parameters that other strategies take per row, searches take per prompt; `prefix_allowed_tokens_fn` gets
    the number of the prompt. Processors, those of a literal chain too, see one row per beam.
    """

    num_beams: int = parameter(None, off=4, help="number of hypotheses kept per prompt", metavar="N")

    searches = True
    _drawing: ClassVar[str] = "BeamSample"
    _sees_rows: ClassVar[bool] = False
    _too_few: ClassVar[str] = (
        "{number} of the num_samples={num_samples} hypotheses were found: the model's vocabulary, "
        "max_new_tokens and the processors leave no other sequences."
    )

    @torch.inference_mode()
    def run(self, session: DecodingSession, observe: Observer | None = None) -> Iterator[list[Event]]:
        """Searches; yields the events of the returned hypotheses, and fills the session's scores and beams.

        Raises:
            ValueError: a prompt has no token to continue with, or fewer hypotheses than requested.
        """
        request = session.request
        links: list[list[Link]] = [[] for _ in request.prompts]
        session.scores, record = [0.0] * (len(links) * request.num_samples), SearchRecord(1)
        if request.max_new_tokens > 0:
            state = self.search(session)
            best, record = self._best(state), state.record
            session.scores = [score for hypotheses in best for score, _ in hypotheses]
            links = [[record.link(code) for _, code in hypotheses] for hypotheses in best]
        session.beams = [BeamTree(record, prompt, ends, request) for prompt, ends in enumerate(links)]
        yield list(_events(request, record, links))

    def search(self, session: DecodingSession) -> Any:
        """Runs the loop until every prompt is done; returns the last state."""
        state = self.begin(session)
        while not state.done:
            state.check_time()
            candidates = self.score(state, self.propose(state))
            kept = self.keep(state, candidates)
            state.advance(candidates, kept, self.may_leave(session.request))
        return state

    @abstractmethod
    def begin(self, session: DecodingSession) -> Any:
        """Starts the session; returns the `BeamState` before the first step."""

    @abstractmethod
    def propose(self, state: Any) -> Candidates:
        """Returns the candidates of a step, with their sums."""

    def score(self, state: Any, candidates: Candidates) -> Candidates:
        """Sets the candidates' scores and marks those that end their sequence."""
        candidates.ends = state.ends(candidates.tokens)
        return candidates

    @abstractmethod
    def keep(self, state: Any, candidates: Candidates) -> Kept:
        """Adds hypotheses to `state.finished`; returns the next beams."""

    def may_leave(self, request: GenerationRequest) -> bool:
        """Whether prompts that are done leave the batch."""
        return False

    def build(self, min_new_tokens: Integers = 0) -> Chain:
        """Returns the chain; `min_new_tokens` is one number or one per prompt."""
        return super().build(self._per_beam(MinNewTokens.rule.check(min_new_tokens)))

    def adapt(self, request: GenerationRequest) -> GenerationRequest:
        """Checks a request against this search; returns it with the chain that the search needs.

        Raises:
            ArgumentValueError: more hypotheses than beams, values for another number of prompts, or stop
                conditions that the search cannot see.
        """
        if (conditions := request.stop.needs_rows) and not self._sees_rows:
            raise ValueError(
                f"{type(self).__name__}(...) cannot stop at {' or '.join(conditions)}, as Beam(...) can; use "
                "Stop(tokens=...)."
            )
        if request.num_samples > self.num_beams:
            expected = f"at most num_beams={self.num_beams}"
            hint = "a search returns at most the hypotheses that it keeps"
            raise ArgumentValueError("num_samples", request.num_samples, expected, hint)
        for name, declared in parameters_of(self).items():
            value = getattr(self, name)
            if declared.per_row and isinstance(value, tuple) and len(value) != len(request.prompts):
                raise ArgumentValueError(name, value, f"one number or {len(request.prompts)}, one per prompt")
        request.chain.check_rows(len(request.prompts) * self.num_beams, self.num_beams)
        return request

    def _best(self, state: BeamState) -> list[list[tuple[float, int]]]:
        """Returns per prompt score and code of the hypotheses to return, best first."""
        count, hypotheses = state.request.num_samples, sorted(state.hypotheses.items())
        for prompt, pairs in hypotheses:
            if len(pairs) < count:
                reason = self._too_few.format(number=len(pairs), num_samples=count)
                raise ValueError(f"Prompt {prompt}: {reason}")
        return [pairs[:count] for _, pairs in hypotheses]

    def _check(self) -> None:
        hint = "the number of hypotheses kept per prompt; each is a row that the model runs"
        set_frozen(self, num_beams=check_integer("num_beams", self.num_beams, 1, _MOST_BEAMS, hint))
        super()._check()

    def _make(self, name: str, declared: Parameter, value: Any) -> Any:
        if declared.per_row:
            value = self._per_beam(value)
        if declared.processor is PrefixAllowed and callable(value):
            return PrefixAllowed(lambda row, tokens: value(row // self.num_beams, tokens))
        return super()._make(name, declared, value)

    def _per_beam(self, values: Any) -> Any:
        """Returns values per prompt as values per beam."""
        if not isinstance(values, tuple):
            return values
        return tuple(value for value in values for _ in range(self.num_beams))


@dataclass(frozen=True, kw_only=True, repr=False)
class ScoredSearch(Search, example="Beam"):
    """A search whose hypotheses are compared by sum / length ** length_penalty.

    `early_stopping` decides when a prompt with all its finished hypotheses is done, besides when no beam is
    left. True: at once. False: when the best beam, if it ended now, would not beat the worst of them, a
    heuristic, since with length_penalty above 0 a beam may still improve. "never": the same, but with
    length_penalty above 0 the beam is scored at the greatest length that it can reach.
    """

    length_penalty: float = parameter(
        None, off=1.0, metavar="X", help="scores are sum / length ** X; above 0 favours long sequences"
    )
    early_stopping: EarlyStopping = parameter(
        None, off=False, metavar="WHEN", help='when to end: True, False, "never", or for `Beam` "exact"'
    )

    _ways_to_stop: ClassVar[tuple[str, ...]] = ("never",)

    def score(self, state: Any, candidates: Candidates) -> Candidates:
        """Divides the sums by the norm of their length."""
        candidates.scores = candidates.sums / self.norm(state.length)
        return super().score(state, candidates)

    def norm(self, length: int) -> float:
        """Returns the divisor of a sum of `length` log-probabilities in a hypothesis' score."""
        return float(self.norm_base(length) ** self.length_penalty)

    def norm_base(self, length: int) -> float:
        """Returns the number that is raised to the power `length_penalty`."""
        return length

    def adapt(self, request: GenerationRequest) -> GenerationRequest:
        """Also checks that scores fit into float32."""
        longest = self.norm_base(min(max(1, request.max_new_tokens), _LONGEST))
        if abs(self.length_penalty) * math.log(longest) > _LARGEST_NORM:
            expected = f"nearer to 0 for max_new_tokens={request.max_new_tokens}"
            hint = "float32 cannot hold the scores"
            raise ArgumentValueError("length_penalty", self.length_penalty, expected, hint)
        return super().adapt(request)

    def is_done(self, state: BeamState, best: Tensor) -> Tensor:
        """Returns which prompts are done by their hypotheses: (P,) bool.

        Args:
            state: of the search.
            best: (P,), the largest sum that may be continued.
        """
        worst = state.finished.scores[:, -1]
        full = worst > -torch.inf
        if self.early_stopping is True:
            return full
        longest = self.early_stopping == "never" and self.length_penalty > 0
        return full & (worst >= best / self.norm(state.request.max_new_tokens if longest else state.length))

    def _check(self) -> None:
        super()._check()
        limits = Interval(-_LARGEST_PENALTY, _LARGEST_PENALTY)
        self._check_number("length_penalty", limits, "0 compares sums, above 0 favours longer sequences")
        if not isinstance(self.early_stopping, bool):
            check_choice("early_stopping", self.early_stopping, (True, False, *self._ways_to_stop))

    def _check_number(self, name: str, interval: Interval, hint: str) -> None:
        set_frozen(self, **{name: check_number(name, getattr(self, name), interval, hint)})


def least_choices(request: GenerationRequest) -> int:
    """Returns the number of continuations of a beam of which one does not end, at least 2."""
    return max(2, 1 + len({*request.stop.eos, *request.stop.tokens}))


def num_candidates(request: GenerationRequest, beams: int) -> int:
    """Returns C, enough for `beams` candidates to be continued however many end."""
    return min(least_choices(request), request.vocab_size) * beams


def _events(
    request: GenerationRequest, record: SearchRecord, links: Sequence[Sequence[Link]]
) -> Iterator[Event]:
    """Yields the events of the returned hypotheses (num_samples per prompt), as if they were sampled rows."""
    for prompt, ends in enumerate(links):
        for number, last in enumerate(ends, prompt * request.num_samples):
            row = RowState.of(request, prompt, prompt)
            for link in record.path(prompt, last):
                token = record.value(prompt, link, "tokens")
                # What nothing else ends is a hypothesis because the time was over.
                yield Event(number, token, *row.push(token, link == last), *record.extras(prompt, link))
