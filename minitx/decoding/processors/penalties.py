"""Penalties on tokens that occurred, and bans of repeated n-grams; `dry.py` has one on longer repetitions.

The `scope` selects the tokens that are penalised: "all" (prompt and output), "output", or the last n tokens.
Padding is never included. B rows, V vocabulary, L history, S source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from minitx.decoding.parameters import POSITIVE, Numbers, Rule, check_size, set_frozen, to_plain
from minitx.decoding.processors.base import LogitsProcessor, NumericProcessor
from minitx.decoding.processors.context import Context, Scope, count, or_spare
from minitx.validation import ArgumentValueError, Interval

_COUNT_HINT = "0.0 penalises nothing, below 0 rewards repetition"


@dataclass(frozen=True)
class _ScopedPenalty(NumericProcessor):
    """A penalty on the tokens of a part of the history."""

    penalty: Numbers
    scope: Scope = "all"
    needs: ClassVar[str] = "penalty_window"  # the field of a strategy that is the scope, if set

    def __post_init__(self) -> None:
        super().__post_init__()
        scope = to_plain(self.scope)
        number = isinstance(scope, int) and not isinstance(scope, bool) and scope >= 1
        if not number and not (isinstance(scope, str) and scope in ("all", "output")):
            choices = '"all" (prompt and output), "output", or an integer n of at least 1 (the last n tokens)'
            raise ArgumentValueError("scope", scope, choices)
        set_frozen(self, scope=scope)


@dataclass(frozen=True)
class RepetitionPenalty(_ScopedPenalty):
    """Divides the positive logits of tokens that occurred, multiplies negative ones (arXiv:1909.05858, 4.1).

    How often a token occurred does not matter. Adding a constant to all logits changes the effect.

    Args:
        penalty: above 0, one or per row; 1.0 changes nothing.
        scope: the tokens that are penalised; llama.cpp uses the last 64, mlx-lm the last 20.
    """

    rule = Rule("repetition_penalty", "1.0 changes nothing, above 1 penalises", POSITIVE, 1.0)

    def apply(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        return _penalised(logits, self.column(logits), context.tokens, context.valid(self.scope))


@dataclass(frozen=True)
class EncoderRepetitionPenalty(NumericProcessor):
    """`RepetitionPenalty` with 1 / penalty on the source: above 1 its tokens become more probable.

    The source is the encoder input; without an encoder, the prompt.

    Args:
        penalty: above 0, one or per row; 1.0 changes nothing.
    """

    penalty: Numbers
    rule = Rule("encoder_repetition_penalty", "1.0 changes nothing, above 1 repeats more", POSITIVE, 1.0)

    def apply(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        return _penalised(logits, self.column(logits, lambda penalty: 1 / penalty), *_source(context))


@dataclass(frozen=True)
class _CountPenalty(_ScopedPenalty):
    """Subtracts the penalty times a number of occurrences."""

    scope: Scope = "output"
    most: ClassVar[float | None] = None  # the largest number of occurrences

    def keeps_log_probs_nonpositive(self, below: bool) -> bool:
        """See `LogitsProcessor.keeps_log_probs_nonpositive`."""
        return below and min(self.value if isinstance(self.value, tuple) else (self.value,)) >= 0

    def apply(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        penalty: Tensor | float = self.column(logits)
        return logits - penalty * self.amounts(context, logits)

    def amounts(self, context: Context, like: Tensor) -> Tensor:
        """(B, V) of the dtype of the logits `like`: the factor of the penalty for each token."""
        counts = context.counts(like.shape[-1], self.scope).to(like.dtype)
        return counts if self.most is None else counts.clamp(max=self.most)


@dataclass(frozen=True)
class FrequencyPenalty(_CountPenalty):
    """Subtracts the penalty once per occurrence of a token (OpenAI's API).

    Args:
        penalty: in [-2, 2], one or per row; 0.0 changes nothing.
        scope: the tokens that are penalised; OpenAI and vLLM use the output, llama.cpp the last 64 tokens.
    """

    rule = Rule("frequency_penalty", _COUNT_HINT, Interval(-2, 2), 0.0)


@dataclass(frozen=True)
class PresencePenalty(_CountPenalty):
    """Subtracts the penalty once from every token that occurred (OpenAI's API).

    Args:
        penalty: in [-2, 2], one or per row; 0.0 changes nothing.
        scope: the tokens that are penalised; OpenAI and vLLM use the output, llama.cpp the last 64 tokens.
    """

    rule = Rule("presence_penalty", _COUNT_HINT, Interval(-2, 2), 0.0)
    most = 1


@dataclass(frozen=True)
class RelativeFrequencyPenalty(_CountPenalty):
    """Subtracts the penalty times the share of a token in the history: count / length.

    The frequency penalty of Text Generation Inference. Unlike OpenAI's it does not grow with the length of
    the text: a token that makes up a tenth of it always loses a tenth of the penalty.

    Args:
        penalty: in [-100, 100], one or per row; 0.0 changes nothing.
        scope: the tokens that are counted, by default those of prompt and output.
    """

    scope: Scope = "all"
    rule = Rule("relative_frequency_penalty", _COUNT_HINT, Interval(-100, 100), 0.0)

    def amounts(self, context: Context, like: Tensor) -> Tensor:
        """(B, V): the share of each token."""
        length = context.valid(self.scope).sum(dim=-1, keepdim=True)
        return super().amounts(context, like) / length.clamp(min=1)


def check_window(value: Any) -> tuple[()]:
    """Checks `penalty_window`, the scope of the penalties above; returns no processor."""
    hint = "the last N tokens; None: the whole text of each penalty"
    check_size("penalty_window", to_plain(value), 1, hint)
    return ()


@dataclass(frozen=True)
class NoRepeatNGram(LogitsProcessor):
    """Bans every token that would repeat an n-gram of the history (arXiv:1705.04304, section 2.5).

    Args:
        size: n; 1 bans every token of the history, including the prompt's; 0 bans nothing.
    """

    size: int
    parameter: ClassVar[str] = "no_repeat_ngram_size"

    def _check(self, value: Any) -> int:
        return check_size(self.parameter, to_plain(value), hint="one number for all rows, 0 bans nothing")

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        n, (tokens, valid) = self.size, self.searched(context)
        if n == 0 or tokens.shape[1] < n:
            return logits
        windows = tokens.unfold(1, n, 1)  # (B, L - n + 1, n)
        # Compare the last n - 1 tokens of the history with the first n - 1 of every n-gram. A shorter
        # history contains -1, which equals no token.
        matches = (windows[..., :-1] == context.last(n - 1)[:, None]).all(dim=-1)
        # Valid positions come first, so an n-gram is valid if its last position is.
        banned = count(windows[..., -1], matches & valid[:, n - 1 :], logits.shape[-1])
        return logits.masked_fill(banned > 0, -torch.inf)

    def searched(self, context: Context) -> tuple[Tensor, Tensor]:
        """Returns the tokens that contain the n-grams, (B, L), and their validity mask, (B, L)."""
        return context.tokens, context.valid()


@dataclass(frozen=True)
class EncoderNoRepeatNGram(NoRepeatNGram):
    """Bans every token that would complete an n-gram of the source.

    The source is the encoder input; without an encoder, the prompt.

    Args:
        size: n; 1 bans every token of the source; 0 bans nothing.
    """

    parameter = "encoder_no_repeat_ngram_size"

    def searched(self, context: Context) -> tuple[Tensor, Tensor]:
        """Returns the source (B, S) and its validity mask (B, S)."""
        return _source(context)


def _penalised(logits: Tensor, penalty: Tensor | float, tokens: Tensor, valid: Tensor) -> Tensor:
    """Applies the repetition penalty to the valid tokens; tokens (B, L), valid (B, L)."""
    spare = logits.shape[-1]
    ids = or_spare(tokens, valid, spare)
    padded = torch.nn.functional.pad(logits, (0, 1))
    seen = padded.gather(1, ids)
    return padded.scatter_(1, ids, torch.where(seen < 0, seen * penalty, seen / penalty))[:, :spare]


def _source(context: Context) -> tuple[Tensor, Tensor]:
    """Returns the ids of the source (B, S), and their validity mask (B, S)."""
    ids, length = context.source
    return ids, torch.arange(ids.shape[1], device=ids.device) < length[:, None]
