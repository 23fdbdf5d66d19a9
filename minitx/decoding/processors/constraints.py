"""Constraints: bans, and tokens that must come.

A ban sets logits to -inf. Bans that contradict one another leave a row without a token; whoever calls
the chain sees that and lets `Chain.raise_for_empty_rows` say which processor it was.

B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from minitx.decoding.checks import (
    Integers,
    integer,
    per_row,
    set_frozen,
    token_id,
    token_ids,
    within_vocabulary,
)
from minitx.decoding.processors.base import LogitsProcessor
from minitx.decoding.processors.context import Context


@dataclass(frozen=True)
class AllowedTokens(LogitsProcessor):
    """Bans every token but these (vLLM's allowed_token_ids).

    Args:
        allowed_token_ids: the tokens that stay as probable as they were.
    """

    allowed_token_ids: Sequence[int]

    def __post_init__(self) -> None:
        set_frozen(self, allowed_token_ids=token_ids("allowed_token_ids", self.allowed_token_ids))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        ids = self._ids.to(logits.device)
        within_vocabulary("allowed_token_ids", [self._largest], logits.shape[-1])
        return torch.full_like(logits, -torch.inf).index_copy_(1, ids, logits.index_select(1, ids))

    @cached_property
    def _ids(self) -> Tensor:
        return torch.tensor(self.allowed_token_ids)

    @cached_property
    def _largest(self) -> int:
        return max(self.allowed_token_ids)


@dataclass(frozen=True)
class SuppressTokens(LogitsProcessor):
    """Bans tokens.

    Args:
        suppress_tokens: their ids.
    """

    suppress_tokens: Sequence[int]

    def __post_init__(self) -> None:
        set_frozen(self, suppress_tokens=token_ids("suppress_tokens", self.suppress_tokens))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        return _banned("suppress_tokens", self.suppress_tokens, logits)


@dataclass(frozen=True)
class BeginSuppressTokens(LogitsProcessor):
    """Bans tokens as the first that is generated.

    Args:
        begin_suppress_tokens: their ids.
        after_forced_bos: where `ForcedBos` forces the first token, the second is meant.
    """

    begin_suppress_tokens: Sequence[int]
    after_forced_bos: bool = False

    def __post_init__(self) -> None:
        set_frozen(self, begin_suppress_tokens=token_ids("begin_suppress_tokens", self.begin_suppress_tokens))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        first = (context.prompt_length <= 1).long() if self.after_forced_bos else 0
        return _banned(
            "begin_suppress_tokens", self.begin_suppress_tokens, logits, rows=context.generated == first
        )


@dataclass(frozen=True)
class ForcedBos(LogitsProcessor):
    """Forces the second token of a row: what an encoder-decoder says after its start token, say the language.

    Every other token is banned, and the forced one gets the logit 0 even if it was banned before. A prompt
    of two tokens or more has its second token already.

    Args:
        token: its id.
    """

    token: int

    def __post_init__(self) -> None:
        set_frozen(self, token=token_id("forced_bos_token_id", self.token))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        return _forced("forced_bos_token_id", (self.token,), logits, rows=context.length == 1)


@dataclass(frozen=True)
class ForcedEos(LogitsProcessor):
    """Forces an end token as the last one that max_new_tokens allows, as `ForcedBos` does.

    Args:
        tokens: their ids; of several, any may come.
    """

    tokens: Sequence[int]

    def __post_init__(self) -> None:
        set_frozen(self, tokens=token_ids("forced_eos_token_id", self.tokens))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V); the logits themselves where the call has no max_new_tokens."""
        if context.max_new_tokens is None:
            return logits
        rows = context.generated == context.max_new_tokens - 1
        return _forced("forced_eos_token_id", self.tokens, logits, rows)


@dataclass(frozen=True)
class MinLength(LogitsProcessor):
    """Bans the end tokens until a row, prompt included, has so many tokens. Without end tokens, nothing.

    Args:
        min_length: one or per row; 0 bans nothing. transformers counts padding too.
    """

    min_length: Integers

    def __post_init__(self) -> None:
        set_frozen(self, min_length=integer("min_length", self.min_length, 0, "0 sets no minimum"))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        rows = context.length < per_row("min_length", self.min_length, context.length)
        return _banned("eos", context.eos, logits, rows)


@dataclass(frozen=True)
class MinNewTokens(LogitsProcessor):
    """Bans the end tokens until a row has generated so many tokens. Without end tokens, nothing.

    Args:
        min_new_tokens: one or per row; 0 bans nothing.
    """

    min_new_tokens: Integers

    def __post_init__(self) -> None:
        set_frozen(
            self, min_new_tokens=integer("min_new_tokens", self.min_new_tokens, 0, "0 sets no minimum")
        )

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        rows = context.generated < per_row("min_new_tokens", self.min_new_tokens, context.length)
        return _banned("eos", context.eos, logits, rows)


@dataclass(frozen=True)
class PrefixAllowed(LogitsProcessor):
    """Bans every token but those that a function allows after the history (as GENRE does, arXiv:2010.00904).

    Where all that it allows was banned before, the allowed tokens get the logit 0: the function is obeyed.
    It is also asked about rows that have ended, while others go on; what it allows there is not used.

    Args:
        function: (row, its history as a tensor of one dimension, without padding) -> the ids it allows.
    """

    function: Callable[[int, Tensor], Sequence[int] | Tensor]

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(
                f"prefix_allowed_tokens_fn={self.function!r} must be a function (row, tokens) -> allowed ids."
            )

    @property
    def batch_invariant(self) -> bool:
        return False

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V); a row for which the function allows nothing is left without a token.

        Raises:
            ValueError: the function allows ids outside the vocabulary.
        """
        # No error where nothing is allowed: the row may have ended before, while others go on.
        mask = torch.full_like(logits, -torch.inf)
        for row, length in enumerate(context.length.tolist()):
            allowed = self.function(row, context.tokens[row, :length].clone())  # it may write into it
            ids = token_ids("prefix_allowed_tokens_fn", allowed, empty=True)
            within_vocabulary("prefix_allowed_tokens_fn", ids, logits.shape[-1])
            mask[row, list(ids)] = 0.0
        masked = logits + mask
        return torch.where(masked.amax(dim=-1, keepdim=True) == -torch.inf, mask, masked)


def _banned(name: str, ids: Sequence[int], logits: Tensor, rows: Tensor | None = None) -> Tensor:
    """-inf at the ids, in those rows (B,) bool, or in all."""
    within_vocabulary(name, ids, logits.shape[-1])
    if not ids:
        return logits
    columns = torch.tensor(ids, device=logits.device)
    banned = logits.index_fill(1, columns, -torch.inf)
    return banned if rows is None else torch.where(rows[:, None], banned, logits)


def _forced(name: str, ids: Sequence[int], logits: Tensor, rows: Tensor) -> Tensor:
    """0 at the ids and -inf at all others, in those rows (B,) bool."""
    within_vocabulary(name, ids, logits.shape[-1])
    forced = torch.full_like(logits, -torch.inf)
    forced[:, list(ids)] = 0.0
    return torch.where(rows[:, None], forced, logits)
