"""The loop of strategies that choose one token at a time: `Greedy`, `Sample` and their relatives.

Searches, which compare whole sequences, have theirs in `search/base.py`; both give their tokens as events.

R rows (prompts times samples), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from minitx.decoding.output import Event, FinishReason
from minitx.decoding.prefix.prefix_cache import model_is_watched
from minitx.decoding.processors.chain import unusable
from minitx.decoding.request import GenerationRequest
from minitx.decoding.session import DecodingSession
from minitx.decoding.text.detokenize import Detokenizer
from minitx.decoding.text.row import RowText
from minitx.device import read
from minitx.guarantees import is_unchanged, only_argmax_used
from minitx.optimize.screen import ScreenedWeight, usable_screen
from minitx.validation import trusted_values

# Called with the session before each step, and with the tokens (R,) that were chosen.
Observer = Callable[[DecodingSession, Tensor], None]


@torch.inference_mode()
def choose_tokens(session: DecodingSession, observe: Observer | None = None) -> Iterator[list[Event]]:
    """Samples a token per row until all rows have ended; yields the events of each step.

    Rows that have ended stay in the batch until the last one ends, so that a generator draws the same numbers
    as in transformers; they have no more events. The tokens are read after every `request.run_ahead` steps.

    Raises:
        ValueError: a row has no token that can be drawn.
    """
    request = session.request
    if request.max_new_tokens == 0:
        return
    rows = RowState.all_of(request)
    session.start(request.num_samples)
    screen = screen_of(session)
    steps: list[_Step] = []
    for position in range(request.max_new_tokens):
        processed = session.process(session.logits)
        steps.append(_Step(request.sampler(processed, position), processed, session.chain_arguments))
        is_last = position + 1 == request.max_new_tokens
        if is_last or len(steps) == request.run_ahead:
            yield from _read(session, rows, steps, observe)
            if is_last or all(row.reason for row in rows):
                return
        if screen is not None and not is_unchanged(session.model):
            screen = screen_of(session)
        with trusted_values(), only_argmax_used(screen):
            session.step(steps[-1].token)
        steps = steps if len(steps) < request.run_ahead else []


def screen_of(session: DecodingSession) -> ScreenedWeight | None:
    """Returns the weight of a screened head if nothing but the argmax of its logits is used."""
    screen = usable_screen(session.model) if session.request.only_argmax else None
    return None if screen is None or model_is_watched(session.model) else screen


class _Step(NamedTuple):
    """A step whose tokens have not been read.

    Attributes:
        token: (R,)
        processed: (R, V), the logits from which they were chosen.
        arguments: `chain_arguments`, for an error.
    """

    token: Tensor
    processed: Tensor
    arguments: Any


def _read(
    session: DecodingSession, rows: list[RowState], steps: list[_Step], observe: Observer | None
) -> Iterator[list[Event]]:
    """Yields the events of the steps, up to the one with which the last row ends."""
    request, late = session.request, session.request.stop.is_late
    tokens = read([torch.where(unusable(step.processed), -1, step.token) for step in steps])
    for (token, processed, arguments), drawn in zip(steps, tokens, strict=True):
        if any(token_id < 0 and row.reason is None for token_id, row in zip(drawn, rows, strict=True)):
            going = torch.tensor([row.reason is None for row in rows]).to(token.device)
            session.raise_for_empty_rows(going, arguments=arguments)
        if observe is not None:
            observe(session, token)
        extras = logprobs_of(request, session.logits if request.logprobs == "raw" else processed, token)
        yield [
            Event(number, token_id, *row.push(token_id, late), *extra)
            for number, (row, token_id, extra) in enumerate(zip(rows, drawn, extras, strict=True))
            if row.reason is None
        ]
        if all(row.reason for row in rows):
            return


class RowState:
    """The text of one row, its number of tokens, and the reason why it has ended."""

    def __init__(
        self,
        request: GenerationRequest,
        prompt: Sequence[int],
        min_new_tokens: int,
        number: int = 0,
        repeated: int = 0,
    ) -> None:
        """
        Args:
            request: of the row.
            prompt: that the row continues.
            min_new_tokens: of the row.
            number: of the row, for `Stop(function=...)`.
            repeated: the characters at its beginning that the prompt had.
        """
        self._stop, self._number = request.stop, number
        self._min_new_tokens, self._max_new_tokens = min_new_tokens, request.max_new_tokens
        self._tokens: list[int] = []
        self._text = None
        if request.tokenizer is not None:
            detokenizer = Detokenizer(request.tokenizer, prompt, repeated)
            stop = request.stop
            self._text = RowText(detokenizer, stop.strings, stop.include_stop, stop.regex)
        self.reason: FinishReason | None = None

    @classmethod
    def of(cls, request: GenerationRequest, prompt: int, number: int) -> Self:
        """The row of this number that continues a prompt; in a search the number is that of the prompt."""
        repeated = request.repeated[prompt] if request.repeated else 0
        return cls(request, request.prompts[prompt], request.min_new_tokens[number], number, repeated)

    @classmethod
    def all_of(cls, request: GenerationRequest) -> list[Self]:
        """The rows of a request that is no search: the samples of each prompt, prompt after prompt."""
        numbers = range(len(request.prompts) * request.num_samples)
        return [cls.of(request, number // request.num_samples, number) for number in numbers]

    def copy(self) -> RowState:
        """Returns a copy that can be continued independently."""
        other = copy(self)
        other._tokens = list(self._tokens)
        other._text = None if self._text is None else self._text.copy()
        return other

    def push(self, token: int, late: bool | None = None) -> tuple[str, FinishReason | None]:
        """Appends a token; returns the text that is certain now, and why the row ends here, if it does.

        Args:
            token: its id.
            late: the seconds of the call are over; None looks at the time.
        """
        self._tokens.append(token)
        may_stop = len(self._tokens) >= self._min_new_tokens
        text, ended = "", False
        if token in self._stop.eos:
            self.reason = "eos"
        elif token in self._stop.tokens and may_stop:
            self.reason = "stop"
        shown = self.reason is None or (self.reason == "stop" and self._stop.include_stop)
        if self._text is not None and shown:
            text, ended = self._text.push(token, may_stop=may_stop)
        if ended or (self.reason is None and may_stop and self._stop.ends(self._number, self._tokens)):
            self.reason = "stop"
        elif self.reason is None and len(self._tokens) == self._max_new_tokens:
            self.reason = "length"
        elif self.reason is None and may_stop and (self._stop.is_late if late is None else late):
            self.reason = "time"
        if self._text is not None and self.reason is not None and not ended:
            text += self._text.finish()
        return text, self.reason


def logprobs_of(request: GenerationRequest, logits: Tensor, token: Tensor) -> Sequence[tuple[Any, ...]]:
    """Returns the last fields of each row's event: log-probabilities by logits (R, V), if requested."""
    if request.logprobs is None:
        return [()] * len(token)
    table = torch.log_softmax(logits, dim=-1)
    chosen = table.gather(1, token[:, None]).squeeze(1).tolist()
    values, ids = table.topk(request.top_logprobs, dim=-1)
    pairs = zip(ids.tolist(), values.tolist(), strict=True)
    return list(zip(chosen, (tuple(zip(*pair, strict=True)) or None for pair in pairs), strict=True))
