"""Span corruption: predict spans that a sentinel stands for (T5, arXiv:1910.10683, section 3.1.4).

    ids      Thank you for inviting me to your party last week .
    inputs   Thank you <extra_id_0> me to your party <extra_id_1> week . </s>
    targets  <extra_id_0> for inviting <extra_id_1> last </s>

As in the authors' code, a sequence begins with tokens that stay and ends with a span, so that each sentinel
stands between tokens that stay and a span, and no last sentinel closes the targets. With 15 % of the tokens
in spans of 3 on average, 568 tokens become 512 inputs and 114 targets, the end tokens included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minitx.tokenizer.batch import pad
from minitx.training.objectives.base import IGNORED, Batch, Example, Objective
from minitx.training.objectives.batching import check_optional_integers, collate, encode, padding_id
from minitx.validation import ArgumentValueError, Interval, check_integer, check_number

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer


def span_counts(length: int, density: float = 0.15, mean_span: float = 3.0) -> tuple[int, int]:
    """Returns the number of tokens in spans, and the number of spans, of a sequence.

    Args:
        length: number of tokens, at least 2.
        density: share of tokens in spans.
        mean_span: mean length of a span.
    """
    tokens = min(max(round(length * density), 1), length - 1)
    spans = max(round(tokens / mean_span), 1)
    return tokens, min(spans, tokens, length - tokens)


def corrupted_lengths(length: int, density: float = 0.15, mean_span: float = 3.0) -> tuple[int, int]:
    """Returns the lengths of inputs and targets, end tokens included; arguments as for `span_counts`."""
    tokens, spans = span_counts(length, density, mean_span)
    return length - tokens + spans + 1, tokens + spans + 1


def uncorrupted_length(inputs_length: int, density: float = 0.15, mean_span: float = 3.0) -> int:
    """Returns the most tokens that become inputs of at most this length: 512 -> 568.

    Args:
        inputs_length: of the inputs, end token included.
        density, mean_span: as for `span_counts`.

    Raises:
        ArgumentTypeError, ArgumentValueError: not an integer of at least 3; a share outside of (0, 1).
    """
    check_integer("inputs_length", inputs_length, 3)
    check_shares(density, mean_span)
    lengths = (n for n in count(2) if corrupted_lengths(n + 1, density, mean_span)[0] > inputs_length)
    return next(lengths)


def check_shares(density: float, mean_span: float) -> None:
    """Checks the share of tokens in spans and the spans' mean length, else raises ArgumentValueError."""
    check_number("density", density, Interval(0, 1, open_low=True, open_high=True))
    check_number("mean_span", mean_span, Interval(1, float("inf"), open_high=True))


def random_lengths(total: int, parts: int, generator: torch.Generator) -> list[int]:
    """Returns `parts` lengths of at least 1 that add up to `total`, all divisions equally likely."""
    cuts = torch.randperm(total - 1, generator=generator)[: parts - 1].sort().values + 1
    edges = [0, *cuts.tolist(), total]
    return [right - left for left, right in pairwise(edges)]


def corrupt_spans(
    ids: Tensor,
    sentinels: Sequence[int],
    generator: torch.Generator,
    *,
    density: float = 0.15,
    mean_span: float = 3.0,
) -> tuple[Tensor, Tensor]:
    """Replaces random spans by sentinels: (T,) -> inputs (S,) and targets (U,), without end tokens.

    Args:
        ids: (T,), at least 2, without an end token.
        sentinels: ids of the sentinels in order, at least one per span.
        generator: source of randomness.
        density, mean_span: as for `span_counts`.

    Raises:
        ArgumentValueError: fewer than 2 ids, or more spans than sentinels.
    """
    if len(ids) < 2:
        expected = "at least 2 ids: one that stays and one that is predicted"
        raise ArgumentValueError("ids", ids, expected, "leave shorter examples out")
    tokens, spans = span_counts(len(ids), density, mean_span)
    if spans > len(sentinels):
        hint = f"{spans} spans of a sequence of {len(ids)} tokens need one each; shorten the sequence"
        raise ArgumentValueError("sentinels", len(sentinels), f"at least {spans}", hint)
    hidden = random_lengths(tokens, spans, generator)
    visible = random_lengths(len(ids) - tokens, spans, generator)
    inputs: list[Tensor] = []
    targets: list[Tensor] = []
    end = 0
    for sentinel, visible_length, length in zip(sentinels, visible, hidden, strict=False):
        start, mark = end + visible_length, ids.new_tensor([sentinel])
        inputs += (ids[end:start], mark)
        end = start + length
        targets += (mark, ids[start:end])
    return torch.cat(inputs), torch.cat(targets)


def sentinel_ids(tokenizer: Tokenizer) -> list[int]:
    """Returns the ids of <extra_id_0>, <extra_id_1>, ... in order.

    Raises:
        ArgumentValueError: a tokenizer without them.
    """
    ids: list[int] = []
    while (index := tokenizer.token_to_id(f"<extra_id_{len(ids)}>")) is not None:
        ids.append(index)
    if not ids:
        hint = 'tokenizer.add_tokens([f"<extra_id_{i}>" for i in range(100)], special=True) adds them'
        raise ArgumentValueError("tokenizer", tokenizer, "one with the sentinels <extra_id_0>, ...", hint)
    return ids


@dataclass(frozen=True)
class SpanCorruption(Objective):
    """Span corruption of encoder-decoders with head="seq2seq-lm".

    Examples have `input_ids`, with or without an end token, or a `text`.

    Attributes:
        tokenizer: with sentinels <extra_id_0>, <extra_id_1>, ...
        density: share of tokens in spans.
        mean_span: mean length of a span.
        max_length: maximum number of tokens before the corruption, such as 568, the end token aside; the end
            of a longer example is cut off. None: all of them.
    """

    task = "seq2seq-lm"
    tokenizer: Tokenizer
    density: float = 0.15
    mean_span: float = 3.0
    max_length: int | None = None
    _sentinels: list[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_shares(self.density, self.mean_span)
        check_optional_integers(3, max_length=self.max_length)
        object.__setattr__(self, "_sentinels", sentinel_ids(self.tokenizer))

    def __call__(self, examples: Sequence[Example], generator: torch.Generator) -> Batch:
        """Returns `input_ids` and `attention_mask` (B, S), and `labels` (B, U).

        Args:
            examples: one per row.
            generator: source of randomness.

        Raises:
            ArgumentTypeError, ArgumentValueError: neither ids nor text, or as `corrupt_spans`.
        """
        end = self.tokenizer.eos_token_id
        ends = [] if end is None else [end]
        rows, labels = [], []
        for index, example in enumerate(examples):
            ids = encode(example, index, self.tokenizer)["input_ids"]
            body = torch.tensor((ids[:-1] if ids[-1] == end else ids)[: self.max_length])
            inputs, targets = corrupt_spans(
                body, self._sentinels, generator, density=self.density, mean_span=self.mean_span
            )
            rows.append({"input_ids": [*inputs.tolist(), *ends]})
            labels.append([*targets.tolist(), *ends])
        return collate(rows, padding_id(self.tokenizer)) | {"labels": pad(labels, IGNORED)}
