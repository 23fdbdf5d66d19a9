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
    check_size,
    check_vocabulary,
    set_frozen,
    to_plain,
)
from minitx.decoding.processors.base import LogitsProcessor
from minitx.decoding.processors.context import Context
from minitx.device import Copies, constant
from minitx.validation import ArgumentTypeError, ArgumentValueError, Interval, check_number, check_type

# With a larger factor an end token is certain already, and float32 would overflow.
_LARGEST_DECAY = 1e9


@dataclass(frozen=True)
class BiasProcessor(LogitsProcessor):
    """Adds biases: its value is a dict of tokens, or of sequences, whose last token is biased."""

    parameter: ClassVar[str]
    example: ClassVar[str]  # of a value, for errors
    hint: ClassVar[str]
    interval: ClassVar[Interval]

    def _check(self, value: Any) -> Mapping[Any, float]:
        check_type(self.parameter, value, Mapping, f"a dict such as {self.example}")
        if not value:
            raise ArgumentValueError(self.parameter, value, "at least one bias", "leave it out for none")
        checked = {}
        for key, bias in value.items():
            key = self._check_key(f"a key of {self.parameter}", key)
            name = f"{self.parameter}[{key}]"
            checked[key] = check_number(name, to_plain(bias), self.interval, self.hint)
        return checked

    def _check_key(self, name: str, key: Any) -> Any:
        return check_ids(name, key)

    def keeps_log_probs_nonpositive(self, below: bool) -> bool:
        """See `LogitsProcessor.keeps_log_probs_nonpositive`."""
        return below and max(self.value.values()) <= 0

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        return self.biased(self.parameter, logits, context)

    def biased(self, name: str, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V); `name` is the parameter that errors name."""
        ids = torch.cat([part.flatten() for part in self._table.tensors[:2]])
        check_vocabulary(name, [int(ids.max())], logits.shape[-1])
        prefixes, last, biases = self._table.on(logits.device)
        history = context.last(prefixes.shape[1])[:, None]  # (B, 1, P)
        about_to_end = ((prefixes < 0) | (prefixes == history)).all(dim=-1)  # (B, N)
        bias = torch.zeros_like(logits)
        bias.index_add_(1, last, torch.where(about_to_end, biases.to(logits.dtype), 0.0))
        return logits + bias

    @cached_property
    def _table(self) -> Copies:
        """Prefixes (N, P), left-padded with -1 for "any token"; last tokens (N,); biases (N,).

        In the order in which biases are added: short sequences first.
        """
        biases = {key if isinstance(key, tuple) else (key,): bias for key, bias in self.value.items()}
        sequences = sorted(biases, key=len)
        padding = [-1] * len(sequences[-1])
        padded = torch.tensor([padding[len(ids) :] + list(ids) for ids in sequences])
        amounts = torch.tensor([biases[s] for s in sequences], dtype=torch.double)
        return Copies(padded[:, :-1], padded[:, -1], amounts)


@dataclass(frozen=True)
class SequenceBias(BiasProcessor):
    """Adds a bias to the last token of a sequence wherever the history ends with the tokens before it.

    A sequence of one token is always biased. The biases of several sequences add up.

    Args:
        sequence_bias: {(token, ...): bias}; a bias is a number, or -inf for a ban.
    """

    sequence_bias: Mapping[tuple[int, ...], float]
    parameter, example = "sequence_bias", "{(464, 3290): -5.0}"
    interval, hint = Interval(-torch.inf, torch.inf, open_high=True), "above 0 makes it more probable"


@dataclass(frozen=True)
class LogitBias(BiasProcessor):
    """Adds a bias to single tokens (OpenAI's API). Banned tokens stay banned.

    Args:
        logit_bias: {token: bias}, biases in [-100, 100].
    """

    logit_bias: Mapping[int, float]
    parameter, example = "logit_bias", "{464: -5.0}"
    interval, hint = Interval(-100, 100), "-100 almost bans a token, suppress_tokens bans it"

    def _check_key(self, name: str, key: Any) -> int:
        return check_id(name, key)


@dataclass(frozen=True)
class BadWords(LogitsProcessor):
    """Bans sequences: the last token of each, wherever the history ends with the tokens before it.

    A single end token is not banned, as in transformers; `SuppressTokens` bans it.

    Args:
        bad_words_ids: the token ids of each sequence.
    """

    bad_words_ids: Sequence[Sequence[int]]

    def _check(self, value: Any) -> tuple[tuple[int, ...], ...]:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ArgumentTypeError("bad_words_ids", value, "a list of lists of token ids")
        if not value:
            raise ArgumentValueError("bad_words_ids", value, "at least one sequence", "leave it out for none")
        check_sequences("bad_words_ids", value)
        return tuple(check_ids(f"bad_words_ids[{index}]", word) for index, word in enumerate(value))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        bans = _bans(self.bad_words_ids, context.eos)
        return logits if bans is None else bans.biased("bad_words_ids", logits, context)


@dataclass(frozen=True)
class ExponentialDecayLength(LogitsProcessor):
    """Adds to the logits z of the end tokens |z| (factor^(generated - start) - 1) after `start` tokens.

    Args:
        start: number of generated tokens before the penalty starts.
        factor: above 0; above 1 favours shorter outputs, below 1 longer ones.
    """

    start: int
    factor: float

    def __post_init__(self) -> None:
        name = "exponential_decay_length_penalty"
        start = check_size(f"{name}[0]", to_plain(self.start), hint="the tokens before the penalty starts")
        hint = "1.0 changes nothing, above 1 ends sooner"
        factor = check_number(f"{name}[1]", to_plain(self.factor), POSITIVE, hint)
        set_frozen(self, start=start, factor=factor)

    @classmethod
    def from_pair(cls, pair: Any) -> Self:
        """The processor of (start, factor)."""
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ArgumentTypeError("exponential_decay_length_penalty", pair, "two numbers, (start, factor)")
        return cls(*pair)

    def keeps_log_probs_nonpositive(self, below: bool) -> bool:
        """See `LogitsProcessor.keeps_log_probs_nonpositive`."""
        return below and self.factor <= 1

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        if not context.eos:
            return logits
        check_vocabulary("eos", context.eos, logits.shape[-1])
        eos = constant(tuple(sorted(set(context.eos))), torch.long, logits.device)
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
