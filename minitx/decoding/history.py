"""The tokens of the rows of a running generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from minitx.decoding.processors.context import Context
from minitx.decoding.prompts import pad_right
from minitx.decoding.request import GenerationRequest

# Most new tokens that are allocated in advance. Larger limits mostly mean "until it ends".
PREALLOCATED = 2**14


class TokenHistory:
    """The tokens of each row, left-aligned in a buffer that grows where rows become very long."""

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        rows_per_prompt: int,
        request: GenerationRequest,
        device: torch.device,
    ) -> None:
        """
        Args:
            prompts: of each row.
            rows_per_prompt: number of adjacent rows that continue a prompt.
            request: the limits and sources that the context shows to processors.
            device: where the tokens go.
        """
        ids, _ = pad_right(prompts, 0, device)
        tokens = F.pad(ids, (0, min(request.max_new_tokens, PREALLOCATED)))
        self._lengths = [len(prompt) for prompt in prompts]  # known without waiting for the device
        length = torch.tensor([len(prompt) for prompt in prompts], device=device)
        encoder_tokens = encoder_length = None
        if request.sources is not None:
            copies = len(prompts) // len(request.sources)
            sources = [source for source in request.sources for _ in range(copies)]
            encoder_tokens, _ = pad_right(sources, 0, device)
            encoder_length = torch.tensor([len(source) for source in sources], device=device)
        limits = (request.stop.eos, request.max_new_tokens)
        self._prompts = torch.arange(len(prompts), device=device) // rows_per_prompt
        self.context = Context(tokens, length, length, *limits, encoder_tokens, encoder_length)

    def append(self, token: Tensor) -> None:
        """Appends a token (R,) to each row."""
        tokens, length = self.context.tokens, self.context.length
        if max(self._lengths) == tokens.shape[1]:
            tokens = torch.cat((tokens, torch.zeros_like(tokens)), dim=1)
        self._lengths = [count + 1 for count in self._lengths]
        tokens.scatter_(1, length[:, None], token[:, None])
        self.context = replace(self.context, tokens=tokens, length=length + 1)

    def select(self, rows: Tensor) -> None:
        """Keeps these rows, (R',) long, in this order."""
        self.context, self._prompts = self.context.select(rows), self._prompts[rows]
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

    def prompts_and_padding(self, size: int, columns: int) -> tuple[Tensor, Tensor]:
        """Returns the prompt of each row of a batch, and the padding before it: (B,) long twice.

        Args:
            size: B; before the rows of a prompt are copied, one row each.
            columns: number of columns in the cache after the batch; while chunks follow, fewer than a row has.
        """
        copies = len(self._prompts) // size
        length = self.context.length[::copies]
        return self._prompts[::copies], max(columns, int(length.max())) - length
