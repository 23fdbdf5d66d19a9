"""Penalties on what was said before, and bans of repeated n-grams.

Which tokens count is the `scope`: "all" (prompt and output), "output", or a number n for the last n tokens.
Padding never counts. B rows, V vocabulary, L history.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minitx.decoding import checks
from minitx.decoding.checks import Numbers, column, integer, number, set_frozen
from minitx.decoding.processors.base import LogitsProcessor
from minitx.decoding.processors.context import Context, Scope, count, or_spare

_OPENAI_RANGE = "0.0 penalises nothing, below 0 rewards repetition"
_NO_PENALTY = "1.0 changes nothing, above 1 penalises"


@dataclass(frozen=True)
class RepetitionPenalty(LogitsProcessor):
    """Divides the logits of tokens that occurred; multiplies those below 0 (arXiv:1909.05858, section 4.1).

    How often a token occurred does not matter. Adding a constant to all logits changes the effect.

    Args:
        penalty: above 0, one or per row; 1.0 changes nothing.
        scope: which tokens count.
    """

    penalty: Numbers
    scope: Scope = "all"

    def __post_init__(self) -> None:
        set_frozen(
            self,
            penalty=number("repetition_penalty", self.penalty, "(0, inf)", _NO_PENALTY),
            scope=checks.scope("scope", self.scope),
        )

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        if self.penalty == 1.0:
            return logits
        penalty = column("repetition_penalty", self.penalty, logits)
        return _penalised(logits, penalty, context.tokens, context.valid(self.scope))


@dataclass(frozen=True)
class EncoderRepetitionPenalty(LogitsProcessor):
    """`RepetitionPenalty` with 1 / penalty on the source: above 1 its tokens become more probable.

    The source is what the encoder read; without an encoder, the prompt.

    Args:
        penalty: above 0, one or per row; 1.0 changes nothing.
    """

    penalty: Numbers

    def __post_init__(self) -> None:
        meaning = "1.0 changes nothing, above 1 favours the source's tokens"
        set_frozen(self, penalty=number("encoder_repetition_penalty", self.penalty, "(0, inf)", meaning))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        if self.penalty == 1.0:
            return logits
        inverse = 1 / self.penalty if isinstance(self.penalty, float) else [1 / p for p in self.penalty]
        penalty = column("encoder_repetition_penalty", inverse, logits)
        return _penalised(logits, penalty, *_source(context))


@dataclass(frozen=True)
class FrequencyPenalty(LogitsProcessor):
    """Subtracts the penalty as many times as a token occurred (OpenAI's API).

    Args:
        penalty: in [-2, 2], one or per row; 0.0 changes nothing.
        scope: which tokens count; OpenAI and vLLM count the output, llama.cpp the last 64 tokens.
    """

    penalty: Numbers
    scope: Scope = "output"

    def __post_init__(self) -> None:
        set_frozen(
            self,
            penalty=number("frequency_penalty", self.penalty, "[-2, 2]", _OPENAI_RANGE),
            scope=checks.scope("scope", self.scope),
        )

    def keeps_log_probs_nonpositive(self, below: bool) -> bool:
        return below and _least(self.penalty) >= 0

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        if self.penalty == 0.0:
            return logits
        counts = context.counts(logits.shape[-1], self.scope).to(logits.dtype)
        penalty: Tensor | float = column("frequency_penalty", self.penalty, logits)
        return logits - penalty * counts


@dataclass(frozen=True)
class PresencePenalty(LogitsProcessor):
    """Subtracts the penalty once from every token that occurred (OpenAI's API).

    Args:
        penalty: in [-2, 2], one or per row; 0.0 changes nothing.
        scope: which tokens count; OpenAI and vLLM count the output, llama.cpp the last 64 tokens.
    """

    penalty: Numbers
    scope: Scope = "output"

    def __post_init__(self) -> None:
        set_frozen(
            self,
            penalty=number("presence_penalty", self.penalty, "[-2, 2]", _OPENAI_RANGE),
            scope=checks.scope("scope", self.scope),
        )

    def keeps_log_probs_nonpositive(self, below: bool) -> bool:
        return below and _least(self.penalty) >= 0

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        if self.penalty == 0.0:
            return logits
        present = context.counts(logits.shape[-1], self.scope).clamp(max=1).to(logits.dtype)
        penalty: Tensor | float = column("presence_penalty", self.penalty, logits)
        return logits - penalty * present


@dataclass(frozen=True)
class NoRepeatNGram(LogitsProcessor):
    """Bans every token that would complete an n-gram of the history again (arXiv:1705.04304, section 2.5).

    Args:
        size: n; 1 bans every token of the history, the prompt's too; 0 bans nothing.
    """

    size: int

    def __post_init__(self) -> None:
        set_frozen(self, size=_size("no_repeat_ngram_size", self.size))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        return _without_ngrams(logits, context, self.size, context.tokens, context.valid())


@dataclass(frozen=True)
class EncoderNoRepeatNGram(LogitsProcessor):
    """Bans every token that would complete an n-gram of the source.

    The source is what the encoder read; without an encoder, the prompt.

    Args:
        size: n; 1 bans every token of the source; 0 bans nothing.
    """

    size: int

    def __post_init__(self) -> None:
        set_frozen(self, size=_size("encoder_no_repeat_ngram_size", self.size))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        return _without_ngrams(logits, context, self.size, *_source(context))


def _least(values: Any) -> float:
    return float(min(values) if isinstance(values, tuple) else values)


def _size(name: str, value: int) -> int:
    size = integer(name, value, 0, "0 bans nothing")
    if isinstance(size, tuple):
        raise TypeError(f"{name} is one whole number for all rows; got {size}.")
    return size


def _penalised(logits: Tensor, penalty: Tensor | float, tokens: Tensor, valid: Tensor) -> Tensor:
    """The repetition penalty on those tokens (B, L) of which `valid` (B, L) says that they count."""
    spare = logits.shape[-1]
    ids = or_spare(tokens, valid, spare)
    padded = torch.nn.functional.pad(logits, (0, 1))
    seen = padded.gather(1, ids)
    return padded.scatter_(1, ids, torch.where(seen < 0, seen * penalty, seen / penalty))[:, :spare]


def _source(context: Context) -> tuple[Tensor, Tensor]:
    """The source's ids (B, S), and (B, S) bool which of them are no padding."""
    ids, length = context.source
    return ids, torch.arange(ids.shape[1], device=ids.device) < length[:, None]


def _without_ngrams(logits: Tensor, context: Context, n: int, text: Tensor, valid: Tensor) -> Tensor:
    """Bans what would complete an n-gram of the text (B, L), of which `valid` (B, L) says what counts."""
    if n == 0 or text.shape[1] < n:
        return logits
    windows = text.unfold(1, n, 1)  # (B, L - n + 1, n)
    # The history's last n - 1 tokens, against the first n - 1 of every n-gram. A history that is shorter
    # has -1 in it, which equals no token.
    begun = (windows[..., :-1] == context.last(n - 1)[:, None]).all(dim=-1)
    # Valid places come first, so that an n-gram is whole if its last place is valid.
    banned = count(windows[..., -1], begun & valid[:, n - 1 :], logits.shape[-1])
    return logits.masked_fill(banned > 0, -torch.inf)
