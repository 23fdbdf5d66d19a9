"""Biases added to the logits of tokens, sequences and end tokens.

B rows, V vocabulary, N sequences, P longest prefix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from minitx.decoding.parameters import (
    POSITIVE,
    check_id,
    check_ids,
    check_sequences,
    check_vocabulary,
    set_frozen,
    to_plain,
)
from minitx.decoding.processors.base import LogitsProcessor, positional_fields
from minitx.decoding.processors.context import Context
from minitx.validation import ArgumentTypeError, ArgumentValueError, Interval, check_integer, check_number

# With a larger factor an end token is certain already, and float32 would overflow.
_LARGEST_DECAY = 1e9


@dataclass(frozen=True)
class BiasProcessor(LogitsProcessor):
    """A processor whose only field is a dict of biases."""

    example: ClassVar[str]  # of a value, for errors
    hint: ClassVar[str]
    interval: ClassVar[Interval]

    @property
    def biases(self) -> Mapping[Any, float]:
        """The value of the field."""
        biases: Mapping[Any, float] = getattr(self, positional_fields(self)[0])
        return biases

    def __post_init__(self) -> None:
        name = positional_fields(self)[0]
        if not isinstance(self.biases, Mapping):
            raise ArgumentTypeError(name, self.biases, f"a dict such as {self.example}")
        if not self.biases:
            raise ArgumentValueError(name, self.biases, "at least one bias", "leave it out for none")
        checked = {}
        for value, bias in self.biases.items():
            key = self._check_key(f"a key of {name}", value)
            checked[key] = check_number(f"{name}[{key}]", to_plain(bias), self.interval, self.hint)
        set_frozen(self, **{name: checked})

    def _check_key(self, parameter: str, value: Any) -> Any:
        raise NotImplementedError

    def keeps_log_probs_nonpositive(self, below: bool) -> bool:
        """See `LogitsProcessor.keeps_log_probs_nonpositive`."""
        return below and max(self.biases.values()) <= 0


@dataclass(frozen=True)
class SequenceBias(BiasProcessor):
    """Adds a bias to the last token of a sequence wherever the history ends with the tokens before it.

    A sequence of one token is always biased. The biases of several sequences add up.

    Args:
        sequence_bias: {(token, ...): bias}; a bias is a number, or -inf for a ban.
    """

    sequence_bias: Mapping[tuple[int, ...], float]
    example, hint = "{(464, 3290): -5.0}", "above 0 makes it more probable"
    interval = Interval(-torch.inf, torch.inf, open_high=True)

    def _check_key(self, parameter: str, value: Any) -> tuple[int, ...]:
        return check_ids(parameter, value)

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        return self.biased("sequence_bias", logits, context)

    def biased(self, name: str, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V); `name` is the parameter that errors name."""
        check_vocabulary(name, [self._largest], logits.shape[-1])
        prefixes, last, biases = (part.to(logits.device) for part in self._table)
        history = context.last(prefixes.shape[1])[:, None]  # (B, 1, P)
        about_to_end = ((prefixes < 0) | (prefixes == history)).all(dim=-1)  # (B, N)
        bias = torch.zeros_like(logits)
        bias.index_add_(1, last, torch.where(about_to_end, biases.to(logits.dtype), 0.0))
        return logits + bias

    @cached_property
    def _largest(self) -> int:
        return max(max(sequence) for sequence in self.sequence_bias)

    @cached_property
    def _table(self) -> tuple[Tensor, Tensor, Tensor]:
        """Prefixes (N, P), left-padded with -1 for "any token"; last tokens (N,); biases (N,).

        In the order in which biases are added: short sequences first.
        """
        sequences = sorted(self.sequence_bias, key=len)
        longest = len(sequences[-1]) - 1
        prefixes = [(-1,) * (longest + 1 - len(s)) + s[:-1] for s in sequences]
        return (
            torch.tensor(prefixes, dtype=torch.long).view(len(sequences), longest),
            torch.tensor([s[-1] for s in sequences]),
            torch.tensor([self.sequence_bias[s] for s in sequences], dtype=torch.double),
        )


