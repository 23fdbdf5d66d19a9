"""Prompts of any kind as lists of token ids, and lists of ids as one padded batch.

B prompts, T tokens of the longest, S tokens of the longest source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from minitx.models import CausalModel, EncoderDecoderModel
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_type

Rows = list[list[int]]
Prompts = str | Sequence[str] | Sequence[Sequence[int]] | Sequence[Tensor] | Tensor

_KINDS = "a string, a list of strings, lists of token ids, or a (batch, time) tensor of token ids"


class PaddedBatch(NamedTuple):
    """Rows of different lengths as one batch.

    Attributes:
        input_ids: (B, T) long, padded on the left, so that every row is continued at its end.
        attention_mask: (B, T) bool, False at padding; None without padding.
        position_ids: (B, T) long, counted from 0 in each row; None without padding.
    """

    input_ids: Tensor
    attention_mask: Tensor | None
    position_ids: Tensor | None


def read_prompts(
    prompts: Prompts,
    *,
    vocab_size: int,
    tokenizer: Tokenizer | None = None,
    attention_mask: Tensor | None = None,
    bos: int | None = None,
    as_target: bool = False,
    parameter: str = "prompts",
) -> Rows:
    """Returns the token ids of each prompt, without padding.

    Args:
        prompts: a string, strings, lists of ids of any lengths, or a (B, T) tensor or array.
        vocab_size: number of ids that the model embeds.
        tokenizer: for strings; it adds its special tokens.
        attention_mask: (B, T) of a tensor: 1 or True at tokens, 0 or False at padding, on either side.
        bos: the token that the model's sequences begin with, for the error about an empty prompt.
        as_target: encode strings as decoder input instead of encoder input.
        parameter: name of the argument, for errors.

    Raises:
        ArgumentTypeError: not prompts, or a mask that is not a tensor.
        ArgumentValueError: no prompts, an empty one, ids outside the vocabulary, strings without a tokenizer,
            a mask that does not fit.
    """
    if isinstance(prompts, Tensor):
        rows = _rows_of_tensor(prompts, attention_mask, parameter)
    elif attention_mask is not None:
        expected = f"None unless {parameter} is a (batch, time) tensor"
        raise ArgumentValueError("attention_mask", attention_mask, expected, "lists of ids need no padding")
    else:
        rows = _rows_of_list(prompts, tokenizer, as_target, parameter)
    if not rows:
        raise ArgumentValueError(parameter, prompts, "at least one sequence")
    for number, row in enumerate(rows):
        if not row:
            hint = "" if bos is None else f"sequences of this model begin with token {bos}: pass [[{bos}]]"
            raise ArgumentValueError(f"{parameter}[{number}]", row, "at least one token", hint)
        wrong = min(row) if min(row) < 0 else max(row)
        if not 0 <= wrong < vocab_size:
            expected = f"token ids from 0 to {vocab_size - 1}"
            hint = "check that the tokenizer belongs to this model"
            raise ArgumentValueError(f"{parameter}[{number}]", wrong, expected, hint)
    return rows


def check_tokenizer(tokenizer: Any) -> None:
    """Checks that this is None or a tokenizer."""
    hint = "minitx.load_tokenizer(...) returns one"
    check_type("tokenizer", tokenizer, Tokenizer | None, "a Tokenizer", hint)


def pad_left(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> PaddedBatch:
    """Pads rows of any lengths to (B, T) with `pad` on the left."""
    ids, mask = pad_right([row[::-1] for row in rows], pad, device)
    if mask is None:
        return PaddedBatch(ids.flip(1), None, None)
    mask = mask.flip(1)
    return PaddedBatch(ids.flip(1), mask, (mask.cumsum(1) - 1).clamp(min=0))


def pad_right(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Pads rows that are not continued: ids (B, S), padded on the right, and their mask (B, S) or None."""
    ids = pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], True, pad).to(device)
    lengths = torch.tensor([[len(row)] for row in rows])
    mask = torch.arange(ids.shape[1]) < lengths
    return ids, None if bool(mask.all()) else mask.to(device)


