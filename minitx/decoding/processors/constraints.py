"""Constraints: banned and forced tokens.

A ban sets logits to -inf. Contradictory bans leave a row without a token; the caller of the chain detects
that, and `Chain.raise_for_empty_rows` names the processor.

B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from minitx.decoding.parameters import Integers, Rule, check_id, check_ids, check_vocabulary
from minitx.decoding.processors.base import LogitsProcessor, NumericProcessor
from minitx.decoding.processors.context import Context
from minitx.device import constant
from minitx.validation import ArgumentTypeError


@dataclass(frozen=True)
class TokenProcessor(LogitsProcessor):
    """A processor whose value is a list of token ids."""

    parameter: ClassVar[str]  # that errors name

    def _check(self, value: Any) -> Any:
        return check_ids(self.parameter, value)

    def ids(self, logits: Tensor) -> Tensor:
        """Returns the ids as a tensor on the device of the logits (B, V), checked against the vocabulary."""
        ids = self.value if isinstance(self.value, tuple) else (self.value,)
        check_vocabulary(self.parameter, ids, logits.shape[-1])
        return constant(ids, torch.long, logits.device)


@dataclass(frozen=True)
class AllowedTokens(TokenProcessor):
    """Bans every token but these (vLLM's allowed_token_ids).

    Args:
        allowed_token_ids: the tokens whose logits are not changed.
    """

    allowed_token_ids: Sequence[int]
    parameter = "allowed_token_ids"

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        ids = self.ids(logits)
        return torch.full_like(logits, -torch.inf).index_copy_(1, ids, logits.index_select(1, ids))


@dataclass(frozen=True)
class SuppressTokens(TokenProcessor):
    """Bans tokens.

    Args:
        suppress_tokens: their ids.
    """

    suppress_tokens: Sequence[int]
    parameter = "suppress_tokens"

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        return logits.index_fill(1, self.ids(logits), -torch.inf)


@dataclass(frozen=True)
class BeginSuppressTokens(TokenProcessor):
    """Bans tokens as the first generated token.

    Args:
        begin_suppress_tokens: their ids.
        after_forced_bos: bans them as the second token where `ForcedBos` forces the first.
    """

    begin_suppress_tokens: Sequence[int]
    after_forced_bos: bool = False
    parameter = "begin_suppress_tokens"
    needs: ClassVar[str] = "forced_bos_token_id"

    @classmethod
    def beside_forced_bos(cls, ids: Any, forced_bos_token_id: int | None = None) -> BeginSuppressTokens:
        """Returns the processor of a strategy that may also force a token."""
        return cls(ids, after_forced_bos=forced_bos_token_id is not None)

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        first = (context.prompt_length <= 1).long() if self.after_forced_bos else 0
        banned = logits.index_fill(1, self.ids(logits), -torch.inf)
        return torch.where((context.generated == first)[:, None], banned, logits)


@dataclass(frozen=True)
class ForcedBos(TokenProcessor):
    """Forces the second token of a row, such as the language after an encoder-decoder's start token.

    Every other token is banned, and the forced one gets the logit 0 even if it was banned before. Prompts of
    two tokens or more already have their second token.

    Args:
        token: its id.
    """

    token: int
    parameter = "forced_bos_token_id"

    def _check(self, value: Any) -> int:
        return check_id(self.parameter, value)

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        return _forced(self.ids(logits), logits, context.length == 1)


@dataclass(frozen=True)
class ForcedEos(TokenProcessor):
    """Forces an end token as the last token that max_new_tokens allows, as `ForcedBos` does.

    Args:
        tokens: their ids; of several, any is allowed.
    """

    tokens: Sequence[int]
    parameter = "forced_eos_token_id"

    @classmethod
    def from_ids(cls, ids: Any) -> Self:
        """The processor of one id or of several."""
        return cls([ids] if isinstance(ids, int) else ids)

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V); the logits themselves if the call has no max_new_tokens."""
        if context.max_new_tokens is None:
            return logits
        return _forced(self.ids(logits), logits, context.generated == context.max_new_tokens - 1)


@dataclass(frozen=True)
class MinLength(NumericProcessor):
    """Bans the end tokens until prompt and output of a row have `min_length` tokens.

    Args:
        min_length: one or per row; 0 bans nothing. Unlike in transformers padding is not included.
    """

    min_length: Integers
    rule = Rule("min_length", "0 sets no minimum", off=0)

    def apply(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        return _without_eos(logits, context, context.length[:, None] < self.column(logits))


@dataclass(frozen=True)
class MinNewTokens(NumericProcessor):
    """Bans the end tokens until a row has generated `min_new_tokens` tokens.

    Args:
        min_new_tokens: one or per row; 0 bans nothing.
    """

    min_new_tokens: Integers
    rule = Rule("min_new_tokens", "0 sets no minimum", off=0)

    def apply(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        return _without_eos(logits, context, context.generated[:, None] < self.column(logits))


@dataclass(frozen=True)
class PrefixAllowed(LogitsProcessor):
    """Bans every token but those that a function allows after the history (as GENRE does, arXiv:2010.00904).

    If all of them were banned before, the allowed tokens get the logit 0: the function wins. It is also
    called for finished rows while others continue; its result is then not used.

    Args:
        function: (row, its history as a tensor of one dimension, without padding) -> allowed ids.
    """

    function: Callable[[int, Tensor], Sequence[int] | Tensor]

    def _check(self, value: Any) -> Any:
        if not callable(value):
            expected = "a function (row, tokens) -> allowed ids"
            raise ArgumentTypeError("prefix_allowed_tokens_fn", value, expected)
        return value

    @property
    def batch_invariant(self) -> bool:
        """False: the function gets the row's index."""
        return False

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V); a row for which the function allows nothing is left without a token.

        Raises:
            ArgumentValueError: the function allows ids outside the vocabulary.
        """
        # No error if nothing is allowed: the row may be finished while others continue.
        mask = torch.full_like(logits, -torch.inf)
        for row, length in enumerate(context.length.tolist()):
            allowed = self.function(row, context.tokens[row, :length].clone())  # a copy, which it may modify
            ids = check_ids("prefix_allowed_tokens_fn", allowed, empty=True)
            check_vocabulary("prefix_allowed_tokens_fn", ids, logits.shape[-1])
            mask[row, list(ids)] = 0.0
        masked = logits + mask
        return torch.where(masked.amax(dim=-1, keepdim=True) == -torch.inf, mask, masked)


def _without_eos(logits: Tensor, context: Context, rows: Tensor) -> Tensor:
    """Bans the end tokens in the selected rows, (B, 1) bool."""
    if not context.eos:
        return logits
    check_vocabulary("eos", context.eos, logits.shape[-1])
    eos = constant(context.eos, torch.long, logits.device)
    return torch.where(rows, logits.index_fill(1, eos, -torch.inf), logits)


def _forced(ids: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
    """Sets the ids to 0 and all others to -inf, in the selected rows, (B,) bool."""
    forced = torch.full_like(logits, -torch.inf).index_fill_(1, ids, 0.0)
    return torch.where(rows[:, None], forced, logits)
