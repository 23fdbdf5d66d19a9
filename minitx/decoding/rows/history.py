"""The tokens of the rows of a running generation. R rows."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from minitx.decoding.processors.context import Context, spread
from minitx.decoding.prompts import pad_right
from minitx.decoding.request import GenerationRequest

# Most new tokens that are allocated in advance. Larger limits mostly mean "until it ends".
PREALLOCATED = 2**14


class TokenHistory:
    """The tokens of each row, left-aligned in a buffer that grows, and the prompt that it continues."""

    def __init__(self, rows: list[list[int]], request: GenerationRequest, device: torch.device) -> None:
        """
        Args:
            rows: the prompt of each.
            request: the limits and sources that the context shows to processors.
            device: where the tokens go.
        """
        tokens = F.pad(pad_right(rows, 0, device)[0], (0, min(request.max_new_tokens, PREALLOCATED)))
        # Known without waiting for the device: the lengths until rows are chosen or cropped, and a bound.
        self._lengths: list[int] | None = [*map(len, rows)]
        self._longest = max(self._lengths)
        length = torch.tensor(self._lengths, device=device)
        copies = len(rows) // len(request.prompts)
        self.prompts = torch.arange(len(rows), device=device) // copies
        encoder_tokens = encoder_length = None
        if request.sources is not None:
            sources = [source for source in request.sources for _ in range(copies)]
            encoder_tokens, _ = pad_right(sources, 0, device)
            encoder_length = torch.tensor([*map(len, sources)], device=device)
        eos, limit, keys = request.stop.eos, request.max_new_tokens, spread(request.keys, len(rows))
        self.context = Context(tokens, length, length, eos, limit, encoder_tokens, encoder_length, keys)

    def __len__(self) -> int:
        return len(self.context.length)

    def append(self, token: Tensor) -> None:
        """Appends a token (R,) to each row."""
        self.context = self.with_next(token)
        self._longest += 1
        self._lengths = None if self._lengths is None else [count + 1 for count in self._lengths]

    def with_next(self, token: Tensor) -> Context:
        """Returns the context after a token (R,) of each row, which is not appended."""
        tokens, length = self.context.tokens, self.context.length
        if self._longest >= tokens.shape[1]:
            tokens = torch.cat((tokens, torch.zeros_like(tokens)), dim=1)
        tokens.scatter_(1, length[:, None], token[:, None])
        return replace(self.context, tokens=tokens, length=length + 1)

    def select(self, rows: Tensor) -> None:
        """Keeps these rows, (R',) long, in this order."""
        self.context, self.prompts = self.context.select(rows), self.prompts[rows]
        self._lengths = None

    def crop(self, removed: Tensor) -> None:
        """Removes the last tokens of each row: (R,) long, their number."""
        self.context = replace(self.context, length=self.context.length - removed)
        lengths: list[int] = self.context.length.tolist()
        self._lengths, self._longest = lengths, max(lengths)

    def crosses(self, limit: int | None, time: int, rows: Tensor | None = None) -> bool:
        """Returns whether appending `time` tokens (removing them if negative) moves a row across `limit`.

        Args:
            limit: a number of tokens; None: no row crosses it.
            time: the number of tokens to append or remove.
            rows: (R',) long, the rows that are considered; None for all.
        """
        if limit is None:
            return False
        if self._lengths is None:
            self._lengths = self.context.length.tolist()
        lengths = self._lengths if rows is None else [self._lengths[row] for row in rows.tolist()]
        return any((count <= limit) != (count + time <= limit) for count in lengths)

    def rows(self) -> list[list[int]]:
        """Returns the tokens of each row."""
        lengths = self.context.length.tolist()
        return [row[:length] for row, length in zip(self.context.tokens.tolist(), lengths, strict=True)]
