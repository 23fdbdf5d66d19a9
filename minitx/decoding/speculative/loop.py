"""The loop of speculative decoding: draft, verify in one forward, keep what was accepted.

The last token of a row is not in the session yet: each step runs it together with the drafted tokens, so that
a block costs one forward of the model. A row that accepts fewer tokens than others continues at its own
position; `DecodingSession.crop` removes its rejected ones.

R rows that have not left the batch, K drafted tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from minitx.decoding.loop import RowState, logprobs_of
from minitx.decoding.output import Event
from minitx.decoding.processors.chain import unusable
from minitx.decoding.session import DecodingSession
from minitx.decoding.speculative.draft import Draft, DraftCall, Drafter
from minitx.decoding.speculative.lengths import Lengths
from minitx.decoding.speculative.randomness import Randomness
from minitx.decoding.speculative.verification import Block, Verdict, Verification


class SpeculativeLoop:
    """One generation.

    Args:
        session: of the model that verifies, not started.
        draft: of the call.
        verification: how tokens are verified.
        lengths: the number of tokens to draft.
    """

    def __init__(
        self, session: DecodingSession, draft: Draft, verification: Verification, lengths: Lengths
    ) -> None:
        self.session, self.draft, self.verification, self.lengths = session, draft, verification, lengths
        request = session.request
        self.randomness = Randomness.of(request.sampler)
        self.states = RowState.all_of(request)
        self.rows = list(range(len(self.states)))  # those that are in the batch
        self.may_leave = request.chain.batch_invariant and self.randomness.per_row
        self.drafter: Drafter
        self.last: Tensor  # (R,), the token of each row that is not in the session

    @torch.inference_mode()
    def run(self) -> Iterator[list[Event]]:
        """Generates; yields the events of each block.

        Raises:
            ValueError: a row has no token that can be drawn.
        """
        session = self.session
        if session.request.max_new_tokens == 0:
            return
        session.start(session.request.num_samples)
        self.drafter = self.draft.start(
            DraftCall(session, self.randomness, self.lengths.most, self.lengths.confidence)
        )
        yield self._first()
        while self._leave():
            yield self._block()

    def _first(self) -> list[Event]:
        """Draws the first token of each row, as plain decoding does."""
        session = self.session
        scores = session.process(session.logits)
        token = session.request.sampler(scores, 0)
        verdict = Verdict(torch.zeros_like(token), token.where(~unusable(scores), -1))
        return self._events(verdict, token[:, None][:, :0], [scores], None)

    def _block(self) -> list[Event]:
        """Drafts and verifies tokens of all rows."""
        session, request = self.session, self.session.request
        context = session.history.with_next(self.last)
        room = (request.max_new_tokens - context.generated - 1).clamp(min=0)
        going = torch.tensor([self.states[row].reason is None for row in self.rows], device=room.device)
        most = torch.where(going, torch.minimum(self.lengths.of(self.rows).to(room.device), room), 0)
        counter = context.generated * (self.lengths.most + 1)
        proposal = self.drafter.propose(context, most, counter)
        session.step(torch.cat((self.last[:, None], proposal.tokens), dim=1), drafted=True)
        processed: list[Tensor] = []

        def _scores(index: int) -> Tensor:
            while len(processed) <= index:
                processed.append(session.process_step(len(processed)))
            return processed[index]

        block = Block(proposal, _scores, self.randomness, context.generated, counter)
        verdict = self.verification(block)
        events = self._events(verdict, proposal.tokens, processed, session.step_logits)
        self.lengths.update(self.rows, proposal.counts.tolist(), verdict.accepted.tolist())
        session.crop(context.generated - 1 + torch.where(going, 1 + verdict.accepted, 0))
        return events

    def _events(
        self, verdict: Verdict, drafted: Tensor, processed: list[Tensor], raw: Tensor | None
    ) -> list[Event]:
        """Appends the kept tokens and the next one to each row; returns their events.

        Args:
            verdict: of the block.
            drafted: (R, K).
            processed: (R, V) for each drafted token that was decided about, and the one after.
            raw: (R, K + 1, V), the logits before the processors; None for those of the session.
        """
        accepted, following = verdict.accepted.tolist(), verdict.token.tolist()
        extras = self._logprobs(verdict, drafted, processed, raw)
        events = []
        for number, (row, tokens) in enumerate(zip(self.rows, drafted.tolist(), strict=True)):
            state = self.states[row]
            for index, token in enumerate([*tokens[: accepted[number]], following[number]]):
                if state.reason is not None:
                    break
                if token < 0:
                    rows = torch.arange(len(self.rows), device=drafted.device) == number
                    self.session.raise_for_empty_rows(rows, None if raw is None else index)
                extra = extras[index][number] if extras else ()
                events.append(Event(row, token, *state.push(token), *extra))
        self.last = verdict.token.clamp(min=0)
        return events

    def _logprobs(
        self, verdict: Verdict, drafted: Tensor, processed: list[Tensor], raw: Tensor | None
    ) -> list[Sequence[tuple[Any, ...]]]:
        """Returns the last fields of the events of each position and row, if they are requested."""
        request = self.session.request
        if request.logprobs is None:
            return []
        extras = []
        for index in range(int(verdict.accepted.max()) + 1):
            logits = processed[index]
            if request.logprobs == "raw":
                logits = self.session.logits if raw is None else raw[:, index]
            token = verdict.token.clamp(min=0)
            if index < drafted.shape[1]:
                token = torch.where(index < verdict.accepted, drafted[:, index], token)
            extras.append(logprobs_of(request, logits, token))
        return extras

    def _leave(self) -> bool:
        """Removes finished rows from the batch, if no other depends on them; returns whether any is left."""
        staying = [number for number, row in enumerate(self.rows) if self.states[row].reason is None]
        if staying and self.may_leave and len(staying) < len(self.rows):
            rows = torch.tensor(staying, device=self.last.device)
            self.session.reorder(rows, within_prompts=False)
            self.drafter.select(rows)
            self.last, self.randomness = self.last[rows], self.randomness.select(rows)
            self.rows = [self.rows[number] for number in staying]
        return bool(staying)
