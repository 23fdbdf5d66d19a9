"""The input of a processor besides the logits: each row's token history, and the limits of the call.

The history is left-aligned whatever the padding of the model's input, so padding never enters a penalty:

    tokens         prompt_length   length
    a b c d . .    3               4        prompt a b c, generated d
    a b c d e .    2               5        prompt a b, generated c d e
              ^ after a row's length: undefined

Rows may have different lengths, so a condition on them is a tensor, not an `if`.

B rows, L longest history, V vocabulary, S longest source.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from minitx.validation import ArgumentValueError

# A part of the history: prompt and output, the output alone, or the last n tokens of both.
Scope = Literal["all", "output"] | int


@dataclass(frozen=True, eq=False)
class Context:
    """The token history of a batch at one step. Read-only.

    Attributes:
        tokens: (B, L) long; row b's history is tokens[b, :length[b]], the rest is undefined.
        length: (B,) long, number of tokens of prompt and output.
        prompt_length: (B,) long.
        eos: the end tokens of the call; () for none.
        max_new_tokens: the most tokens per row, one number or (B,) long; None without a limit.
        encoder_tokens: (B, S) long, the encoder input of an encoder-decoder, left-aligned like tokens; None
            without an encoder.
        encoder_length: (B,) long.
        keys: (B,) long, the random key of each row, for processors that draw; None for chains without them.
    """

    tokens: Tensor
    length: Tensor
    prompt_length: Tensor
    eos: tuple[int, ...] = ()
    max_new_tokens: int | Tensor | None = None
    encoder_tokens: Tensor | None = None
    encoder_length: Tensor | None = None
    keys: Tensor | None = None

    @property
    def generated(self) -> Tensor:
        """(B,): number of generated tokens."""
        return self.length - self.prompt_length

    @property
    def source(self) -> tuple[Tensor, Tensor]:
        """(B, S) ids and (B,) lengths of the encoder input; without an encoder, of the prompt."""
        if self.encoder_tokens is None:
            return self.tokens, self.prompt_length
        if self.encoder_length is None:
            raise ArgumentValueError("encoder_length", None, "the (B,) lengths of encoder_tokens")
        return self.encoder_tokens, self.encoder_length

    def valid(self, scope: Scope = "all") -> Tensor:
        """(B, L) bool: the positions of `tokens` that belong to a part of the history."""
        positions = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        inside = positions < self.length[:, None]
        if scope == "all":
            return inside
        start = self.prompt_length if scope == "output" else self.length - scope
        return inside & (positions >= start[:, None])

    def counts(self, vocab_size: int, scope: Scope = "all") -> Tensor:
        """(B, V) float32: number of occurrences of each token in a part of the history."""
        return count(self.tokens, self.valid(scope), vocab_size)

    def last(self, n: int) -> Tensor:
        """(B, n): the last n tokens of each row; -1 where its history is shorter."""
        positions = self.length[:, None] - torch.arange(n, 0, -1, device=self.length.device)
        if self.tokens.shape[1] == 0:
            return torch.full_like(positions, -1)
        return self.tokens.gather(1, positions.clamp(min=0)).masked_fill(positions < 0, -1)

    def select(self, rows: Tensor) -> Context:
        """Returns the context of a batch with reordered, dropped or repeated rows; rows (B',) long."""
        tensors = ((name, value) for name, value in vars(self).items() if isinstance(value, Tensor))
        changes: dict[str, Any] = {name: value[rows] for name, value in tensors}
        return replace(self, **changes)


def count(tokens: Tensor, valid: Tensor, vocab_size: int) -> Tensor:
    """Counts the valid tokens: ids (B, L), valid (B, L) bool -> (B, V) float32."""
    ids = or_spare(tokens, valid, vocab_size)
    counts = torch.zeros(ids.shape[0], vocab_size + 1, dtype=torch.float32, device=ids.device)
    counts.scatter_add_(1, ids, torch.ones_like(ids, dtype=counts.dtype))
    return counts[:, :vocab_size]


def or_spare(tokens: Tensor, valid: Tensor, vocab_size: int) -> Tensor:
    """Replaces invalid ids (B, L) by `vocab_size`, the index of a spare column after the vocabulary.

    Ids outside of the vocabulary are invalid too: some models embed more ids than they can predict.
    """
    return torch.where(valid, tokens, vocab_size).clamp(max=vocab_size)


def spread(keys: Tensor | None, num_rows: int) -> Tensor | None:
    """Returns the keys of rows from those of their prompts or of themselves: (P,) or (rows,) -> (rows,)."""
    if keys is None:
        return None
    return keys[torch.arange(num_rows, device=keys.device) * len(keys) // num_rows]
