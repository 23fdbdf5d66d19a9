"""Constraints: biases, bans, and tokens that must come.

A ban sets logits to -inf. Bans that contradict one another leave a row without a token; whoever calls
the chain sees that and lets `Chain.blame` say which processor it was.

B rows, V vocabulary, N sequences, P longest prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from minitx.decoding.checks import (
    Integers,
    integer,
    number,
    per_row,
    settle,
    token_id,
    token_ids,
    within_vocabulary,
)
from minitx.decoding.context import Context

# Beyond this factor an end token is certain, and float32 not yet at its end.
_LARGEST_DECAY = 1e9


@dataclass(frozen=True)
class SequenceBias:
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
        settle(self, sequence_bias=checked)

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
class BadWords:
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
        settle(self, bad_words_ids=tuple(token_ids("bad_words_ids", word) for word in words))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        bans = _bans(self.bad_words_ids, context.eos)
        return logits if bans is None else bans.biased("bad_words_ids", logits, context)


@dataclass(frozen=True)
class LogitBias:
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
        settle(self, logit_bias=checked)

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        within_vocabulary("logit_bias", self.logit_bias, logits.shape[-1])
        ids = torch.tensor(list(self.logit_bias), device=logits.device)
        biases = torch.tensor(list(self.logit_bias.values()), dtype=logits.dtype, device=logits.device)
        return logits.index_add(1, ids, biases.expand(logits.shape[0], -1))


@dataclass(frozen=True)
class AllowedTokens:
    """Bans every token but these (vLLM's allowed_token_ids).

    Args:
        allowed_token_ids: the tokens that stay as probable as they were.
    """

    allowed_token_ids: Sequence[int]

    def __post_init__(self) -> None:
        settle(self, allowed_token_ids=token_ids("allowed_token_ids", self.allowed_token_ids))

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
class SuppressTokens:
    """Bans tokens.

    Args:
        suppress_tokens: their ids.
    """

    suppress_tokens: Sequence[int]

    def __post_init__(self) -> None:
        settle(self, suppress_tokens=token_ids("suppress_tokens", self.suppress_tokens))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        return _banned("suppress_tokens", self.suppress_tokens, logits)


@dataclass(frozen=True)
class BeginSuppressTokens:
    """Bans tokens as the first that is generated.

    Args:
        begin_suppress_tokens: their ids.
        after_forced_bos: where `ForcedBos` forces the first token, the second is meant.
    """

    begin_suppress_tokens: Sequence[int]
    after_forced_bos: bool = False

    def __post_init__(self) -> None:
        settle(self, begin_suppress_tokens=token_ids("begin_suppress_tokens", self.begin_suppress_tokens))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        first = (context.prompt_length <= 1).long() if self.after_forced_bos else 0
        return _banned(
            "begin_suppress_tokens", self.begin_suppress_tokens, logits, rows=context.generated == first
        )


@dataclass(frozen=True)
class ForcedBos:
    """Forces the second token of a row: what an encoder-decoder says after its start token, say the language.

    Every other token is banned, and the forced one gets the logit 0 even if it was banned before. A prompt
    of two tokens or more has its second token already.

    Args:
        token: its id.
    """

    token: int

    def __post_init__(self) -> None:
        settle(self, token=token_id("forced_bos_token_id", self.token))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        return _forced("forced_bos_token_id", (self.token,), logits, rows=context.length == 1)


@dataclass(frozen=True)
class ForcedEos:
    """Forces an end token as the last one that max_new_tokens allows, as `ForcedBos` does.

    Args:
        tokens: their ids; of several, any may come.
    """

    tokens: Sequence[int]

    def __post_init__(self) -> None:
        settle(self, tokens=token_ids("forced_eos_token_id", self.tokens))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V); the logits themselves where the call has no max_new_tokens."""
        if context.max_new_tokens is None:
            return logits
        rows = context.generated == context.max_new_tokens - 1
        return _forced("forced_eos_token_id", self.tokens, logits, rows)


@dataclass(frozen=True)
class MinLength:
    """Bans the end tokens until a row, prompt included, has so many tokens. Without end tokens, nothing.

    Args:
        min_length: one or per row; 0 bans nothing. transformers counts padding too.
    """

    min_length: Integers

    def __post_init__(self) -> None:
        settle(self, min_length=integer("min_length", self.min_length, 0, "0 sets no minimum"))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        rows = context.length < per_row("min_length", self.min_length, context.length)
        return _banned("eos", context.eos, logits, rows)


@dataclass(frozen=True)
class MinNewTokens:
    """Bans the end tokens until a row has generated so many tokens. Without end tokens, nothing.

    Args:
        min_new_tokens: one or per row; 0 bans nothing.
    """

    min_new_tokens: Integers

    def __post_init__(self) -> None:
        settle(self, min_new_tokens=integer("min_new_tokens", self.min_new_tokens, 0, "0 sets no minimum"))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        rows = context.generated < per_row("min_new_tokens", self.min_new_tokens, context.length)
        return _banned("eos", context.eos, logits, rows)


@dataclass(frozen=True)
class ExponentialDecayLength:
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
        settle(self, start=start, factor=factor)

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


@dataclass(frozen=True)
class PrefixAllowed:
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
