"""What a processor may know beside the logits: each row's history, and the limits of the call.

The history is left-aligned whatever padding the model was given, so padding never enters a penalty:

    tokens         prompt_length   length
    a b c d . .    3               4        prompt a b c, generated d
    a b c d e .    2               5        prompt a b, generated c d e
              ^ behind a row's length: undefined

Rows may have different lengths, so a condition on them is a tensor, not an `if`.

B rows, L longest history, V vocabulary, S longest source.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

# Which part of the history counts: prompt and output, output alone, or the last n tokens of both.
Scope = Literal["all", "output"] | int


@dataclass(frozen=True, eq=False)
class Context:
    """The state of a call at one step; to be read, not to be written into.

    Attributes:
        tokens: (B, L) long; row b's history is tokens[b, :length[b]], what lies behind is undefined.
        length: (B,) long, tokens of the prompt and of those generated so far.
        prompt_length: (B,) long.
        eos: the end tokens of the call; () for none.
        max_new_tokens: most tokens per row; None without a limit.
        encoder_tokens: (B, S) long, what the encoder of an encoder-decoder read, left-aligned like tokens;
            None without an encoder.
        encoder_length: (B,) long.
    """

    tokens: Tensor
    length: Tensor
    prompt_length: Tensor
    eos: tuple[int, ...] = ()
    max_new_tokens: int | None = None
    encoder_tokens: Tensor | None = None
    encoder_length: Tensor | None = None

    @property
    def generated(self) -> Tensor:
        """(B,): how many tokens each row has generated."""
        return self.length - self.prompt_length

    @property
    def source(self) -> tuple[Tensor, Tensor]:
        """(B, S) ids and (B,) lengths of what the text is generated from; without an encoder, the prompt."""
        if self.encoder_tokens is None:
            return self.tokens, self.prompt_length
        if self.encoder_length is None:
            raise ValueError("encoder_tokens came without encoder_length; give the (B,) source lengths too.")
        return self.encoder_tokens, self.encoder_length

    def valid(self, scope: Scope = "all") -> Tensor:
        """(B, L) bool: which places of `tokens` belong to the part of the history that counts."""
        places = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        inside = places < self.length[:, None]
        if scope == "all":
            return inside
        start = self.prompt_length if scope == "output" else self.length - scope
        return inside & (places >= start[:, None])

    def counts(self, vocab_size: int, scope: Scope = "all") -> Tensor:
        """(B, V) float32: how often each token occurs in the part of the history that counts."""
        return count(self.tokens, self.valid(scope), vocab_size)

    def last(self, n: int) -> Tensor:
        """(B, n): the last n tokens of each row; -1 where its history is shorter."""
        places = self.length[:, None] - torch.arange(n, 0, -1, device=self.length.device)
        if self.tokens.shape[1] == 0:
            return torch.full_like(places, -1)
        return self.tokens.gather(1, places.clamp(min=0)).masked_fill(places < 0, -1)

    def select(self, rows: Tensor) -> Context:
        """The context of a search that reorders, drops or repeats rows. rows: (B',) long indices."""
        return replace(
            self,
            tokens=self.tokens[rows],
            length=self.length[rows],
            prompt_length=self.prompt_length[rows],
            encoder_tokens=None if self.encoder_tokens is None else self.encoder_tokens[rows],
            encoder_length=None if self.encoder_length is None else self.encoder_length[rows],
        )


def count(tokens: Tensor, valid: Tensor, vocab_size: int) -> Tensor:
    """How often each token occurs: (B, L) ids and which of them count, (B, L) bool -> (B, V) float32."""
    ids = or_spare(tokens, valid, vocab_size)
    counts = torch.zeros(ids.shape[0], vocab_size + 1, device=ids.device)
    counts.scatter_add_(1, ids, torch.ones_like(ids, dtype=counts.dtype))
    return counts[:, :vocab_size]


def or_spare(tokens: Tensor, valid: Tensor, vocab_size: int) -> Tensor:
    """(B, L) ids, with `vocab_size` for what does not count: that of one column more than the vocabulary has.

    Ids beyond the vocabulary do not count either: some models embed more ids than they can predict.
    """
    return torch.where(valid, tokens, vocab_size).clamp(max=vocab_size)
