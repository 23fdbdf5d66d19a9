"""Histories and logits for the tests of processors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from minitx.decoding import Context


def history(
    rows: list[list[int]],
    prompt_length: int | list[int] = 0,
    encoder: list[list[int]] | None = None,
    **more: Any,
) -> Context:
    """A context of these rows; what lies behind a row's end is junk that no processor may read."""
    tokens, length = left_aligned(rows)
    prompt = [prompt_length] * len(rows) if isinstance(prompt_length, int) else prompt_length
    if encoder is not None:
        more["encoder_tokens"], more["encoder_length"] = left_aligned(encoder)
    return Context(tokens, length, torch.tensor(prompt), **more)


def left_aligned(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """(B, L) ids with junk behind each row's end, and (B,) lengths."""
    longest = max(map(len, rows)) + 2
    junk = [1, 0, 3, -5, 10**6, 2]
    filled = [row + [junk[i % len(junk)] for i in range(longest - len(row))] for row in rows]
    return torch.tensor(filled), torch.tensor([len(row) for row in rows])


def left_padded(rows: list[list[int]], pad: int) -> Tensor:
    """(B, L) ids as transformers takes them."""
    longest = max(map(len, rows))
    return torch.tensor([[pad] * (longest - len(row)) + row for row in rows])


def logits_of(kind: str, rows: int, vocab_size: int, seed: int = 0) -> Tensor:
    """(B, V) float32 logits of a kind that some filter could get wrong."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(rows, vocab_size, generator=generator) * 3
    if kind == "random":
        return normal
    if kind == "ties":
        return torch.zeros(rows, vocab_size)
    if kind == "some ties":
        return (normal / 2).round()
    if kind == "holes":
        holes = torch.rand(rows, vocab_size, generator=generator) < 0.4
        holes[:, seed % vocab_size] = False
        return normal.masked_fill(holes, -torch.inf)
    if kind == "one-hot":
        choice = torch.randint(vocab_size, (rows, 1), generator=generator)
        return torch.full((rows, vocab_size), -torch.inf).scatter(1, choice, 1.5)
    if kind == "huge":
        return normal.sign() * 1e4 + normal
    raise ValueError(kind)


KINDS = ("random", "ties", "some ties", "holes", "one-hot", "huge")
