"""The loop: the model's logits, the chain, the selector, the next token; and again.

Everything has been checked before: `generate.py` makes a `Call` of what it is given. Later kinds of search
have loops of their own and share the parts.

B rows (prompts times samples), T longest prompt, V vocabulary, L = T + max_new_tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from minitx.decoding.chain import Chain, State, unusable
from minitx.decoding.context import Context
from minitx.decoding.detokenize import Detokenizer
from minitx.decoding.prompts import PaddedBatch, padded
from minitx.decoding.result import Event, FinishReason, Result
from minitx.decoding.select import Selector
from minitx.decoding.stop import ResolvedStop, RowText

if TYPE_CHECKING:
    from minitx.cache import Cache
    from minitx.models import DecoderModel
    from minitx.tokenizer import Tokenizer

Logprobs = Literal["raw", "processed"]
Observer = Callable[[Tensor, Context, State, Tensor], None]
Searching = Callable[["Call"], Result]

# Room for so many new tokens is made at once; who asks for more mostly means "until it ends".
ROOM = 2**14


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of `generate` or `stream`, with nothing left open.

    Attributes:
        model: in eval mode.
        prompts: the ids of each prompt, without padding.
        num_samples: rows per prompt.
        search: of a strategy that compares whole texts, what runs the call; None for one that goes token by
            token.
        chain, selector: how a token is chosen.
        stop: what ends a row.
        max_new_tokens: most tokens per row.
        min_new_tokens: per row (of a search: per prompt), before how many nothing stops it.
        tokenizer: for texts; None gives none.
        logprobs, top_logprobs: what an event says beside the token.
        prefill_chunk: most tokens of the prompts in one forward; None for all.
        observe: called at every step with the model's logits (B, V), the context and the states that the
            chain is called with, and the tokens (B,) that were drawn.
    """

    model: DecoderModel
    prompts: list[list[int]]
    num_samples: int
    chain: Chain
    selector: Selector
    stop: ResolvedStop
    max_new_tokens: int
    min_new_tokens: list[int]
    tokenizer: Tokenizer | None = None
    logprobs: Logprobs | None = None
    top_logprobs: int = 0
    prefill_chunk: int | None = None
    observe: Observer | None = None
    search: Searching | None = None


@torch.inference_mode()
def steps(call: Call) -> Iterator[list[Event]]:
    """Runs the call; yields the events of each step, one for each row that has not ended before.

    All rows are computed until the last one ends, so that a generator gives each row the numbers that it
    gives in transformers.

    Raises:
        ValueError: a row is left without a token to draw.
    """
    if call.max_new_tokens == 0:
        return
    device = call.model.embedder.word_emb.weight.device
    batch = padded(call.prompts, call.model.config.embedder.pad_token_id or 0, device)
    # Rows that may become very long get a cache that grows.
    room = batch.input_ids.shape[1] + call.max_new_tokens - 1 if call.max_new_tokens <= ROOM else None
    cache = call.model.make_cache(room)
    logits = prefill(call.model, batch, cache, call.prefill_chunk)
    cache.repeat(call.num_samples)
    logits = logits.repeat_interleave(call.num_samples, dim=0)
    prompts = [prompt for prompt in call.prompts for _ in range(call.num_samples)]
    rows = [RowState(call, prompt, least) for prompt, least in zip(prompts, call.min_new_tokens, strict=True)]
    history = History(prompts, call, device)
    states = call.chain.init(history.context)
    for step in range(call.max_new_tokens):
        processed = call.chain(logits, history.context, states)
        token = call.selector(processed, step)  # (B,)
        drawn = torch.where(unusable(processed), -1, token).tolist()
        if any(each < 0 and row.reason is None for each, row in zip(drawn, rows, strict=True)):
            going_on = torch.tensor([row.reason is None for row in rows], device=device)
            call.chain.blame(logits, history.context, states, going_on)
        if call.observe is not None:
            call.observe(logits, history.context, states, token)
        extras = _logprobs(call, logits if call.logprobs == "raw" else processed, token)
        yield [
            Event(number, each, *row.take(each), *extra)
            for number, (row, each, extra) in enumerate(zip(rows, drawn, extras, strict=True))
            if row.reason is None
        ]
        if step + 1 == call.max_new_tokens or all(row.reason for row in rows):
            return
        states = call.chain.update(states, history.context, token, logits)
        positions = None if batch.position_ids is None else history.context.length[:, None]
        history.append(token)
        if history.outgrew(call.model.turning_points.get("longrope")):
            cache = call.model.make_cache(room)
            logits = prefill(call.model, padded(history.rows(), 0, device), cache)
        else:
            logits = next_logits(call.model, token[:, None], None, positions, cache)


