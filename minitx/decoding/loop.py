"""The loop: the model's logits, the chain, the selector, the next token; and again.

Everything has been checked before: `prepare.py` makes a `Call` of what `generate` and its like are given.
Searches, which compare whole texts, go step by step in `search.py`, and share the parts.

B rows (prompts times samples), T longest prompt, V vocabulary, L = T + max_new_tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from minitx.decoding.detokenize import Detokenizer
from minitx.decoding.output import Event, FinishReason, Result
from minitx.decoding.processors.base import State
from minitx.decoding.processors.chain import Chain, unusable
from minitx.decoding.processors.context import Context
from minitx.decoding.prompts import padded_behind
from minitx.decoding.samplers.base import Sampler
from minitx.decoding.session import ROOM, Stepper
from minitx.decoding.stopping import ResolvedStop, RowText

if TYPE_CHECKING:
    from minitx.models import CausalModel
    from minitx.tokenizer import Tokenizer

Logprobs = Literal["raw", "processed"]
Observer = Callable[[Tensor, Context, State, Tensor], None]
Searching = Callable[["Call"], Result]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of `generate` or `stream`, with nothing left open.

    Attributes:
        model: in eval mode.
        prompts: the ids of each prompt, without padding; of an encoder-decoder, those that its decoder goes
            on from.
        sources: the ids of the texts that an encoder reads, one for each prompt; None without one.
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

    model: CausalModel
    prompts: list[list[int]]
    num_samples: int
    chain: Chain
    sampler: Sampler
    stop: ResolvedStop
    max_new_tokens: int
    min_new_tokens: list[int]
    tokenizer: Tokenizer | None = None
    logprobs: Logprobs | None = None
    top_logprobs: int = 0
    prefill_chunk: int | None = None
    observe: Observer | None = None
    search: Searching | None = None
    sources: list[list[int]] | None = None


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
    device = call.model.decoder_embedder.word_emb.weight.device
    stepper = Stepper(call, call.num_samples)
    prompts = [prompt for prompt in call.prompts for _ in range(call.num_samples)]
    rows = [RowState(call, prompt, least) for prompt, least in zip(prompts, call.min_new_tokens, strict=True)]
    history = TokenHistory(prompts, call, device)
    states = call.chain.init(history.context)
    for step in range(call.max_new_tokens):
        logits = stepper.logits
        processed = call.chain(logits, history.context, states)
        token = call.sampler(processed, step)  # (B,)
        drawn = torch.where(unusable(processed), -1, token).tolist()
        if any(each < 0 and row.reason is None for each, row in zip(drawn, rows, strict=True)):
            going_on = torch.tensor([row.reason is None for row in rows], device=device)
            call.chain.raise_for_empty_rows(logits, history.context, states, going_on)
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
        history.append(token)
        stepper.step(token, history)


class TokenHistory:
    """The rows' tokens, left-aligned in room that is made once, or a few times if they become very long."""

    def __init__(self, prompts: Sequence[Sequence[int]], call: Call, device: torch.device) -> None:
        room = max(map(len, prompts)) + min(call.max_new_tokens, ROOM)
        tokens = torch.zeros(len(prompts), room, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = torch.tensor(prompt)
        self._lengths = {len(prompt) for prompt in prompts}  # known without asking the device
        length = torch.tensor([len(prompt) for prompt in prompts], device=device)
        read, read_length = _source(call, len(prompts), device)
        self.context = Context(
            tokens=tokens.to(device),
            length=length,
            prompt_length=length,
            eos=call.stop.eos,
            max_new_tokens=call.max_new_tokens,
            encoder_tokens=read,
            encoder_length=read_length,
        )

    def append(self, token: Tensor) -> None:
        """Adds a token (B,) to each row."""
        tokens, length = self.context.tokens, self.context.length
        if max(self._lengths) == tokens.shape[1]:
            tokens = torch.cat((tokens, torch.zeros_like(tokens)), dim=1)
        self._lengths = {each + 1 for each in self._lengths}
        tokens.scatter_(1, length[:, None], token[:, None])
        self.context = replace(self.context, tokens=tokens, length=length + 1)

    def select(self, rows: Tensor) -> None:
        """Keeps these rows, in this order, as often as they are named. rows: (B',) long."""
        self.context = self.context.select(rows)

    def outgrew(self, length: int | None) -> bool:
        """Whether the last token made a row longer than `length` tokens."""
        return length is not None and length + 1 in self._lengths

    def rows(self) -> list[list[int]]:
        """The tokens of each row."""
        pairs = zip(self.context.tokens.tolist(), self.context.length.tolist(), strict=True)
        return [row[:length] for row, length in pairs]


def _source(call: Call, rows: int, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """The texts that an encoder reads, (R, S) and their lengths (R,), for as many rows; if there is one."""
    if call.sources is None:
        return None, None
    ids, _ = padded_behind(call.sources, 0, device)
    lengths = torch.tensor([len(source) for source in call.sources], device=device)
    copies = rows // len(call.sources)
    return ids.repeat_interleave(copies, dim=0), lengths.repeat_interleave(copies)


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
