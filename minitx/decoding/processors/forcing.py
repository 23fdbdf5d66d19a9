"""Processors that lead a row: to the end of its thinking, or along a prefix.

B rows, L history, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from minitx.decoding.parameters import check_id, check_ids, check_size, check_vocabulary, set_frozen, to_plain
from minitx.decoding.processors.base import LogitsProcessor
from minitx.decoding.processors.context import Context
from minitx.device import constant
from minitx.validation import ArgumentTypeError, ArgumentValueError, Interval, check_number, check_type


@dataclass(frozen=True, kw_only=True)
class ThinkingBudget(LogitsProcessor):
    """Forces the end tag of a thinking block that has had its tokens (budget forcing, arXiv:2501.19393).

    A block begins where the begin tag is complete, in prompt or output, and ends where the end tag is. When
    it has `tokens` tokens, those of the prompt included, the end tag follows; if its last tokens are the
    beginning of the end tag, the rest of that. A forced token gets the logit 0, even if it was banned before,
    and all others are banned. Outside of a block logits are not changed.

    Args:
        tokens: of a block before the end tag is forced; 0 forces it at once.
        begin: the ids of the tag that opens a block; an id for one.
        end: the ids of the tag that closes it, another tag.

    Raises:
        ArgumentTypeError: no ids, as a string; ArgumentValueError: no ids in a tag, or two equal tags.
    """

    tokens: int
    begin: int | Sequence[int]
    end: int | Sequence[int]

    def __post_init__(self) -> None:
        name = "ThinkingBudget({}=...)"
        tokens = check_size(name.format("tokens"), to_plain(self.tokens), hint="the tokens of a block")
        begin, end = (_tag(name.format(tag), getattr(self, tag)) for tag in ("begin", "end"))
        if begin == end:
            hint = "a block could not be told from the text after it"
            raise ArgumentValueError(name.format("end"), end, "another tag than begin", hint)
        set_frozen(self, tokens=tokens, begin=begin, end=end)

    @classmethod
    def checked(cls, value: Any) -> Self:
        """Returns the value of the field `thinking_budget`, if it is a ThinkingBudget."""
        example = "a ThinkingBudget such as ThinkingBudget(tokens=256, begin=[5], end=[6])"
        budget: Self = check_type("thinking_budget", value, cls, example)
        return budget

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        check_vocabulary("ThinkingBudget(end=...)", self._tag("end"), logits.shape[-1])
        forced = self._forced(context)[:, None]
        chosen = torch.full_like(logits, -torch.inf).scatter_(1, forced.clamp(min=0), 0.0)
        return torch.where(forced >= 0, chosen, logits)

    def _forced(self, context: Context) -> Tensor:
        """Returns the token that each row must have next, (B,); -1 for none."""
        end = constant(self._tag("end"), torch.long, context.length.device)
        position = torch.arange(context.tokens.shape[1], device=context.length.device)
        closed = torch.where(_completed(context, self._tag("end")), position, -1).amax(dim=1, keepdim=True)
        opened = _completed(context, self._tag("begin")) & (position > closed)
        start = torch.where(opened, position, len(position)).amin(dim=1)
        thought = context.length - 1 - start  # negative outside of a block
        # How much of the end tag is there: the longest beginning of it that the block ends with.
        done = torch.zeros_like(thought)
        for size in range(1, len(end)):
            matches = (context.last(size) == end[:size]).all(dim=1) & (thought >= size)
            done = torch.where(matches, size, done)
        over = (start < len(position)) & (thought >= self.tokens)
        return torch.where(over, end[done], -1)

    def _tag(self, name: str) -> tuple[int, ...]:
        ids: tuple[int, ...] = getattr(self, name)  # since `__post_init__`
        return ids


@dataclass(frozen=True)
class PrefixBias(LogitsProcessor):
    """Mixes the distribution with a prefix: p' = (1 - beta) p + beta [token is the prefix's next one].

    Until a row's output differs from the prefix, and not after the prefix; CTranslate2 has it as
    `prefix_bias_beta`. A banned token stays banned, and its row is not changed. The sum of exp(logits) stays,
    so that the log-probabilities of beams that follow the prefix and of others can be compared.

    Args:
        ids: the prefix, of the output of every row.
        beta: from 0, which changes nothing, to 1, which forces the prefix.
    """

    ids: Sequence[int]
    beta: float

    def __post_init__(self) -> None:
        ids = check_ids("prefix_bias[0]", self.ids)
        hint = "0 changes nothing, 1 forces the prefix"
        beta = check_number("prefix_bias[1]", to_plain(self.beta), Interval(0, 1), hint)
        set_frozen(self, ids=ids, beta=beta)

    @classmethod
    def from_pair(cls, pair: Any) -> Self:
        """The processor of (ids, beta)."""
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ArgumentTypeError("prefix_bias", pair, "a list of token ids and a number, (ids, beta)")
        return cls(*pair)

    def keeps_log_probs_nonpositive(self, below: bool) -> bool:
        """False: the next token of the prefix may get the probability of all, a sum that is not known."""
        return False

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        check_vocabulary("prefix_bias", self.ids, logits.shape[-1])
        # -1 after the prefix, as where a row has no token.
        prefix = constant((*self.ids, -1), torch.long, logits.device)
        place, generated = torch.arange(len(self.ids), device=logits.device), context.generated[:, None]
        tokens = F.pad(context.tokens, (0, len(self.ids)))
        output = tokens.gather(1, (context.prompt_length[:, None] + place).clamp(max=tokens.shape[1] - 1))
        follows = ((output == prefix[:-1]) | (place >= generated)).all(dim=1, keepdim=True)
        next_token = prefix[generated.clamp(max=len(self.ids))].masked_fill(~follows, -1)
        chosen = logits.gather(1, next_token.clamp(min=0))
        rest = logits + (math.log1p(-self.beta) if self.beta < 1 else -math.inf)
        total = logits.logsumexp(dim=-1, keepdim=True)
        share = total + (math.log(self.beta) if self.beta > 0 else -math.inf)
        raised = torch.logaddexp(rest.gather(1, next_token.clamp(min=0)), share)
        mixed = rest.scatter(1, next_token.clamp(min=0), raised)
        return torch.where((next_token >= 0) & (chosen > -torch.inf), mixed, logits)


def _tag(name: str, value: Any) -> tuple[int, ...]:
    plain = to_plain(value)
    if isinstance(plain, str):
        hint = f"use tokenizer.encode({plain!r:.40}, add_special_tokens=False)"
        raise ArgumentTypeError(name, plain, "token ids, not text", hint)
    return (check_id(name, plain),) if isinstance(plain, int) else check_ids(name, plain)


def _completed(context: Context, ids: Sequence[int]) -> Tensor:
    """Returns where a sequence of ids ends in the history of each row: (B, L) bool."""
    tokens = context.tokens.masked_fill(~context.valid(), -1)
    padded = F.pad(tokens, (len(ids) - 1, 0), value=-1)
    windows = padded.unfold(1, len(ids), 1)  # (B, L, n)
    return (windows == constant(tuple(ids), torch.long, tokens.device)).all(dim=-1)
