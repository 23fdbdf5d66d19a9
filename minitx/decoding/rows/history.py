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
        self._lengths = [*map(len, rows)]  # known without waiting for the device
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
        return len(self._lengths)

    def append(self, token: Tensor) -> None:
        """Appends a token (R,) to each row."""
        self.context = self.with_next(token)
        self._lengths = [count + 1 for count in self._lengths]

    def with_next(self, token: Tensor) -> Context:
        """Returns the context after a token (R,) of each row, which is not appended."""
        tokens, length = self.context.tokens, self.context.length
        if max(self._lengths) == tokens.shape[1]:
            tokens = torch.cat((tokens, torch.zeros_like(tokens)), dim=1)
        tokens.scatter_(1, length[:, None], token[:, None])
        return replace(self.context, tokens=tokens, length=length + 1)

    def select(self, rows: Tensor) -> None:
        """Keeps these rows, (R',) long, in this order."""
        self.context, self.prompts = self.context.select(rows), self.prompts[rows]
        self._lengths = self._selected(rows)

    def crop(self, removed: Tensor) -> None:
        """Removes the last tokens of each row: (R,) long, their number."""
        self.context = replace(self.context, length=self.context.length - removed)
        self._lengths = self.context.length.tolist()

    def crosses(self, limit: int | None, time: int, rows: Tensor | None = None) -> bool:
        """Returns whether appending `time` tokens (removing them if negative) moves a row across `limit`.

        Args:
            limit: a number of tokens; None: no row crosses it.
            time: the number of tokens to append or remove.
            rows: (R',) long, the rows that are considered; None for all.
        """
        return limit is not None and any(
            (count <= limit) != (count + time <= limit) for count in self._selected(rows)
        )

    def _selected(self, rows: Tensor | None) -> list[int]:
        """Returns the lengths of these rows; of all for None."""
        return self._lengths if rows is None else [self._lengths[row] for row in rows.tolist()]

    def rows(self) -> list[list[int]]:
        """Returns the tokens of each row."""
        lengths = self.context.length.tolist()
        return [row[:length] for row, length in zip(self.context.tokens.tolist(), lengths, strict=True)]
