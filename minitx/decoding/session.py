"""The state of a running generation: key/value cache, token history, processor states, next-token logits.

A strategy drives a session: it reads `logits`, chooses tokens and calls `step`. Searches also `reorder` the
rows; speculative decoding steps over several tokens and calls `crop` for those that it rejects, per row;
`guidance/session.py` runs further sessions beside the first. `loop.py` and `search/` hold such strategies.

P prompts, R rows, T tokens of the longest row, S source tokens, K tokens of a step, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from minitx.decoding.parameters import check_size
from minitx.decoding.prefix.prefix_cache import prefilled
from minitx.decoding.processors.base import State, StatefulProcessor
from minitx.decoding.processors.chain import concatenate_states, select_state
from minitx.decoding.processors.context import Context
from minitx.decoding.prompts import PaddedBatch, pad_embeds, pad_rows, pad_sources, positions_of
from minitx.decoding.request import GenerationRequest
from minitx.decoding.rows.checks import check_rows, check_tokens
from minitx.decoding.rows.history import PREALLOCATED, TokenHistory
from minitx.models import EncoderDecoderModel
from minitx.models.decoder import CausalModel, check_causal_model
from minitx.models.output import ModelOutput
from minitx.models.taps import scope_of
from minitx.validation import ArgumentValueError, check_integer_dtype, check_shape, check_type

# Attributes that `start` sets.
_STARTED = ("history", "cache", "_room", "_slots", "_time", "_logits", "_states", "_chain_input")


class DecodingSession:
    """A model, the rows that it continues, and everything that has been computed for them.

    Nothing runs before `start`, which also sets the history and the cache. All rows have the same number of
    generated tokens, unless `crop` was called with one length per row.

    Attributes:
        model: in eval mode.
        request: the prompts and how to continue them.
        history: the tokens of each row.
        cache: keys and values of the rows' tokens.
        cross_attention: (R, S) float32, of the last token: last layer, mean of heads; None unless requested.
        scores: of each returned row, its score by a search; empty without a search.
        log_weights: of each returned row, its importance weight (see `StochasticBeam`); else empty.
        beams: of each prompt, the tree of a search; else empty.
        observers: functions that get the output of every forward of the model.
    """

    def __init__(self, model: CausalModel, request: GenerationRequest, *, lookahead: int = 0) -> None:
        """
        Args:
            model: the model.
            request: the checked arguments; the chain and prompts are used.
            lookahead: the number of tokens that `crop` must be able to remove; the cache gets room for them.

        Raises:
            TypeError, ValueError: not a request, or not a model for the next token in eval mode.
        """
        check_type("request", request, GenerationRequest, "a GenerationRequest")
        self.model, self.request = check_causal_model(model), request
        self._lookahead = check_size("lookahead", lookahead, hint="the number of tokens to remove")
        self.cross_attention: Tensor | None = None
        self.scores: list[float] = []
        self.log_weights: list[float] = []
        self.beams: list[Any] = []
        self._stateful = any(isinstance(p, StatefulProcessor) for p in request.chain.processors)
        # A row that grows beyond this is run anew: LongRoPE then rotates every position differently.
        self._longrope_limit = model.original_contexts.get("longrope")
        self._model_options: dict[str, Any] = {}
        self.observers: list[Callable[[ModelOutput], None]] = []

    def __getattr__(self, name: str) -> Any:
        """Raises the error for an attribute that is not set; of those that `start` sets, a ValueError."""
        if name in _STARTED:
            raise ValueError("The session has not started; call start() first.")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def start(self, rows_per_prompt: int = 1, *, cross_attention: bool = False) -> None:
        """Runs the model over the prompts, once per prompt, and copies the result to the rows of each.

        Args:
            rows_per_prompt: rows that continue each prompt; they are adjacent.
            cross_attention: fill `cross_attention`; for models with an encoder.

        Raises:
            ArgumentTypeError, ArgumentValueError: `rows_per_prompt` is not a positive integer, or
                `cross_attention` is requested of a model without an encoder.
        """
        check_type("cross_attention", cross_attention, bool, "True or False")
        model, request = self.model, self.request
        rows_per_prompt = check_size("rows_per_prompt", rows_per_prompt, 1, "rows that continue each prompt")
        if cross_attention:
            if request.sources is None:
                raise ArgumentValueError("cross_attention", True, "False for models without an encoder")
            self._model_options["output_cross_attentions"] = [len(model.decoder.layer_order) - 1]
        rows = [prompt for prompt in request.prompts for _ in range(rows_per_prompt)]
        self.history = TokenHistory(rows, request, model.device)
        longest = max(map(len, request.prompts)) + request.max_new_tokens - 1 + self._lookahead
        # Rows without a practical limit get a cache that grows.
        room = longest if request.max_new_tokens <= PREALLOCATED else None
        self._slots, self._time = longest, 0
        self.cache = model.make_cache(room, spare=self._lookahead, dtype=request.cache_dtype)
        embedder = model.decoder_embedder
        self._room = min(longest, embedder.max_tokens) if embedder.has_position_table else longest
        if request.sources is not None:
            assert isinstance(model, EncoderDecoderModel)
            model.encode_into(self.cache, *pad_sources(model, request.sources))
        batch = pad_rows(model, request.prompts)
        self._implicit_positions = batch.position_ids is None
        self._prefill(batch, request.prefill_chunk, pad_embeds(model, request.inputs_embeds))
        self.cache.repeat(rows_per_prompt)
        # Before the last step, and after each of its tokens.
        self._logits: list[Tensor] = [self.logits.repeat_interleave(rows_per_prompt, dim=0)]
        if self.cross_attention is not None:
            self.cross_attention = self.cross_attention.repeat_interleave(rows_per_prompt, dim=0)
        self._states: list[State] = [request.chain.init(self.context)]
        self._chain_input: Tensor | None = self.logits

    @property
    def logits(self) -> Tensor:
        """(R, V) float32, for the next token of each row."""
        if not self._logits:  # since `crop`; the next `step` would not need them
            self._rerun()
        return self._logits[-1]

    @property
    def step_logits(self) -> Tensor:
        """(R, K, V) float32, the logits after each token of the last step."""
        return torch.stack(self._logits[-self._time :] if self._time else [self.logits], dim=1)

    @property
    def states(self) -> State:
        """The states of the chain's processors."""
        return self._states[-1]

    @property
    def context(self) -> Context:
        """The token histories and limits that processors see."""
        return self.history.context

    @property
    def device(self) -> torch.device:
        """The device of tokens and logits."""
        return self.context.length.device

    @property
    def log_probs(self) -> Tensor:
        """(R, V) float32, log-probabilities of the next token by the model."""
        return torch.log_softmax(self.logits, dim=-1)

    @property
    def chain_arguments(self) -> tuple[Tensor, Context, State]:
        """The arguments of the last `process`, or those of the next if there was none."""
        return self.logits if self._chain_input is None else self._chain_input, self.context, self.states

    def process(self, scores: Tensor) -> Tensor:
        """Applies the chain to logits or log-probabilities of the next token: (R, V) -> (R, V)."""
        check_shape("scores", scores, tuple(self.logits.shape), like="logits")
        self._chain_input = scores
        return self.request.chain(scores, self.context, self.states)

    def process_step(self, index: int) -> Tensor:
        """Applies the chain to the logits after one token of the last step, with its history: (R, V).

        Args:
            index: of the token in the step.
        """
        return self.request.chain(*self._after(index))

    def step(
        self,
        tokens: Tensor,
        rows: Tensor | None = None,
        *,
        within_prompts: bool = True,
        drafted: bool = False,
    ) -> None:
        """Appends tokens to the rows and runs the model over them.

        Args:
            tokens: (R,), or (R, K) for several tokens at once; the chain's states see them one by one.
            rows: (R,) long, the rows that the tokens continue, as for `reorder`. None for each row itself.
            within_prompts: as for `reorder`.
            drafted: the last tokens of a row may lie beyond the model's positions; they will be cropped.

        Raises:
            ArgumentTypeError, ArgumentValueError: ids or rows that do not exist, or another number of rows.
            ValueError: inputs_embeds would have to be run again. Errors leave the session as it was.
        """
        if rows is not None:
            check_rows(rows, len(self.history), self.cache.num_sources, within_prompts)
        tokens = check_tokens(self.model, tokens, len(self.history if rows is None else rows)).to(self.device)
        time = tokens.shape[1]
        refill = self.history.crosses(self._longrope_limit, time, rows)
        self._check_refill(refill)
        room = self._slots if drafted else self._room
        if self.cache.length + time > room and self.cache.mask is not None:
            self.cache.crop_rows([0] * len(self.cache.mask), trim=True)
        if self.cache.length + time > room:
            most, hint = room - self.cache.length, "max_new_tokens and lookahead limit the rows"
            raise ArgumentValueError("tokens", tokens, f"at most {most} per row", hint)
        self._logits, self._states = self._logits[-1:], self._states[-1:]
        if rows is not None:
            self._reorder(rows, within_prompts)
        logits, states = [*self._logits], [*self._states]
        if refill and time > 1:  # the keys of earlier and later tokens differ
            for token in tokens.unbind(dim=1):
                self.step(token)
                logits.append(self.logits)
                states.append(self.states)
            self._logits, self._states, self._time = logits, states, time
            return
        start, contexts = self.context.length, []
        for token in tokens.unbind(dim=1):
            contexts.append(self.context)
            self.history.append(token)
        if refill:
            self._refill()
        else:
            self._forward(self._continued(tokens, start), keep=time)
        self._follow(tokens)
        if self._stateful:
            scores: Any = (self._chain_input, *self._logits[:-1])
            for context, token, score in zip(contexts, tokens.unbind(dim=1), scores, strict=True):
                states.append(self.request.chain.update(states[-1], context, token, score))
        else:
            states += states[-1:] * time
        self._logits, self._states, self._time = [*logits, *self._logits], states, time
        self._chain_input = self._logits[-1]

    def reorder(self, rows: Tensor, *, within_prompts: bool = True) -> None:
        """Continues with these rows, in this order; a row may be repeated or left out.

        Args:
            rows: (R',) long.
            within_prompts: every prompt keeps its number of rows, so that the cross-attention cache stays.
                With an encoder, no row is taken from another prompt.

        Raises:
            ArgumentTypeError, ArgumentValueError: rows that do not exist, or not within prompts.
        """
        check_rows(rows, len(self.history), self.cache.num_sources, within_prompts)
        self._reorder(rows, within_prompts)

    def crop(self, length: int | Tensor) -> None:
        """Removes the last tokens of each row, as speculative decoding does with rejected ones.

        Within the last step, logits and processor states of the remaining tokens are restored without a
        forward. Rows that keep different numbers of tokens are aligned by moving keys and values
        (`Cache.crop_rows`); a prefill is needed with LongRoPE, and where a ring buffer has lost tokens.
        Errors change nothing.

        Args:
            length: the number of generated tokens to keep: an integer, or one per row, (R,) long.

        Raises:
            ArgumentTypeError: not integers.
            ArgumentValueError: more tokens than there are, or states from before the last step.
            ValueError: inputs_embeds would have to be run again.
        """
        size, generated = len(self.history), self.context.generated
        lengths = length if isinstance(length, Tensor) else torch.tensor(check_size("length", length))
        check_integer_dtype("length", lengths)
        if lengths.shape not in ((), (size,)):
            raise ArgumentValueError("length", length, f"an integer, or {size} of them, one per row")
        removed = generated - lengths.to(self.device)
        fewest, most = int(removed.min()), int(removed.max())
        if fewest < 0 or bool((removed > generated).any()):
            raise ArgumentValueError("length", length, "at most the number of generated tokens of each row")
        if most == 0:
            return
        if self._stateful and most >= len(self._states):
            raise ArgumentValueError("length", length, "reached within the last step", "the chain has states")
        known = most < len(self._logits)
        refill = self.history.crosses(self._longrope_limit, -most)
        refill |= self._longrope_limit is not None and (fewest < most or not known)
        self._check_refill(not known and bool((removed == generated).any()))
        refill = refill or not self._cut(removed.expand(size).tolist())
        self._check_refill(refill)
        if self._stateful:
            index = (len(self._states) - 1 - removed) * size + torch.arange(size, device=self.device)
            self._states = [select_state(concatenate_states(self._states), index)]
        self.history.crop(removed)
        self._time = max(0, self._time - most) if fewest == most and known else 0
        if refill:
            self._refill()
        elif not known:
            self._logits = []
        elif fewest == most:
            del self._logits[-most:]
        else:
            kept = torch.empty_like(self._logits[-1])
            for count in {*removed.tolist()}:
                kept[removed == count] = self._logits[-1 - count][removed == count]
            self._logits = [kept]
        self._chain_input = self._logits[-1] if self._logits else None

    def raise_for_empty_rows(self, rows: Tensor, index: int | None = None, arguments: Any = None) -> None:
        """Checks that each of these rows, (R,) bool, has a token to draw; see `Chain`.

        `index` is that of a token in the last step; None for the last `process`, or that of `arguments`.
        """
        logits, context, states = arguments or self.chain_arguments if index is None else self._after(index)
        self.request.chain.raise_for_empty_rows(logits, context, states, rows)

    def _after(self, index: int) -> tuple[Tensor, Context, State]:
        """Returns logits, context and states after a token of the last step."""
        place = index - self._time
        context = replace(self.context, length=self.context.length + place + 1)
        return self._logits[place], context, self._states[place]

    def _reorder(self, rows: Tensor, within_prompts: bool) -> None:
        if rows.is_cpu and rows.tolist() == [*range(len(self.history))]:
            return
        (self.cache.reorder if within_prompts else self.cache.select)(rows)
        self.history.select(rows)
        self._logits = [logits[rows] for logits in self._logits]
        self._states = [select_state(states, rows) for states in self._states]
        self._chain_input = None if self._chain_input is None else self._chain_input[rows]
        if self.cross_attention is not None:
            self.cross_attention = self.cross_attention[rows]

    def _prefill(self, batch: PaddedBatch, chunk: int | None = None, embeds: Tensor | None = None) -> None:
        """Runs the model over whole rows, (B, T), `chunk` tokens at a time."""
        time = batch.input_ids.shape[1]
        if chunk is None or any(time > point for point in self.model.original_contexts.values()):
            chunk = time  # with these rotary positions the first chunk needs to know the whole length
        own = self.cache
        with prefilled(self.request.prefix, self.model, own, batch) as (self.cache, known):
            for start in range(known, time, chunk):
                part = slice(start, start + chunk)
                inputs: Any = (None if x is None else x[:, part] for x in batch)
                self._forward(PaddedBatch(*inputs), None if embeds is None else embeds[:, part])
        self.cache = own

    def _check_refill(self, refill: bool) -> None:
        """Checks that `_refill`, if it is about to be called, has the ids of all tokens."""
        if refill and self.request.inputs_embeds is not None:
            raise ValueError(
                "inputs_embeds cannot be run again, as this step requires: leave out per-row crop(...), or "
                "stay within the original context length of LongRoPE."
            )

    def _cut(self, removed: list[int]) -> bool:
        """Removes the last tokens of each row from the cache; returns whether that is possible."""
        try:
            self.cache.crop_rows(removed)
        except ValueError:  # of a ring buffer
            return False
        self._implicit_positions &= min(removed) == max(removed)
        return True

    def _rerun(self) -> None:
        """Runs the last token of each row again, for the logits after it."""
        if self._cut([1] * len(self.history)):
            self._forward(self._continued(self.context.last(1), self.context.length - 1))
        else:
            self._refill()
        self._chain_input = self._logits[-1]

    def _continued(self, tokens: Tensor, start: Tensor) -> PaddedBatch:
        """Returns tokens (R, K) as a batch with their positions; the first are at `start`, (R,)."""
        if self._implicit_positions:
            return PaddedBatch(tokens, None, None)
        places = start[:, None] + torch.arange(tokens.shape[1], device=start.device)
        if self.model.decoder_embedder.has_position_table:
            places = places.clamp(max=self.model.decoder_embedder.max_tokens - 1)
        return PaddedBatch(tokens, None, positions_of(self.model, tokens, places))

    def _refill(self) -> None:
        """Runs the model over the whole history again, in an empty cache."""
        self.cache.crop(0)
        batch = pad_rows(self.model, self.history.rows())
        self._implicit_positions = batch.position_ids is None
        self._prefill(batch)

    def _forward(self, batch: PaddedBatch, embeds: Tensor | None = None, keep: int = 1) -> None:
        """Runs the model over new tokens (B, T); `embeds` replace their ids; logits of the last `keep`."""
        options, inputs = self._model_options, tuple[Tensor | None, ...](batch)
        if embeds is not None:
            options, inputs = {**options, "inputs_embeds": embeds}, (None, *batch[1:])
        if scope := scope_of(self.model):
            scope.rows = self.history.prompts, self.context.length
        out = self.model.decode(*inputs, cache=self.cache, logits_to_keep=keep, **options)
        assert out.logits is not None, "a language model has logits"
        self._logits = [*out.logits[:, -keep:].float().unbind(dim=1)]
        weights = None if out.cross_attentions is None else out.cross_attentions[-1]  # (R, H, T, S)
        self.cross_attention = None if weights is None else weights[:, :, -1].float().mean(dim=1)
        for observer in self.observers:
            observer(out)

    def _follow(self, tokens: Tensor) -> None:
        """Changes the logits of a step over tokens (R, K) before the chain sees them, as guidance does."""