def prefill(model: DecoderModel, batch: PaddedBatch, cache: Cache, chunk: int | None = None) -> Tensor:
    """Runs the prompts, (B, T), `chunk` tokens at a time; returns the logits of the next token, (B, V)."""
    ids, mask, positions = batch
    if any(ids.shape[1] > point for point in model.turning_points.values()):
        chunk = None  # the first chunk could not know how long the text is
    logits = None
    for start in range(0, ids.shape[1], chunk or ids.shape[1]):
        part = slice(start, start + (chunk or ids.shape[1]))
        logits = next_logits(
            model,
            ids[:, part],
            None if mask is None else mask[:, part],
            None if positions is None else positions[:, part],
            cache,
        )
    assert logits is not None, "a prompt has a token"
    return logits


def next_logits(
    model: DecoderModel, ids: Tensor, mask: Tensor | None, positions: Tensor | None, cache: Cache
) -> Tensor:
    """(B, T) new ids, their mask and positions -> (B, V) float32 logits of what follows the last one."""
    out = model(ids, attention_mask=mask, position_ids=positions, cache=cache, logits_to_keep=1)
    assert out.logits is not None, "a causal language model has logits"
    logits: Tensor = out.logits[:, -1].float()
    return logits


class History:
    """The rows' tokens, left-aligned in room that is made once, or a few times if they become very long."""

    def __init__(self, prompts: Sequence[Sequence[int]], call: Call, device: torch.device) -> None:
        room = max(map(len, prompts)) + min(call.max_new_tokens, ROOM)
        tokens = torch.zeros(len(prompts), room, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = torch.tensor(prompt)
        self._prompt_length = torch.tensor([len(prompt) for prompt in prompts], device=device)
        self._lengths = {len(prompt) for prompt in prompts}  # known without asking the device
        self._call = call
        self._tokens = tokens.to(device)
        self.context = self._context(self._prompt_length)

    def append(self, token: Tensor) -> None:
        """Adds a token (B,) to each row."""
        length = self.context.length
        if max(self._lengths) == self._tokens.shape[1]:
            self._tokens = torch.cat((self._tokens, torch.zeros_like(self._tokens)), dim=1)
        self._lengths = {each + 1 for each in self._lengths}
        self._tokens.scatter_(1, length[:, None], token[:, None])
        self.context = self._context(length + 1)

    def select(self, rows: Tensor) -> None:
        """Keeps these rows, in this order, as often as they are named. rows: (B',) long."""
        self._tokens = self._tokens[rows]
        self._prompt_length = self._prompt_length[rows]
        self.context = self._context(self.context.length[rows])

    def outgrew(self, length: int | None) -> bool:
        """Whether the last token made a row longer than `length` tokens."""
        return length is not None and length + 1 in self._lengths

    def rows(self) -> list[list[int]]:
        """The tokens of each row."""
        lengths = self.context.length.tolist()
        return [row[:length] for row, length in zip(self._tokens.tolist(), lengths, strict=True)]

    def _context(self, length: Tensor) -> Context:
        return Context(
            tokens=self._tokens,
            length=length,
            prompt_length=self._prompt_length,
            eos=self._call.stop.eos,
            max_new_tokens=self._call.max_new_tokens,
        )


class RowState:
    """One row: its text, how many tokens it has, and why it has ended."""

    def __init__(self, call: Call, prompt: Sequence[int], least: int) -> None:
        self._stop = call.stop
        self._least = least
        self._most = call.max_new_tokens
        self._count = 0
        self._text = None
        if call.tokenizer is not None:
            detokenizer = Detokenizer(call.tokenizer, prompt)
            self._text = RowText(detokenizer, call.stop.strings, call.stop.include_stop)
        self.reason: FinishReason | None = None

    def take(self, token: int) -> tuple[str, FinishReason | None]:
        """The next token: the text that is certain with it, and why the row ends with it, if it does."""
        self._count += 1
        may_stop = self._count >= self._least
        text, ended = "", False
        if token in self._stop.eos:
            self.reason = "eos"
        elif token in self._stop.tokens and may_stop:
            self.reason = "stop"
        if self._text is not None and (
            self.reason is None or (self.reason == "stop" and self._stop.include_stop)
        ):
            text, ended = self._text.push(token, may_stop=may_stop)
        if ended:
            self.reason = "stop"
        elif self.reason is None and self._count == self._most:
            self.reason = "length"
        if self._text is not None and self.reason is not None and not ended:
            text += self._text.finish()
        return text, self.reason


def _logprobs(
    call: Call, logits: Tensor, token: Tensor
) -> Sequence[tuple[()] | tuple[float, tuple[tuple[int, float], ...] | None]]:
    """Per row what the call wants to know of the distribution that logits (B, V) stand for."""
    if call.logprobs is None:
        return [()] * len(token)
    table = torch.log_softmax(logits, dim=-1)
    chosen = table.gather(1, token[:, None]).squeeze(1).tolist()
    if not call.top_logprobs:
        return [(value, None) for value in chosen]
    values, ids = table.topk(call.top_logprobs, dim=-1)
    tops = [tuple(zip(*pair, strict=True)) for pair in zip(ids.tolist(), values.tolist(), strict=True)]
    return list(zip(chosen, tops, strict=True))
