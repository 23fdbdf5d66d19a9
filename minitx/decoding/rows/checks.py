"""Checks of the arguments of a session. R rows, K tokens of a step."""

from __future__ import annotations

import torch
from torch import Tensor

from minitx.models.decoder import CausalModel
from minitx.validation import ArgumentValueError, check_indices, check_integer_dtype, values_unavailable


def check_tokens(model: CausalModel, tokens: Tensor, rows: int) -> Tensor:
    """Checks the tokens of a step; returns them as (R, K) long.

    Raises:
        ArgumentTypeError, ArgumentValueError: not ids that the model embeds, or of another number of rows.
    """
    hint = "these are the ids that the model embeds"
    check_indices("tokens", tokens, model.decoder_embedder.config.vocab_size, hint)
    if tokens.dim() not in (1, 2) or len(tokens) != rows or tokens.numel() == 0:
        expected = f"of shape ({rows},), or ({rows}, K) for K tokens per row, not {tuple(tokens.shape)}"
        raise ArgumentValueError("tokens", tokens, expected)
    return tokens.to(torch.long).view(rows, -1)


def check_rows(rows: Tensor, size: int, sources: int, within_prompts: bool) -> None:
    """Checks that the rows exist, and that each prompt can keep its number of them and its source.

    Args:
        rows: (R',) long.
        size: R.
        sources: the number of encoder inputs; 0 without an encoder.
        within_prompts: as for `DecodingSession.reorder`.

    Raises:
        ArgumentTypeError, ArgumentValueError: they do not.
    """
    check_integer_dtype("rows", rows)
    if rows.dim() != 1 or (within_prompts and len(rows) != size):
        hint = "within_prompts=False allows another number of rows"
        raise ArgumentValueError("rows", rows, f"of shape ({size},), not {tuple(rows.shape)}", hint)
    count = size // sources if within_prompts and sources else size
    first = torch.arange(len(rows), device=rows.device) // count * count if count < size else 0
    if values_unavailable(rows):
        return
    if bool(((rows < first) | (rows >= first + count)).any()):  # one wait for the device
        check_indices("rows", rows, size, f"the session has {size} rows")
        expected = "for each row one of the same prompt"
        raise ArgumentValueError("rows", rows, expected, "within_prompts=False moves the sources too")