def pad_rows(model: CausalModel, rows: Sequence[Sequence[int]]) -> PaddedBatch:
    """Pads rows for the decoder on the left, with the positions of their tokens."""
    config = model.decoder_embedder.config
    batch = pad_left(rows, config.pad_token_id or 0, model.device)
    places = batch.position_ids
    if places is None and config.numbering == "padding":
        places = torch.arange(batch.input_ids.shape[1], device=model.device).expand_as(batch.input_ids)
    positions = None if places is None else positions_of(model, batch.input_ids, places)
    return batch._replace(position_ids=positions)


def positions_of(model: CausalModel, ids: Tensor, places: Tensor) -> Tensor:
    """Returns the position ids (B, T) of tokens at these places of their rows, counted from 0.

    Models that number positions after the padding id would number a row by the batch or chunk that it comes
    in, if it holds the padding id; these positions do not depend on that.
    """
    embedder = model.decoder_embedder
    if embedder.config.numbering != "padding":
        return places
    padding = embedder.config.pad_token_id or 0
    return torch.where(ids == padding, padding, places + padding + 1)


def pad_sources(model: EncoderDecoderModel, sources: list[list[int]]) -> tuple[Tensor, Tensor | None]:
    """Pads sequences for the encoder: (B, S), padded on the right, and their mask (B, S) or None."""
    return pad_right(sources, model.embedder.config.pad_token_id or 0, model.device)


def pad_embeds(model: CausalModel, embeds: Sequence[Tensor] | None) -> Tensor | None:
    """Pads the embeddings (T, W) of each row, if there are any, on the left with 0: (B, T, W)."""
    if embeds is None:
        return None
    rows = [row.to(model.device, model.dtype) for row in embeds]
    return pad_sequence(rows, batch_first=True, padding_side="left")


def _rows_of_tensor(prompts: Tensor, attention_mask: Tensor | None, parameter: str) -> Rows:
    if prompts.dim() != 2 or prompts.is_floating_point() or prompts.dtype == torch.bool:
        raise ArgumentValueError(parameter, prompts, "integers of shape (batch, time)")
    if attention_mask is None:
        return list(prompts.tolist())
    expected = f"a tensor of shape {tuple(prompts.shape)} with 1 at tokens and 0 at padding, like {parameter}"
    check_type("attention_mask", attention_mask, Tensor, expected)
    binary = (attention_mask == 0) | (attention_mask == 1)
    if attention_mask.shape != prompts.shape or not bool(binary.all()):
        raise ArgumentValueError("attention_mask", attention_mask, expected)
    masks = attention_mask.bool().cpu()
    return [row[mask].tolist() for row, mask in zip(prompts.cpu(), masks, strict=True)]


def _rows_of_list(prompts: Any, tokenizer: Tokenizer | None, as_target: bool, parameter: str) -> Rows:
    plain = prompts.tolist() if hasattr(prompts, "tolist") else prompts  # of NumPy
    items = [plain] if isinstance(plain, str) else plain
    if isinstance(items, bytes) or not isinstance(items, Sequence):
        hint = ""
        if isinstance(prompts, Mapping) and "input_ids" in prompts:  # the output of a tokenizer
            masked = " with attention_mask=" if parameter in ("prompts", "texts") else ""
            hint = f"pass the strings themselves, or batch['input_ids']{masked}"
        raise ArgumentTypeError(parameter, prompts, _KINDS, hint)
    if all(isinstance(item, str) for item in items):
        if items and tokenizer is None:
            raise ArgumentValueError(parameter, prompts, "token ids, or come with tokenizer=")
        return [] if tokenizer is None else [tokenizer.encode(text, as_target=as_target) for text in items]
    rows = []
    for number, row in enumerate(items):
        ids = row.tolist() if hasattr(row, "tolist") else row
        name = f"{parameter}[{number}]"
        if isinstance(ids, str | bytes) or not isinstance(ids, Sequence):
            hint = f"the ids of a single prompt are {parameter}=[[5, 6]]"
            raise ArgumentTypeError(name, row, "a list of token ids like the others", hint)
        if not all(isinstance(token, Integral) and not isinstance(token, bool) for token in ids):
            raise ArgumentTypeError(name, row, "a list of token ids (integers)")
        rows.append([int(token) for token in ids])
    return rows
