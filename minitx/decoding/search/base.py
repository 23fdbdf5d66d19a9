"""Searches: strategies that keep several hypotheses per prompt and compare whole sequences.

At each step a search proposes continuations of its beams (`propose`), scores them as finished hypotheses and
marks those that end (`score`), and keeps some as the next beams and others as finished (`keep`). `Search.run`
is the loop around the three; a search overrides those in which it differs. `BeamState` is the state of a
running search, `record.py` the history from which hypotheses are read.

P prompts, N beams, C candidates, M places for finished hypotheses, V vocabulary, R = P * N rows.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from minitx.decoding.loop import Observer, RowState
from minitx.decoding.output import Event
from minitx.decoding.parameters import Integers, check_integers, parameter, parameters_of, set_frozen
from minitx.decoding.processors.base import Processor
from minitx.decoding.processors.chain import Chain
from minitx.decoding.request import GenerationRequest
from minitx.decoding.search.record import Link, SearchRecord, SearchStep
from minitx.decoding.search.tree import BeamTree
from minitx.decoding.session import DecodingSession
from minitx.decoding.strategy import Strategy
from minitx.validation import ArgumentValueError, Interval, check_choice, check_integer, check_number

EarlyStopping = bool | Literal["never", "exact"]

_MOST_BEAMS = 4096  # each is a row of the model's batch, with a cache and V logits, for every prompt
_LARGEST_PENALTY = 40
_LARGEST_NORM = 30 * math.log(10)  # its logarithm; scores are float32 and must neither vanish nor overflow
_LONGEST = 2**16  # larger limits mostly mean "until it ends"


@dataclass
class Candidates:
    """Continuations of the beams by one token, best first.

    Attributes:
        processed: (R, V) log-probabilities of the next token after the chain.
        index: (P, C) long, places in N * V, beam after beam.
        sums: (P, C), log-probabilities of the candidates' sequences.
        scores: (P, C), their scores as hypotheses.
        ends: (P, C) bool, those that end their sequence.
    """

    processed: Tensor
    index: Tensor
    sums: Tensor
    scores: Tensor = field(init=False)
    ends: Tensor = field(init=False)

    @property
    def tokens(self) -> Tensor:
        """(P, C) long."""
        return self.index % self.processed.shape[-1]

    @property
    def parents(self) -> Tensor:
        """(P, C) long, the beam that each continues."""
        return self.index // self.processed.shape[-1]


@dataclass
class Kept:
    """The beams of the next step.

    Attributes:
        beams: (P, N) long, the candidates that they are.
        sums: (P, N), by which they compete; -inf for unused beams.
        done: (P,) bool, prompts whose search ends although beams are left.
    """

    beams: Tensor
    sums: Tensor
    done: Tensor


class BeamHypotheses:
    """The best finished hypotheses of each prompt.

    Attributes:
        scores: (P, M), best first; -inf for unused places.
        codes: (P, M) long, the last candidate of each (`SearchRecord.link`); -1 for unused places.
    """

    def __init__(self, prompts: int, places: int, like: Tensor) -> None:
        """P and M; the scores get dtype and device of `like`."""
        self.scores = like.new_full((prompts, places), -torch.inf)
        self.codes = like.new_full((prompts, places), -1, dtype=torch.long)

    def add(self, scores: Tensor, codes: Tensor) -> None:
        """Adds candidates: scores (P, C), -inf for those that are no hypotheses, and codes (C,) or (P, C)."""
        codes = torch.where(scores > -torch.inf, codes, -1)
        self.scores, places = torch.cat((self.scores, scores), dim=1).topk(self.scores.shape[1])
        self.codes = torch.cat((self.codes, codes), dim=1).gather(1, places)

    def select(self, prompts: Tensor) -> None:
        """Keeps these prompts, (P',) long."""
        self.scores, self.codes = self.scores[prompts], self.codes[prompts]

    def of(self, prompt: int) -> list[tuple[float, int]]:
        """Returns scores and codes of one prompt's hypotheses, best first."""
        pairs = zip(self.scores[prompt].tolist(), self.codes[prompt].tolist(), strict=True)
        return [(score, code) for score, code in pairs if code >= 0]


class BeamState:
    """The state of a running search. Unused beams have the sum -inf.

    Attributes:
        session: one row per beam.
        request: of the session.
        record: of all steps so far.
        prompts: numbers of the P prompts that are in the batch.
        sums: (P, N), by which beams compete: log-probabilities of their sequences, unless a search differs.
        finished: the finished hypotheses of these prompts.
        hypotheses: of the prompts that are done, score and code of each hypothesis, best first.
    """

    def __init__(self, session: DecodingSession, *, width: int, sums: Tensor, places: int) -> None:
        """
        Args:
            session: has started.
            width: C, the candidates of a prompt in the record.
            sums: (P, N) of the first beams.
            places: M.
        """
        self.session, self.request = session, session.request
        self.record = SearchRecord(width)
        self.prompts = list(range(len(sums)))
        self.sums = sums
        self.finished = BeamHypotheses(len(sums), places, sums)
        self.hypotheses: dict[int, list[tuple[float, int]]] = {}

    @property
    def done(self) -> bool:
        """Whether the search of every prompt has ended."""
        return len(self.hypotheses) == len(self.request.prompts)

    @property
    def length(self) -> int:
        """The number of tokens of this step's candidates."""
        return len(self.record.steps) + 1

    @property
    def at_limit(self) -> bool:
        """Whether candidates have `max_new_tokens`."""
        return self.length == self.request.max_new_tokens

    @property
    def codes(self) -> Tensor:
        """(C,) long, of this step's candidates."""
        width = self.record.width
        return torch.arange((self.length - 1) * width, self.length * width, device=self.sums.device)

    def ends(self, tokens: Tensor) -> Tensor:
        """Returns which candidates (P, C) end their sequences by an end or stop token: (P, C) bool."""
        stop, ends = self.request.stop, torch.zeros_like(tokens, dtype=torch.bool)
        for token in stop.eos:
            ends |= tokens == token
        if stop.tokens:
            least = [self.request.min_new_tokens[prompt] for prompt in self.prompts]
            may_stop = self.length >= torch.tensor(least, device=tokens.device)[:, None]
            for token in stop.tokens:
                ends |= (tokens == token) & may_stop
        return ends

    def advance(self, candidates: Candidates, kept: Kept, may_leave: bool) -> None:
        """Records a step, ends the search of prompts that are done, and runs the model for the others.

        Args:
            candidates, kept: of the step.
            may_leave: prompts that are done leave the batch.

        Raises:
            ValueError: a prompt has no token that can be drawn.
        """
        existed, alive = self.sums > -torch.inf, kept.sums > -torch.inf
        beams = alive.any(dim=1)
        # An unused beam repeats one that exists, so that processors see a sequence of tokens in its row too.
        rows = torch.where(alive, kept.beams, kept.beams.gather(1, alive.int().argmax(dim=1, keepdim=True)))
        self._add_step(candidates, rows, alive)
        self._check(existed, beams)
        for place in (~beams | kept.done).nonzero().flatten().tolist():
            if (prompt := self.prompts[place]) not in self.hypotheses:
                self.hypotheses[prompt] = self.finished_of(place)
                self.record.done[prompt] = len(self.record.steps)
        self.sums = kept.sums
        if self.done:
            return
        staying = [place for place, prompt in enumerate(self.prompts) if prompt not in self.hypotheses]
        self.move(candidates, rows, staying if may_leave and len(staying) < len(self.prompts) else None)

    def finished_of(self, place: int) -> list[tuple[float, int]]:
        """Returns score and code of the hypotheses of the prompt at this place of the batch, best first."""
        return self.finished.of(place)

    def move(self, candidates: Candidates, kept: Tensor, staying: list[int] | None) -> Tensor:
        """Runs the model over the candidates kept, (P, N) long; returns the rows that they continue, (R',).

        Args:
            candidates: of the step.
            kept: which of them the next beams are.
            staying: places of the prompts that stay in the batch; None for all.
        """
        first = torch.arange(0, kept.numel(), kept.shape[1], device=kept.device)[:, None]
        rows = candidates.parents.gather(1, kept) + first
        tokens = candidates.tokens.gather(1, kept)
        if staying is not None:
            places = torch.tensor(staying, device=kept.device)
            self.prompts = [self.prompts[place] for place in staying]
            self.sums, rows, tokens = self.sums[places], rows[places], tokens[places]
            self.finished.select(places)
        self.session.step(tokens.flatten(), rows.flatten(), within_prompts=staying is None)
        return rows.flatten()

    def _add_step(self, candidates: Candidates, kept: Tensor, exists: Tensor) -> None:
        request, extras = self.request, None
        if request.logprobs is not None:
            raw = request.logprobs == "raw"
            table = torch.log_softmax(self.session.logits if raw else candidates.processed, dim=-1)
            top = table.topk(request.top_logprobs, dim=-1)
            extras = (
                table.view(len(kept), -1).gather(1, candidates.index),
                top.indices.view(*kept.shape, -1),
                top.values.view(*kept.shape, -1),
            )
        self.record.add(
            SearchStep(
                prompts=[*self.prompts],
                parents=candidates.parents,
                tokens=candidates.tokens,
                sums=candidates.sums,
                scores=candidates.scores,
                ends=candidates.ends,
                kept=kept,
                exists=exists,
                finished=self.finished.codes.view(len(kept), -1),
                logprobs=extras,
            )
        )

    def _check(self, existed: Tensor, alive: Tensor) -> None:
        """Raises ValueError if the chain or the model left a prompt without a token.

        A prompt whose beams have all ended without a hypothesis is reported by `Search.run`.
        """
        hypotheses = (self.finished.scores > -torch.inf).view(len(existed), -1).any(dim=1)
        broken = ~(self.record.steps[-1].sums.amax(dim=1) < torch.inf) | ~(alive | hypotheses)
        if bool(broken.any()):
            broken &= torch.tensor([p not in self.hypotheses for p in self.prompts], device=broken.device)
        if bool(broken.any()):
            for rows in (broken[:, None] & existed, broken[:, None].expand_as(existed)):
                self.session.raise_for_empty_rows(rows.flatten())


@dataclass(frozen=True, kw_only=True, repr=False)
class Search(Strategy, example="Beam"):
    """A strategy that keeps several hypotheses per prompt and returns the best of them.

    Parameters that other strategies take per row, searches take per prompt; `prefix_allowed_tokens_fn` gets
    the number of the prompt. Processors, those of a literal chain too, see one row per beam.
    """

    num_beams: int = parameter(None, off=4, help="number of hypotheses kept per prompt", metavar="N")

    _drawing: ClassVar[str] = "BeamSample"
    _finds_strings: ClassVar[bool] = False

    @torch.inference_mode()
    def run(self, session: DecodingSession, observe: Observer | None = None) -> Iterator[list[Event]]:
        """Searches; yields the events of the returned hypotheses, and fills the session's scores and beams.

        Raises:
            ValueError: a prompt has no token to continue with, or fewer hypotheses than requested.
        """
        request = session.request
        best: list[list[tuple[float, Link]]] = [[] for _ in request.prompts]
        session.scores = [0.0] * (len(best) * request.num_samples)
        record = SearchRecord(1)
        if request.max_new_tokens > 0:
            state = self.search(session)
            best, record = self._best(state), state.record
            session.scores = [score for hypotheses in best for score, _ in hypotheses]
        links = [[link for _, link in hypotheses] for hypotheses in best]
        session.beams = [
            BeamTree(record, prompt, chosen, request.prompts[prompt], request.tokenizer)
            for prompt, chosen in enumerate(links)
        ]
        yield list(_events(request, record, links))

    def search(self, session: DecodingSession) -> Any:
        """Runs the loop until every prompt is done; returns the last state."""
        state = self.begin(session)
        while not state.done:
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

    def too_few(self, number: int, num_samples: int) -> str:
        """Returns the error message for too few hypotheses."""
        return (
            f"{number} of the num_samples={num_samples} hypotheses were found: the model's vocabulary, "
            "max_new_tokens and the processors leave no other sequences."
        )

    def first_sums(self, request: GenerationRequest, device: torch.device) -> Tensor:
        """Returns (P, N) with a single beam per prompt, since equal beams would give equal sequences."""
        sums = torch.full((len(request.prompts), self.num_beams), -torch.inf, device=device)
        sums[:, 0] = 0.0
        return sums

    def build(self, min_new_tokens: Integers = 0) -> Chain:
        """Returns the chain; `min_new_tokens` is one number or one per prompt."""
        if not isinstance(min_new_tokens, int):
            least = check_integers("min_new_tokens", min_new_tokens, 0, "0 sets no minimum")
            min_new_tokens = self._per_beam(least)
        return super().build(min_new_tokens)

    def adapt(self, request: GenerationRequest) -> GenerationRequest:
        """Checks a request against this search; returns it with the chain that the search needs.

        Raises:
            ArgumentValueError: more hypotheses than beams, values for another number of prompts, or stop
                strings where the search cannot find them.
        """
        if request.stop.strings and not self._finds_strings:
            raise ValueError(
                f"{type(self).__name__}(...) cannot stop at strings, as Beam(...) can; use Stop(tokens=...)."
            )
        if request.num_samples > self.num_beams:
            raise ArgumentValueError(
                "num_samples",
                request.num_samples,
                f"at most num_beams={self.num_beams}",
                "a search returns at most the hypotheses that it keeps",
            )
        for name, declared in parameters_of(self).items():
            value = getattr(self, name)
            if declared.per_row and isinstance(value, tuple) and len(value) != len(request.prompts):
                expected = f"one number or {len(request.prompts)}, one per prompt"
                raise ArgumentValueError(name, value, expected)
        request.chain.check_rows(len(request.prompts) * self.num_beams, self.num_beams)
        return request

    def _best(self, state: BeamState) -> list[list[tuple[float, Link]]]:
        """Returns per prompt score and last candidate of the hypotheses to return, best first."""
        count, best = state.request.num_samples, []
        for prompt in range(len(state.request.prompts)):
            hypotheses = state.hypotheses[prompt][:count]
            if len(hypotheses) < count:
                raise ValueError(f"Prompt {prompt}: {self.too_few(len(hypotheses), count)}")
            best.append([(score, state.record.link(code)) for score, code in hypotheses])
        return best

    def _check(self) -> None:
        hint = "the number of hypotheses kept per prompt; each is a row that the model runs"
        set_frozen(self, num_beams=check_integer("num_beams", self.num_beams, 1, _MOST_BEAMS, hint))
        super()._check()

    def _make(self, name: str, value: Any) -> Processor:
        if parameters_of(self)[name].per_row and isinstance(value, tuple):
            value = self._per_beam(value)
        if name == "prefix_allowed_tokens_fn" and callable(value):
            value = _OfPrompt(value, self.num_beams)
        return super()._make(name, value)

    def _per_beam(self, values: Any) -> Any:
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
        None,
        off=1.0,
        help="power of the length that divides sums of log-probabilities; above 0 favours long sequences, "
        "below 0 short ones; 0 compares sums, 1 means",
        metavar="X",
    )
    early_stopping: EarlyStopping = parameter(
        None,
        off=False,
        help='when a search ends: True, False, "never", or for `Beam` "exact"',
        metavar="WHEN",
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
            raise ArgumentValueError(
                "length_penalty",
                self.length_penalty,
                f"nearer to 0 for max_new_tokens={request.max_new_tokens}",
                "float32 cannot hold the scores",
            )
        return super().adapt(request)

    def is_done(
        self, finished: BeamHypotheses, best: Tensor, length: int, request: GenerationRequest
    ) -> Tensor:
        """Returns which prompts are done by their hypotheses: (P,) bool.

        Args:
            finished: of these prompts.
            best: (P,), the largest sum that may be continued.
            length: its number of tokens.
            request: of the search.
        """
        worst = finished.scores[:, -1]
        full = worst > -torch.inf
        if self.early_stopping is True:
            return full
        longest = self.early_stopping == "never" and self.length_penalty > 0
        return full & (worst >= best / self.norm(request.max_new_tokens if longest else length))

    def _check(self) -> None:
        super()._check()
        limits = Interval(-_LARGEST_PENALTY, _LARGEST_PENALTY)
        self._check_number("length_penalty", limits, "0 compares sums, above 0 favours longer sequences")
        if not isinstance(self.early_stopping, bool):
            check_choice("early_stopping", self.early_stopping, (True, False, *self._ways_to_stop))

    def _check_number(self, name: str, interval: Interval, hint: str) -> None:
        set_frozen(self, **{name: check_number(name, getattr(self, name), interval, hint)})


@dataclass(frozen=True)
class _OfPrompt:
    """A function of (prompt, tokens) as one of (row, tokens), with `beams` rows per prompt."""

    function: Callable[[int, Tensor], Sequence[int] | Tensor]
    beams: int

    def __call__(self, row: int, tokens: Tensor) -> Sequence[int] | Tensor:
        return self.function(row // self.beams, tokens)


def num_candidates(request: GenerationRequest, beams: int) -> int:
    """Returns C, enough for `beams` candidates to be continued however many end."""
    least = max(2, 1 + len({*request.stop.eos, *request.stop.tokens}))
    return min(least, request.vocab_size) * beams


def _events(
    request: GenerationRequest, record: SearchRecord, links: Sequence[Sequence[Link]]
) -> Iterator[Event]:
    """Yields the events of the returned hypotheses (num_samples per prompt), as if they were sampled rows."""
    for prompt, chosen in enumerate(links):
        for sample, last in enumerate(chosen):
            row = RowState(request, request.prompts[prompt], request.min_new_tokens[prompt])
            for link in record.path(prompt, last):
                token = record.token(prompt, link)
                number = prompt * request.num_samples + sample
                yield Event(number, token, *row.push(token), *record.extras(prompt, link))
