"""What generation hands out: events while it runs, a result when it is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from minitx.decoding.search.record import BeamTree

# "eos": an end token; "stop": a stop token or string; "length": max_new_tokens.
FinishReason = Literal["eos", "stop", "length"]


class TopLogprobs(NamedTuple):
    """The n most probable tokens at each place, the most probable first.

    Attributes:
        ids: (T, n) long.
        values: (T, n) float32, their log-probabilities in nats; -inf for a token that could not be drawn.
    """

    ids: Tensor
    values: Tensor


class Event(NamedTuple):
    """One token of one row.

    Attributes:
        row: number of the row; those of prompt i are i * num_samples and the following.
        token: its id.
        text: the text that is certain now, often this token's, sometimes none; "" without a tokenizer.
        finish_reason: why the row ends with this token; None if it goes on.
        logprob: of the token, if asked for.
        top_logprobs: ids and log-probabilities of the most probable tokens, if asked for.
    """

    row: int
    token: int
    text: str
    finish_reason: FinishReason | None = None
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] | None = None


@dataclass(frozen=True, eq=False)
class Row:
    """One row of a `Result`; its fields are explained there."""

    tokens: Tensor
    text: str | None
    finish_reason: FinishReason
    logprobs: Tensor | None
    top_logprobs: TopLogprobs | None
    score: float | None
    log_weight: float | None


@dataclass(frozen=True, eq=False)
class Result:
    """What was generated, row by row: those of the first prompt, then those of the second.

    Attributes:
        sequences: per row (T,) long, on the CPU: the new tokens alone, with the token that ended the row,
            without padding.
        texts: per row, the text that the tokens add to the prompt: without special and end tokens, and cut at
            a stop string. None without a tokenizer.
        finish_reasons: per row "eos", "stop" or "length".
        logprobs: per row (T,) float32, in nats, of each token; None if not asked for.
        top_logprobs: per row the most probable tokens at each place; None if not asked for.
        scores: per row, by what a search chose it; the rows of a prompt are its best, the best first. None
            where there was no search.
        beams: per prompt, all that a search kept, as a tree to be printed; None where there was no search.
        log_weights: per row, the logarithm of its weight in an estimate (see `StochasticBeam`). None where
            rows have no weights.
    """

    sequences: list[Tensor]
    texts: list[str] | None
    finish_reasons: list[FinishReason]
    logprobs: list[Tensor] | None = None
    top_logprobs: list[TopLogprobs] | None = None
    scores: list[float] | None = None
    beams: list[BeamTree] | None = None
    log_weights: list[float] | None = None

    def __len__(self) -> int:
        return len(self.sequences)

    def __str__(self) -> str:
        """A line for each row: its number, why it ended, its score if it has one, its text or its ids."""
        return "\n".join(map(_line, range(len(self)), self))

    def __getitem__(self, row: int) -> Row:
        """Everything about one row.

        Raises:
            TypeError: a slice, or another kind of index.
        """
        if not isinstance(row, int):
            raise TypeError(f"result[{row!r}]: expected the number of one row; list(result) has all of them.")
        return Row(
            self.sequences[row],
            None if self.texts is None else self.texts[row],
            self.finish_reasons[row],
            None if self.logprobs is None else self.logprobs[row],
            None if self.top_logprobs is None else self.top_logprobs[row],
            None if self.scores is None else self.scores[row],
            None if self.log_weights is None else self.log_weights[row],
        )

    def __iter__(self) -> Iterator[Row]:
        return (self[row] for row in range(len(self)))


def _line(number: int, row: Row) -> str:
    score = "" if row.score is None else f"  {row.score:9.3f}"
    start = f"{number:>4}  {row.finish_reason:<6}{score}  "
    shown = repr(row.tokens.tolist() if row.text is None else row.text)
    return start + (shown if len(start + shown) <= 80 else f"{shown[: 79 - len(start)]}…")


def collected(
    events: Iterator[Event], rows: int, *, has_text: bool, has_logprobs: bool, top_logprobs: int
) -> Result:
    """The result of all events of a call.

    Args:
        events: of all rows; those of one row in their order.
        rows: how many there are. One without an event was to have no token: its reason is "length".
        has_text, has_logprobs, top_logprobs: what was asked for.
    """
    by_row: list[list[Event]] = [[] for _ in range(rows)]
    for event in events:
        by_row[event.row].append(event)
    with torch.inference_mode(False):  # what comes out may enter a loss
        return Result(
            sequences=[torch.tensor([e.token for e in row], dtype=torch.long) for row in by_row],
            texts=["".join(e.text for e in row) for row in by_row] if has_text else None,
            finish_reasons=[(row[-1].finish_reason or "length") if row else "length" for row in by_row],
            logprobs=[torch.tensor([e.logprob for e in row], dtype=torch.float32) for row in by_row]
            if has_logprobs
            else None,
            top_logprobs=[_top(row, top_logprobs) for row in by_row] if top_logprobs else None,
        )


def _top(row: list[Event], count: int) -> TopLogprobs:
    pairs = [event.top_logprobs or () for event in row]
    return TopLogprobs(
        torch.tensor([[token for token, _ in each] for each in pairs], dtype=torch.long).view(-1, count),
        torch.tensor([[value for _, value in each] for each in pairs], dtype=torch.float32).view(-1, count),
    )
