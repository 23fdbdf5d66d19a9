"""Biases: what is added to the logits of tokens, sequences and the end.

B rows, V vocabulary, N sequences, P longest prefix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from minitx.decoding.checks import (
    check_sequences,
    integer,
    number,
    set_frozen,
    token_id,
    token_ids,
    within_vocabulary,
)
from minitx.decoding.processors.base import LogitsProcessor
from minitx.decoding.processors.context import Context

# Beyond this factor an end token is certain, and float32 not yet at its end.
_LARGEST_DECAY = 1e9


@dataclass(frozen=True)
class SequenceBias(LogitsProcessor):
    """Adds a bias to the last token of a sequence wherever the history ends with the tokens before it.

    A sequence of one token is biased always. The biases of several sequences add up.

    Args:
        sequence_bias: {(token, ...): bias}; a bias is a number, or -inf for a ban.
    """

    sequence_bias: Mapping[tuple[int, ...], float]

    def __post_init__(self) -> None:
        given = _mapping("sequence_bias", self.sequence_bias, "{(464, 3290): -5.0}")
        checked = {}
        for sequence, bias in given.items():
            ids = token_ids("a key of sequence_bias", sequence)
            checked[ids] = number(
                f"sequence_bias[{ids}]", bias, "[-inf, inf)", "above 0 makes it more probable"
            )
        set_frozen(self, sequence_bias=checked)

    def keeps_log_probs_nonpositive(self, below: bool) -> bool:
        return below and max(self.sequence_bias.values()) <= 0

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        return self.biased("sequence_bias", logits, context)

    def biased(self, name: str, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V); `name` is what an error calls the sequences."""
        within_vocabulary(name, [self._largest], logits.shape[-1])
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
        """Prefixes (N, P), right-aligned behind -1 for "any token"; last tokens (N,); biases (N,).

        In the order in which they are added up: short sequences first.
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

    An end token by itself is not banned, as in transformers; `SuppressTokens` does that.

    Args:
        bad_words_ids: the token ids of each sequence.
    """

    bad_words_ids: Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        words = self.bad_words_ids
        if isinstance(words, str) or not isinstance(words, Sequence):
            raise TypeError(f"bad_words_ids={words!r} must be a list of lists of token ids.")
        if not words:
            raise ValueError("bad_words_ids holds no words; leave it out if there are none.")
        check_sequences("bad_words_ids", words)
        set_frozen(self, bad_words_ids=tuple(token_ids("bad_words_ids", word) for word in words))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        bans = _bans(self.bad_words_ids, context.eos)
        return logits if bans is None else bans.biased("bad_words_ids", logits, context)


@dataclass(frozen=True)
class LogitBias(LogitsProcessor):
    """Adds a bias to single tokens (OpenAI's API). A token that is banned stays banned.

    Args:
        logit_bias: {token: bias}, biases in [-100, 100].
    """

    logit_bias: Mapping[int, float]

    def __post_init__(self) -> None:
        given = _mapping("logit_bias", self.logit_bias, "{464: -5.0}")
        checked = {}
        for token, bias in given.items():
            meaning = "-100 all but bans a token, suppress_tokens does it for certain"
            token = token_id("a key of logit_bias", token)
            checked[token] = number(f"logit_bias[{token}]", bias, "[-100, 100]", meaning)
        set_frozen(self, logit_bias=checked)

    def keeps_log_probs_nonpositive(self, below: bool) -> bool:
        return below and max(self.logit_bias.values()) <= 0

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        within_vocabulary("logit_bias", self.logit_bias, logits.shape[-1])
        ids = torch.tensor(list(self.logit_bias), device=logits.device)
        biases = torch.tensor(list(self.logit_bias.values()), dtype=logits.dtype, device=logits.device)
        return logits.index_add(1, ids, biases.expand(logits.shape[0], -1))


@dataclass(frozen=True)
class ExponentialDecayLength(LogitsProcessor):
    """Raises the end tokens ever more: from `start` tokens on by |z| (factor^(generated - start) - 1).

    Args:
        start: how many tokens are generated before.
        factor: above 0; above 1 the end comes sooner, below 1 later.
    """

    start: int
    factor: float

    def __post_init__(self) -> None:
        name = "exponential_decay_length_penalty"
        start = integer(f"{name}[0]", self.start, 0, "it is the number of tokens before the penalty starts")
        factor = number(f"{name}[1]", self.factor, "(0, inf)", "1.0 changes nothing, above 1 ends sooner")
        if isinstance(start, tuple) or isinstance(factor, tuple):
            raise TypeError(f"{name}=({start}, {factor}) must be two numbers: the start and the factor.")
        set_frozen(self, start=start, factor=factor)

    def keeps_log_probs_nonpositive(self, below: bool) -> bool:
        return below and self.factor <= 1

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        if not context.eos:
            return logits
        within_vocabulary("eos", context.eos, logits.shape[-1])
        eos = torch.tensor(sorted(set(context.eos)), device=logits.device)
        over = (context.generated - self.start).clamp(min=0).double()
        # In double precision, as the reference's Python number; a limit, as it would reach infinity.
        growth = (self.factor**over - 1).clamp(max=_LARGEST_DECAY).to(logits.dtype)[:, None]
        raised = logits[:, eos] + logits[:, eos].abs() * growth
        return logits.index_copy(1, eos, torch.where(logits[:, eos].isfinite(), raised, logits[:, eos]))


@lru_cache(maxsize=32)
def _bans(words: tuple[tuple[int, ...], ...], eos: tuple[int, ...]) -> SequenceBias | None:
    """The words but for single end tokens; kept, since words and end tokens are the same in every step."""
    bans = {word: -torch.inf for word in words if not (len(word) == 1 and word[0] in eos)}
    return SequenceBias(bans) if bans else None


def _mapping(name: str, value: Any, example: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}={value!r} must be a dict such as {example}.")
    if not value:
        raise ValueError(f"{name} holds no biases; leave it out if there are none.")
    return value
