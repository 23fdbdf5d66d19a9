"""The rows that run at a time: their tokens, processor states, logits, and keys and values.

R rows, W tokens of the longest row of the call, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from minitx.decoding.continuous.cache import RowsCache, growing_cache
from minitx.decoding.continuous.per_row import for_rows, has_values_per_row
from minitx.decoding.loop import RowState, logprobs_of
from minitx.decoding.output import Event
from minitx.decoding.prefix.prefix_cache import prefilled
from minitx.decoding.processors.base import StatefulProcessor
from minitx.decoding.processors.chain import Chain, concatenate_states, select_state, unusable
from minitx.decoding.processors.context import Context
from minitx.decoding.prompts import PaddedBatch, pad_right, pad_rows, pad_sources, positions_of
from minitx.decoding.request import GenerationRequest
from minitx.decoding.samplers.base import Sampler
from minitx.decoding.samplers.counter_rng import CounterGumbel
from minitx.models import CausalModel, EncoderDecoderModel
from minitx.models.taps import scope_of


@dataclass(frozen=True)
class Job:
    """A row of the call.

    Attributes:
        row: its number in the result.
        prompt: the number of its prompt.
        ids: of the prompt.
        source: of the encoder input; None without an encoder.
        max_new_tokens: most tokens.
    """

    row: int
    prompt: int
    ids: list[int]
    source: list[int] | None
    max_new_tokens: int

    @property
    def cost(self) -> int:
        """The number of tokens that the prefill runs, in the longer of encoder and decoder."""
        return max(len(self.ids), len(self.source or ()))


class RunningRows:
    """Rows that join, get one token per step, and leave.

    Args:
        model: in eval mode.
        request: of the whole call.
        jobs: all that will ever join.
        rows: the most at once.

    Attributes:
        jobs: of the running rows.
    """

    def __init__(
        self, model: CausalModel, request: GenerationRequest, jobs: Sequence[Job], rows: int
    ) -> None:
        self.model, self.request = model, request
        prompt, width = max(len(j.ids) for j in jobs), max(len(j.ids) + j.max_new_tokens for j in jobs)
        self._source = max(len(j.source or ()) for j in jobs)
        # LongRoPE runs a row anew where it grows beyond its limit, with all tokens so far.
        self._longrope_limit = model.original_contexts.get("longrope")
        limit = self._longrope_limit or 0
        longest_prompt = max(prompt, limit + 1) if prompt <= limit < width else prompt
        self._cache = RowsCache(model, rows, longest_prompt, width, self._source, request.cache_dtype)
        self._width = prompt  # of the tokens of a row; `choose` doubles it
        limits = {j.max_new_tokens for j in jobs}
        self._limit = limits.pop() if len(limits) == 1 else None  # None: one per row
        self._per_row = has_values_per_row(request.chain)
        self._stateful = any(isinstance(p, StatefulProcessor) for p in request.chain.processors)
        self.jobs: list[Job] = []
        self._texts: list[RowState] = []
        self._chain, self._sampler = request.chain, request.sampler
        self._context: Context
        self._states: Any
        self._logits: Tensor  # (R, V)
        self._tokens: Tensor  # (R,), the last of each row

    def __len__(self) -> int:
        return len(self.jobs)

    @property
    def ended(self) -> list[bool]:
        """Whether each row has ended."""
        return [text.reason is not None for text in self._texts]

    def join(self, jobs: Sequence[Job]) -> None:
        """Runs the model over prompts, padded as one batch, and adds their rows."""
        prompts = {job.prompt: job for job in jobs}  # samples of one prompt share its prefill
        first = list(prompts.values())
        cache, logits = growing_cache(self.model, self.request.cache_dtype), None
        if first[0].source is not None:
            assert isinstance(self.model, EncoderDecoderModel)
            self.model.encode_into(cache, *pad_sources(self.model, [job.source or [] for job in first]))
        batch = pad_rows(self.model, [job.ids for job in first])
        logits = self._prefill(batch, cache, first, [len(job.ids) for job in first])
        if len(jobs) > len(first):
            place = {prompt: number for number, prompt in enumerate(prompts)}
            rows = torch.tensor([place[job.prompt] for job in jobs], device=logits.device)
            logits, cache = logits[rows], cache.select(rows)
        sources = [] if first[0].source is None else [len(job.source or ()) for job in jobs]
        self._cache.join(cache, [len(job.ids) for job in jobs], sources)
        self._add(jobs, logits)

    def choose(self) -> list[Event]:
        """Samples a token per row; returns the events.

        Raises:
            ValueError: a row has no token that can be drawn.
        """
        request, context = self.request, self._context
        if max(self._cache.lengths) == self._width:
            context = replace(context, tokens=nn.functional.pad(context.tokens, (0, self._width)))
            self._width *= 2
        processed = self._chain(self._logits, context, self._states)
        token = self._sampler(processed, context.generated)
        drawn = torch.where(unusable(processed), -1, token).tolist()
        if min(drawn) < 0:
            self._raise_for_empty_row(drawn.index(-1))
        late = request.stop.is_late
        extras = logprobs_of(request, self._logits if request.logprobs == "raw" else processed, token)
        events = [
            Event(job.row, token_id, *text.push(token_id, late), *extra)
            for job, text, token_id, extra in zip(self.jobs, self._texts, drawn, extras, strict=True)
        ]
        if self._stateful:
            self._states = self._chain.update(self._states, context, token, self._logits)
        context.tokens.scatter_(1, context.length[:, None], token[:, None])
        self._context = replace(context, length=context.length + 1)
        self._tokens = token
        return events

    def leave(self) -> None:
        """Removes the rows that have ended; the last rows take their places."""
        rows = list(range(len(self)))
        for place in reversed([place for place, ended in enumerate(self.ended) if ended]):
            rows[place] = rows[-1]
            rows.pop()
        if len(rows) == len(self):
            return
        self._cache.keep(rows)
        self.jobs, self._texts = ([values[row] for row in rows] for values in (self.jobs, self._texts))  # type: ignore[assignment]
        index = torch.tensor(rows, dtype=torch.long, device=self._tokens.device)
        self._context, self._states = self._context.select(index), select_state(self._states, index)
        self._logits, self._tokens = self._logits[index], self._tokens[index]
        self._choose_rows()

    def step(self) -> None:
        """Runs the model over the last token of each row."""
        rows, model = self._cache, self.model
        before = torch.tensor(rows.lengths, device=self._tokens.device)[:, None]
        again = [row for row, length in enumerate(rows.lengths) if length == self._longrope_limit]
        before[again] = 0  # their keys are replaced below
        rows.make_room()
        ids = self._tokens[:, None]
        embedder = model.decoder_embedder
        places = before.clamp(max=embedder.max_tokens - 1) if embedder.has_position_table else before
        self._note_rows(self.jobs, [length + 1 for length in rows.lengths])
        out = model.decode(ids, None, positions_of(model, ids, places), cache=rows.cache, logits_to_keep=1)
        rows.advance()
        assert out.logits is not None, "a language model has logits"
        self._logits = out.logits[:, -1].float()
        for row in again:
            self._run_anew(row)

    def _prefill(self, batch: PaddedBatch, cache: Any, jobs: Sequence[Job], lengths: Sequence[int]) -> Tensor:
        """Fills a cache with whole rows (B, T) of these lengths; returns the logits (B, V) after them."""
        time, chunk = batch.input_ids.shape[1], self.request.prefill_chunk
        if chunk is None or any(time > point for point in self.model.original_contexts.values()):
            chunk = time  # with these rotary positions the first chunk needs to know the whole length
        self._note_rows(jobs, lengths)
        with prefilled(self.request.prefix, self.model, cache, batch) as (own, known):
            for start in range(known, time, chunk):
                part: Any = (None if x is None else x[:, start : start + chunk] for x in batch)
                out = self.model.decode(*part, cache=own, logits_to_keep=1)
        assert out.logits is not None, "a language model has logits"
        return out.logits[:, -1].float()

    def _run_anew(self, row: int) -> None:
        """Runs all tokens of a row in an empty cache."""
        length = self._cache.lengths[row]
        batch = pad_rows(self.model, [self._context.tokens[row, :length].tolist()])
        cache = growing_cache(self.model, self.request.cache_dtype)
        self._cache.copy_source(row, cache)
        self._logits[row] = self._prefill(batch, cache, [self.jobs[row]], [length])[0]
        self._cache.replace(row, cache, length)

    def _add(self, jobs: Sequence[Job], logits: Tensor) -> None:
        """Adds rows with the logits (R', V) after their prompts."""
        request, device = self.request, logits.device
        tokens, _ = pad_right([[*job.ids, *[0] * (self._width - len(job.ids))] for job in jobs], 0, device)
        length = torch.tensor([len(job.ids) for job in jobs], device=device)
        limit: Any = self._limit
        if limit is None:
            limit = torch.tensor([job.max_new_tokens for job in jobs], device=device)
        encoder_tokens = encoder_length = None
        if self._source:
            padded = [[*(job.source or ()), *[0] * (self._source - len(job.source or ()))] for job in jobs]
            encoder_tokens, _ = pad_right(padded, 0, device)
            encoder_length = torch.tensor([len(job.source or ()) for job in jobs], device=device)
        numbers = torch.tensor([job.row for job in jobs], device=device)
        keys = None if request.keys is None else request.keys[numbers]
        context = Context(
            tokens, length, length, request.stop.eos, limit, encoder_tokens, encoder_length, keys
        )
        states = self._chain_of(jobs).init(context)
        if self.jobs:
            context, states = _joined(self._context, context), concatenate_states([self._states, states])
            logits = torch.cat((self._logits, logits))
        self._context, self._states, self._logits = context, states, logits
        self.jobs = [*self.jobs, *jobs]
        for job in jobs:
            own = replace(request, max_new_tokens=job.max_new_tokens)
            self._texts.append(RowState.of(own, job.prompt, job.row))
        self._choose_rows()

    def _chain_of(self, jobs: Sequence[Job]) -> Chain:
        chain = self.request.chain
        return for_rows(chain, [job.row for job in jobs]) if self._per_row and jobs else chain

    def _choose_rows(self) -> None:
        """Chooses the parameters and random keys of the running rows."""
        self._chain = self._chain_of(self.jobs)
        sampler: Sampler = self.request.sampler
        if isinstance(sampler, CounterGumbel):
            rows = torch.tensor([job.row for job in self.jobs], dtype=torch.long, device=sampler.keys.device)
            sampler = CounterGumbel(sampler.keys[rows])
        self._sampler = sampler

    def _note_rows(self, jobs: Sequence[Job], lengths: Sequence[int]) -> None:
        """Tells functions inside the model which rows the next forward has, and their tokens after it."""
        if scope := scope_of(self.model):
            device = self.model.device
            prompts = torch.tensor([job.prompt for job in jobs], device=device)
            scope.rows = prompts, torch.tensor(lengths, device=device)

    def _raise_for_empty_row(self, place: int) -> None:
        """Raises the error for a row that has no token to draw."""
        job = self.jobs[place]
        rows = torch.arange(len(self), device=self._logits.device) == place
        try:
            self._chain.raise_for_empty_rows(self._logits, self._context, self._states, rows)
        except ValueError as error:
            error.add_note(f"In the result it is row {job.row}, of prompt {job.prompt}.")
            raise


def _joined(first: Context, second: Context) -> Context:
    """Returns the context of the rows of both."""
    changes: dict[str, Any] = {
        name: torch.cat((value, getattr(second, name)))
        for name, value in vars(first).items()
        if isinstance(value, Tensor)
    }
    return replace(first, **changes)