@dataclass(frozen=True)
class BadWords(LogitsProcessor):
    """Bans sequences: the last token of each, wherever the history ends with the tokens before it.

    A single end token is not banned, as in transformers; `SuppressTokens` bans it.

    Args:
        bad_words_ids: the token ids of each sequence.
    """

    bad_words_ids: Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        words = self.bad_words_ids
        if isinstance(words, str) or not isinstance(words, Sequence):
            raise ArgumentTypeError("bad_words_ids", words, "a list of lists of token ids")
        if not words:
            raise ArgumentValueError("bad_words_ids", words, "at least one sequence", "leave it out for none")
        check_sequences("bad_words_ids", words)
        ids = (check_ids(f"bad_words_ids[{index}]", word) for index, word in enumerate(words))
        set_frozen(self, bad_words_ids=tuple(ids))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        bans = _bans(self.bad_words_ids, context.eos)
        return logits if bans is None else bans.biased("bad_words_ids", logits, context)


@dataclass(frozen=True)
class LogitBias(BiasProcessor):
    """Adds a bias to single tokens (OpenAI's API). Banned tokens stay banned.

    Args:
        logit_bias: {token: bias}, biases in [-100, 100].
    """

    logit_bias: Mapping[int, float]
    example, hint = "{464: -5.0}", "-100 almost bans a token, suppress_tokens bans it"
    interval = Interval(-100, 100)

    def _check_key(self, parameter: str, value: Any) -> int:
        return check_id(parameter, value)

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        check_vocabulary("logit_bias", self.logit_bias, logits.shape[-1])
        ids = torch.tensor(list(self.logit_bias), device=logits.device)
        biases = torch.tensor(list(self.logit_bias.values()), dtype=logits.dtype, device=logits.device)
        return logits.index_add(1, ids, biases.expand(logits.shape[0], -1))


@dataclass(frozen=True)
class ExponentialDecayLength(LogitsProcessor):
    """Raises the logits z of the end tokens by |z| (factor^(generated - start) - 1) after `start` tokens.

    Args:
        start: number of generated tokens before the penalty starts.
        factor: above 0; above 1 favours shorter outputs, below 1 longer ones.
    """

    start: int
    factor: float

    def __post_init__(self) -> None:
        name = "exponential_decay_length_penalty"
        hint = "it is the number of tokens before the penalty starts"
        start = check_integer(f"{name}[0]", to_plain(self.start), hint=hint)
        hint = "1.0 changes nothing, above 1 ends sooner"
        factor = check_number(f"{name}[1]", to_plain(self.factor), POSITIVE, hint)
        set_frozen(self, start=start, factor=factor)

    @classmethod
    def from_pair(cls, pair: Any) -> Self:
        """The processor of (start, factor)."""
        if not isinstance(pair, tuple) or len(pair) != 2:
            name = "exponential_decay_length_penalty"
            raise ArgumentTypeError(name, pair, "two numbers", "(start, factor)")
        return cls(*pair)

    def keeps_log_probs_nonpositive(self, below: bool) -> bool:
        """See `LogitsProcessor.keeps_log_probs_nonpositive`."""
        return below and self.factor <= 1

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        if not context.eos:
            return logits
        check_vocabulary("eos", context.eos, logits.shape[-1])
        eos = torch.tensor(sorted(set(context.eos)), device=logits.device)
        over = (context.generated - self.start).clamp(min=0).double()
        # In double precision, as the reference's Python number; limited, since it would reach infinity.
        growth = (self.factor**over - 1).clamp(max=_LARGEST_DECAY).to(logits.dtype)[:, None]
        raised = logits[:, eos] + logits[:, eos].abs() * growth
        return logits.index_copy(1, eos, torch.where(logits[:, eos].isfinite(), raised, logits[:, eos]))


@lru_cache(maxsize=32)
def _bans(words: tuple[tuple[int, ...], ...], eos: tuple[int, ...]) -> SequenceBias | None:
    """All words but single end tokens; cached, since words and end tokens are the same in every step."""
    bans = {word: -torch.inf for word in words if not (len(word) == 1 and word[0] in eos)}
    return SequenceBias(bans) if bans else None
