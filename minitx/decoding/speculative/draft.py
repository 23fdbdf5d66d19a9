"""The interface of a draft: a frozen value that describes it, and a drafter that serves one generation.

    Draft.check      refuses a model or a request that the draft cannot serve, before any work
    Draft.start      makes the drafter of one generation
    Drafter.propose  returns the next tokens of each row, and the distributions that they were drawn from

R rows, K drafted tokens of the row with the most, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from minitx.decoding.output import Event
from minitx.decoding.processors.context import Context
from minitx.decoding.request import GenerationRequest
from minitx.decoding.session import DecodingSession
from minitx.decoding.speculative.randomness import Randomness


class Proposal(NamedTuple):
    """Drafted tokens.

    Attributes:
        tokens: (R, K) long.
        counts: (R,) long, the number of tokens of each row; those after them are not proposed.
        logits: (R, K, V), of the distributions that the tokens were drawn from, after the draft's
            processors; None where nothing was drawn, so that each distribution is one-hot.
    """

    tokens: Tensor
    counts: Tensor
    logits: Tensor | None = None

    @classmethod
    def empty(cls, rows: int, device: torch.device) -> Proposal:
        """Returns a proposal without tokens."""
        counts = torch.zeros(rows, dtype=torch.long, device=device)
        return cls(counts[:, None][:, :0], counts)

    @classmethod
    def padded(cls, rows: list[list[int]], device: torch.device) -> Proposal:
        """Returns a proposal of tokens that were not drawn, of any number per row."""
        counts = [len(row) for row in rows]
        tokens = [row + [0] * (max(counts) - len(row)) for row in rows]
        return cls(torch.tensor(tokens, dtype=torch.long, device=device), torch.tensor(counts, device=device))


class Drafter(Protocol):
    """Proposes tokens in one generation."""

    def propose(self, context: Context, most: Tensor, counter: Tensor) -> Proposal:
        """Returns the next tokens of each row.

        Tokens of an earlier proposal that are not in the history were rejected. A row's proposal may depend
        on its own history and counter alone, and not on the batch.

        Args:
            context: the history of each row.
            most: (R,) long, the most tokens of each row, some of them 0.
            counter: (R,) long, from which on `most` counters are free for the random numbers of this block.
        """

    def select(self, rows: Tensor) -> None:
        """Continues with these rows, (R',) long, in this order."""


@dataclass(frozen=True)
class DraftCall:
    """The generation that a draft is to serve.

    Attributes:
        session: of the model that verifies, started.
        randomness: for the stream "draft".
        lookahead: the most tokens that are proposed at once.
        confidence: a row's proposal ends with a token less probable than this; 0: none does.
    """

    session: DecodingSession
    randomness: Randomness
    lookahead: int
    confidence: float = 0.0


class Draft:
    """Base class of drafts: values that describe how tokens are proposed."""

    def check(self, model: Any, request: GenerationRequest) -> None:
        """Checks that the draft can serve a model and a request.

        Raises:
            ArgumentValueError: it cannot.
        """

    def start(self, call: DraftCall) -> Drafter:
        """Returns the drafter of one generation."""
        raise NotImplementedError

    def generate(self, session: DecodingSession, strategy: Any) -> Iterator[list[Event]] | None:
        """Generates by a loop of the draft's own; None for that of `Speculative`, which calls `start`.

        Args:
            session: not yet started.
            strategy: the `Speculative(...)` of the call.
        """
        return None


class HistoryDrafter:
    """A drafter that computes each row's tokens from its history, and draws nothing.

    Args:
        continuation: (tokens of a row, number of the row, most tokens to propose) -> proposed tokens.
        rows: number of rows.
    """

    def __init__(self, continuation: Callable[[list[int], int, int], list[int]], rows: int) -> None:
        self._continuation = continuation
        self._numbers = list(range(rows))

    def propose(self, context: Context, most: Tensor, counter: Tensor) -> Proposal:
        """Returns the continuation of each row."""
        histories, lengths = context.tokens.tolist(), context.length.tolist()
        rows = zip(self._numbers, histories, lengths, most.tolist(), strict=True)
        drafted = [
            self._continuation(tokens[:length], number, limit)[:limit] if limit else []
            for number, tokens, length, limit in rows
        ]
        return Proposal.padded(drafted, context.tokens.device)

    def select(self, rows: Tensor) -> None:
        """Keeps these rows."""
        self._numbers = [self._numbers[row] for row in rows.tolist()]
