"""The state of a running search: its beams, their candidates, and the finished hypotheses.

`base.py` has the loop that advances it, `record.py` the record of its steps.

P prompts, N beams, C candidates, M places for finished hypotheses, V vocabulary, R = P * N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from minitx.decoding.search.record import SearchRecord, SearchStep
from minitx.decoding.session import DecodingSession
from minitx.device import constant, read
from minitx.validation import trusted_values


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
        done: (P,) bool, prompts whose search ends at this step even if beams remain; None for no prompt.
    """

    beams: Tensor
    sums: Tensor
    done: Tensor | None = None

    @property
    def exists(self) -> Tensor:
        """(P, N) bool, False for unused beams."""
        return self.sums > -torch.inf

    @property
    def rows(self) -> Tensor:
        """(P, N) long, the candidates in the rows of the model.

        An unused beam repeats one that exists, so that processors see a sequence of tokens in its row too.
        """
        first = self.exists.int().argmax(dim=1, keepdim=True)
        return torch.where(self.exists, self.beams, self.beams.gather(1, first))


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


class _Outcome(NamedTuple):
    """What is to be read of a step.

    Attributes:
        ends: (2, P) bool, the prompts that are done, and those without a token.
        existed: (P, N) bool, the beams that the step continued.
        finished: the finished hypotheses after it.
        arguments: `chain_arguments`, for an error.
    """

    ends: Tensor
    existed: Tensor
    finished: BeamHypotheses
    arguments: Any


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
        late: the seconds of the call are over, and each prompt has its least number of tokens.
        dtype: of sums and scores.
    """

    dtype: ClassVar[torch.dtype] = torch.float32

    def __init__(self, session: DecodingSession, width: int, places: int, groups: int = 1) -> None:
        """Begins with a single beam in each group, since equal beams would give equal sequences.

        Args:
            session: has started.
            width: C, the candidates of a prompt in the record.
            places: M, of each group.
            groups: number of groups of beams; each has its finished hypotheses.
        """
        self.session, self.request = session, session.request
        self.record = SearchRecord(width)
        self.prompts = list(range(len(self.request.prompts)))
        beams = len(session.logits) // len(self.prompts)
        shape = (len(self.prompts), beams)
        self.sums = torch.full(shape, -torch.inf, dtype=self.dtype, device=session.device)
        self.sums[:, :: beams // groups] = 0.0
        self.finished = BeamHypotheses(len(self.prompts) * groups, places, self.sums)
        self.hypotheses: dict[int, list[tuple[float, int]]] = {}
        self.late = False
        self._unread: list[_Outcome] = []

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
        """Whether candidates are the last tokens: they have `max_new_tokens`, or the time is over."""
        return self.late or self.length == self.request.max_new_tokens

    def check_time(self) -> None:
        """Looks at the time, once in a step."""
        self.late = self.request.stop.is_late and self.length >= max(self.request.min_new_tokens)

    @property
    def codes(self) -> Tensor:
        """(C,) long, of this step's candidates."""
        width = self.record.width
        return torch.arange((self.length - 1) * width, self.length * width, device=self.sums.device)

    def may_stop(self, place: int) -> bool:
        """Whether stop tokens and strings may end this step's candidates of the prompt at this place."""
        return self.length >= self.request.min_new_tokens[self.prompts[place]]

    def ends(self, tokens: Tensor) -> Tensor:
        """Returns which candidates (P, C) end their sequences by an end or stop token: (P, C) bool."""
        device, lists = tokens.device, (self.request.stop.eos, self.request.stop.tokens)
        eos, stop = (constant((*ids,), torch.long, device) for ids in lists)
        may_stop = constant(tuple(map(self.may_stop, range(len(tokens)))), torch.bool, device)[:, None]
        return torch.isin(tokens, eos) | (torch.isin(tokens, stop) & may_stop)

    def continued(self) -> tuple[Tensor, Tensor]:
        """Returns the processed log-probabilities, (R, V), and the sums of all continuations, (P, N, V)."""
        processed = self.session.process(self.session.log_probs)
        return processed, processed.view(*self.sums.shape, -1) + self.sums[:, :, None]

    def advance(self, candidates: Candidates, kept: Kept, may_leave: bool) -> None:
        """Records a step, ends the search of prompts that are done, and runs the model for the others.

        Args:
            candidates, kept: of the step.
            may_leave: prompts that are done leave the batch.

        Raises:
            ValueError: a prompt has no token that can be drawn.
        """
        existed = self.sums > -torch.inf
        self._add_step(candidates, kept)
        self._unread.append(self._outcome(kept, existed))
        unread, steps = len(self._unread), len(self.record.steps)
        if unread == self.request.run_ahead or steps == self.request.max_new_tokens:
            self._read()
        self.sums = kept.sums
        if not self.done:
            places = range(len(self.prompts))
            left = [place for place in places if self.prompts[place] not in self.hypotheses]
            with trusted_values():
                self.move(candidates, kept.rows, left if may_leave else places)

    def finished_of(self, place: int, finished: BeamHypotheses) -> list[tuple[float, int]]:
        """Returns score and code of the hypotheses of the prompt at this place of the batch, best first.

        Args:
            place: of the prompt.
            finished: the hypotheses of all prompts, after the step at which this one is done.
        """
        return finished.of(place)

    def move(self, candidates: Candidates, kept: Tensor, staying: Sequence[int]) -> Tensor:
        """Runs the model over the next beams; returns the rows that they continue, (R',).

        Args:
            candidates: of the step.
            kept: (P, N) long, the places of the next beams among the candidates.
            staying: places of the prompts that stay in the batch.
        """
        first = torch.arange(0, kept.numel(), kept.shape[1], device=kept.device)[:, None]
        rows = candidates.parents.gather(1, kept) + first
        tokens = candidates.tokens.gather(1, kept)
        all_stay = len(staying) == len(self.prompts)
        if not all_stay:
            places = torch.tensor(staying, device=kept.device)
            self.prompts = [self.prompts[place] for place in staying]
            self.sums, rows, tokens = self.sums[places], rows[places], tokens[places]
            self.finished.select(places)
        self.session.step(tokens.flatten(), rows.flatten(), within_prompts=all_stay)
        return rows.flatten()

    def _add_step(self, candidates: Candidates, kept: Kept) -> None:
        request, prompts, extras = self.request, len(self.prompts), None
        if request.logprobs is not None:
            raw = request.logprobs == "raw"
            table = torch.log_softmax(self.session.logits if raw else candidates.processed, dim=-1)
            top = table.topk(request.top_logprobs, dim=-1)
            logprobs = table.view(prompts, -1).gather(1, candidates.index)
            shape = (*kept.beams.shape, -1)
            extras = (logprobs, top.indices.view(shape), top.values.view(shape))
        c, outcome = candidates, (kept.rows, kept.exists, self.finished.codes.view(prompts, -1))
        self.record.add(SearchStep([*self.prompts], c.parents, c.tokens, c.sums, c.scores, *outcome, extras))

    def _outcome(self, kept: Kept, existed: Tensor) -> _Outcome:
        """Returns what is to be read of the last step; `existed` (P, N) bool are the beams that it continued.

        A prompt without a token is one that the chain or the model left none. A prompt whose beams have all
        ended without a hypothesis is reported by `Search.run`.
        """
        alive = kept.exists.any(dim=1)
        hypotheses = (self.finished.scores > -torch.inf).view(len(existed), -1).any(dim=1)
        broken = ~(self.record.steps[-1].sums.amax(dim=1) < torch.inf) | ~(alive | hypotheses)
        done = ~alive if kept.done is None else ~alive | kept.done
        arguments = self.session.chain_arguments
        return _Outcome(torch.stack((done, broken)), existed, copy(self.finished), arguments)

    def _read(self) -> None:
        """Reads the steps that have not been read, and notes which prompts are done.

        After the step at which the last one is done, the record ends.
        """
        outcomes, self._unread = self._unread, []
        first = len(self.record.steps) - len(outcomes)
        ends = zip(outcomes, read([outcome.ends for outcome in outcomes]), strict=True)
        for steps, (outcome, (done, broken)) in enumerate(ends, first + 1):
            searched = [prompt not in self.hypotheses for prompt in self.prompts]
            if any(both == (True, True) for both in zip(searched, broken, strict=True)):
                self._raise(outcome, torch.tensor(searched))
            for place, prompt in enumerate(self.prompts):
                if done[place] and searched[place]:
                    self.hypotheses[prompt] = self.finished_of(place, outcome.finished)
                    self.record.done[prompt] = steps
            if self.done:
                del self.record.steps[steps:]
                return

    def _raise(self, outcome: _Outcome, searched: Tensor) -> None:
        """Raises the error for the prompts, (P,) bool, that have no token."""
        existed = outcome.existed
        broken = (outcome.ends[1] & searched.to(existed.device))[:, None]
        for rows in (broken & existed, broken.expand_as(existed)):
            self.session.raise_for_empty_rows(rows.flatten(), arguments=outcome.arguments)
