"""The output of generation: events while it runs, a result when it is done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from minitx.decoding.request import GenerationRequest
from minitx.decoding.search.tree import BeamTree
from minitx.validation import check_type

# "eos": an end token; "stop": a stop token, text, repetition or function; "length": max_new_tokens;
# "time": the seconds of the call are over.
FinishReason = Literal["eos", "stop", "length", "time"]


class TopLogprobs(NamedTuple):
    """The n most probable tokens at each step, most probable first.

    Attributes:
        ids: (T, n) long.
        values: (T, n) float32, their log-probabilities in nats; -inf for a token that cannot be drawn.
    """

    ids: Tensor
    values: Tensor


class Event(NamedTuple):
    """One token of one row.

    Attributes:
        row: number of the row; those of prompt i begin at i * num_samples.
        token: its id.
        text: the text that is certain now, often the token's, sometimes none; "" without a tokenizer.
        finish_reason: why the row ends with this token; None if it continues.
        logprob: of the token, if requested.
        top_logprobs: ids and log-probabilities of the most probable tokens, if requested.
    """

    row: int
    token: int
    text: str
    finish_reason: FinishReason | None = None
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] | None = None


@dataclass(frozen=True, eq=False)
class Row:
    """One row of a `Result`, with the same fields."""

    tokens: Tensor
    text: str | None
    finish_reason: FinishReason
    logprobs: Tensor | None
    top_logprobs: TopLogprobs | None
    score: float | None
    log_weight: float | None


@dataclass(frozen=True, eq=False)
class Result:
    """The generated rows: those of the first prompt, then those of the second, ...

    Attributes:
        sequences: per row (T,) long, on the CPU: the new tokens alone, including the token that ended the
            row, without padding.
        texts: per row, the text that the tokens add to the prompt: without special and end tokens, and cut at
            a stop string or regex. None without a tokenizer.
        finish_reasons: per row "eos", "stop", "length" or "time".
        logprobs: per row (T,) float32, in nats, of each token; None if not requested.
        top_logprobs: per row the most probable tokens at each step; None if not requested.
        scores: per row, its score by a search; the rows of a prompt are sorted, best first. None without a
            search.
        beams: per prompt, a tree of everything that a search kept; `print` draws it. None without a search.
        log_weights: per row, the logarithm of its importance weight (see `StochasticBeam`); else None.
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

    def __repr__(self) -> str:
        """A line per row: its number, finish reason, score if it has one, and text or ids."""
        return "\n".join(map(_line, range(len(self)), self))

    def __getitem__(self, row: int) -> Row:
        """Returns one row.

        Raises:
            ArgumentTypeError: a slice, or another kind of index.
        """
        check_type("row", row, int, "the number of one row", "list(result) has all of them")
        columns: Any = (column for name, column in vars(self).items() if name != "beams")
        values: Any = (None if column is None else column[row] for column in columns)
        return Row(*values)

    def __iter__(self) -> Iterator[Row]:
        return (self[row] for row in range(len(self)))


def _line(number: int, row: Row) -> str:
    score = "" if row.score is None else f"  {row.score:9.3f}"
    start = f"{number:>4}  {row.finish_reason:<6}{score}  "
    shown = repr(row.tokens.tolist() if row.text is None else row.text)
    return start + (shown if len(start + shown) <= 80 else f"{shown[: 79 - len(start)]}…")


def collect(events: Iterable[Event], request: GenerationRequest) -> Result:
    """Returns the result of all events of a generation.

    A row without events was to have no token; its finish reason is "length".
    """
    rows: list[list[Event]] = [[] for _ in range(len(request.prompts) * request.num_samples)]
    for event in events:
        rows[event.row].append(event)
    options: dict[str, Any] = {}
    with torch.inference_mode(False):  # the tensors may enter a loss
        if request.logprobs is not None:
            values = ([event.logprob for event in row] for row in rows)
            options["logprobs"] = [torch.tensor(row, dtype=torch.float32) for row in values]
        if request.top_logprobs:
            options["top_logprobs"] = [_top(row, request.top_logprobs) for row in rows]
        return Result(
            sequences=[torch.tensor([event.token for event in row], dtype=torch.long) for row in rows],
            texts=None if request.tokenizer is None else ["".join(e.text for e in row) for row in rows],
            finish_reasons=[(row[-1].finish_reason or "length") if row else "length" for row in rows],
            **options,
        )


def _top(row: list[Event], count: int) -> TopLogprobs:
    steps = [event.top_logprobs or () for event in row]
    return TopLogprobs(
        torch.tensor([[token for token, _ in step] for step in steps], dtype=torch.long).view(-1, count),
        torch.tensor([[value for _, value in step] for step in steps], dtype=torch.float32).view(-1, count),
    )
