"""Contrastive search: of the most probable tokens, one whose hidden state is not like earlier ones.

R rows, K candidates, V vocabulary, T tokens of a row, E width.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from minitx.decoding.loop import Observer, RowState, logprobs_of
from minitx.decoding.output import Event
from minitx.decoding.parameters import check_size, parameter, set_frozen
from minitx.decoding.processors.base import LogitsProcessor, StatefulProcessor
from minitx.decoding.processors.chain import unusable
from minitx.decoding.request import GenerationRequest
from minitx.decoding.session import DecodingSession
from minitx.decoding.strategy import Strategy
from minitx.habits import register_fields
from minitx.models.output import ModelOutput
from minitx.validation import ArgumentValueError, Interval, check_number

register_fields("ContrastiveSearch", ["penalty_alpha"])  # errors about its other field suggest `Sample`


@dataclass(frozen=True, kw_only=True, repr=False)
class ContrastiveSearch(Strategy, example="Sample"):
    """Takes the candidate with the largest (1 - alpha) * p - alpha * similarity (arXiv:2202.06417).

    Candidates are the `top_k` most probable tokens after the processors, p their probabilities. The model
    runs over each; similarity is the largest cosine of a candidate's last hidden state and those of prompt
    and output. Tokens that the processors ban are no candidates. With alpha 0 or one candidate it is greedy.
    """

    penalty_alpha: float = parameter(
        None, off=0.6, metavar="X", help="weight of the similarity to earlier tokens, from 0 to 1"
    )
    top_k: int = parameter(None, off=4, metavar="K", help="number of candidates; the model runs over each")

    lookahead = 1  # the candidates of the last token are run too

    def adapt(self, request: GenerationRequest) -> GenerationRequest:
        """Also checks that the processors can see one row per candidate.

        Raises:
            ArgumentValueError: values per row beside a processor with states.
        """
        processors = request.chain.processors
        per_row = any(isinstance(p, LogitsProcessor) and not p.batch_invariant for p in processors)
        if per_row and any(isinstance(p, StatefulProcessor) for p in processors):
            expected = "without values per row beside a processor with states"
            raise ArgumentValueError("processors", request.chain, expected, "candidates are rows too")
        return super().adapt(request)

    def run(self, session: DecodingSession, observe: Observer | None = None) -> Iterator[list[Event]]:
        """See `Strategy.run`.

        Raises:
            ArgumentValueError: more tokens than the model has positions.
            ValueError: a row has no token that can be chosen.
        """
        request, embedder = session.request, session.model.decoder_embedder
        room = embedder.max_tokens - max(map(len, request.prompts))
        if embedder.has_position_table and request.max_new_tokens > room:
            hint = f"the model has {embedder.max_tokens} positions, and the last candidates are run too"
            raise ArgumentValueError("max_new_tokens", request.max_new_tokens, f"at most {room}", hint)
        return self._choose(session, observe)

    @torch.inference_mode()
    def _choose(self, session: DecodingSession, observe: Observer | None) -> Iterator[list[Event]]:
        request = session.request
        if request.max_new_tokens == 0:
            return
        rows = RowState.all_of(request)
        states = _HiddenStates(session)
        session.start()
        while True:
            before = copy(session)  # as it is while the tokens are chosen
            before.history = copy(session.history)
            processed = session.process(session.logits)
            active = torch.tensor([row.reason is None for row in rows], device=processed.device)
            if bool((unusable(processed) & active).any()):
                session.raise_for_empty_rows(active)
            token, kept = self._rank(session, states, processed)
            if observe is not None:
                observe(before, token)
            extras = logprobs_of(request, before.logits if request.logprobs == "raw" else processed, token)
            yield [
                Event(number, token_id, *row.push(token_id), *extra)
                for number, (row, token_id, extra) in enumerate(
                    zip(rows, token.tolist(), extras, strict=True)
                )
                if row.reason is None
            ]
            if all(row.reason for row in rows):
                return
            session.reorder(kept, within_prompts=False)
            states.select(kept)

    def _rank(
        self, session: DecodingSession, states: _HiddenStates, processed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Runs the model over the candidates of each row.

        Args:
            session: gets a row per candidate.
            states: of the session.
            processed: (R, V).

        Returns:
            (R,) tokens, and the rows of the session that have them, (R,).
        """
        count = min(self.top_k, processed.shape[1])
        probabilities, ids = processed.softmax(dim=-1).topk(count)  # (R, K)
        first = torch.arange(len(ids), device=ids.device)
        rows = first.repeat_interleave(count)
        states.select(rows)
        session.step(ids.flatten(), rows, within_prompts=False)
        similarity = states.similarity().view_as(probabilities)
        scores = (1 - self.penalty_alpha) * probabilities - self.penalty_alpha * similarity
        best = scores.masked_fill(processed.gather(1, ids) == -torch.inf, -torch.inf).argmax(dim=-1)
        return ids.gather(1, best[:, None]).squeeze(1), first * count + best

    def _check(self) -> None:
        set_frozen(
            self,
            penalty_alpha=check_number("penalty_alpha", self.penalty_alpha, Interval(0, 1), "0 is greedy"),
            top_k=check_size("top_k", self.top_k, 1, "the number of candidates"),
        )
        super()._check()


class _HiddenStates:
    """The last hidden states of all tokens of each row, as unit vectors, (R, T, E)."""

    def __init__(self, session: DecodingSession) -> None:
        self._session = session
        self._states: Any = None
        session.observers.append(self._read)

    def _read(self, output: ModelOutput) -> None:
        states = F.normalize(output.last_hidden_state.float(), dim=-1)
        whole = self._session.cache.length == states.shape[1]  # the first chunk, or all tokens anew
        self._states = states if whole else torch.cat((self._states, states), dim=1)

    def select(self, rows: Tensor) -> None:
        """Continues with these rows, (R',) long."""
        self._states = self._states[rows]

    def similarity(self) -> Tensor:
        """Returns the largest cosine of each row's last token and an earlier one, (R,)."""
        states = self._states
        cosines = (states[:, :-1] @ states[:, -1:].mT).squeeze(-1)
        padding = states.shape[1] - self._session.context.length  # (R,), on the left
        places = torch.arange(cosines.shape[1], device=cosines.device)
        largest: Tensor = cosines.masked_fill(places < padding[:, None], -torch.inf).amax(dim=-1)
        return largest
