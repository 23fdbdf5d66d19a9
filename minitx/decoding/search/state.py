"""The state of a running search: its beams, their candidates, and the finished hypotheses.

`base.py` has the loop that advances it, `record.py` the record of its steps.

P prompts, N beams, C candidates, M places for finished hypotheses, V vocabulary, R = P * N rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from minitx.decoding.search.record import SearchRecord, SearchStep
from minitx.decoding.session import DecodingSession


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
        done: (P,) bool, prompts whose search ends although beams are left; None for none.
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
        rows, alive = kept.rows, kept.exists.any(dim=1)
        self._add_step(candidates, rows, kept.exists)
        self._check(self.sums > -torch.inf, alive)
        done = ~alive if kept.done is None else ~alive | kept.done
        for place in done.nonzero().flatten().tolist():
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
