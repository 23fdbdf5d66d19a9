"""Batches to compare two implementations on: sequences of several lengths, alone and padded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minitx.config import TextInputs
from minitx.models import EncoderDecoderModel, Model

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer

TEXTS = (
    "Paris is the capital of France.",
    "Why?",
    "The quick brown fox jumps over 13 lazy dogs, naïvely; then it rests (in the shade) until dusk.",
)


@dataclass(frozen=True)
class Inputs:
    """Batches and their description."""

    batches: Sequence[Mapping[str, Tensor]]
    words: str


def make_inputs(tokenizer: Tokenizer | None, model: Model, limit: int) -> Inputs:
    """Makes a padded batch, and its longest row alone without a mask.

    Real text if there is a tokenizer, else random ids. The longest sequence exceeds the sliding window of the
    layers. Decoder inputs are random ids, fewer than the encoder inputs.

    Args:
        tokenizer: of the checkpoint, or None.
        model: its config gives vocabulary, window and task.
        limit: maximum number of tokens in a row.
    """
    longest = target_length(model, limit)
    if tokenizer is not None:
        pad = model.config.text_inputs.pad_token_id or 0
        batch, words = text_batch(tokenizer, longest, pad), "real text"
    else:
        batch = random_batch(model, [min(n, longest) for n in (9, 3, longest)])
        words = "random ids (no tokenizer that minitx can read)"
    kinds = model.config.text_inputs.type_vocab_size
    if not kinds:
        batch.pop("token_type_ids", None)
    elif isinstance(kinds, tuple):
        batch["token_type_ids"] = table_types(kinds, batch["attention_mask"])
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    row = lengths.index(max(lengths))
    words += f", {len(lengths)} texts of {min(lengths)} to {max(lengths)} tokens, padded; one alone"
    if isinstance(model, EncoderDecoderModel):
        if model.task == "sequence-classification":
            end_each(batch, model.config.eos_token_id)
        elif model.task in (None, "seq2seq-lm"):
            batch |= decoder_batch(model, len(lengths), max(lengths))
            words += "; random decoder ids"
    batches = [one_row(batch, row), batch]
    if model.task == "multiple-choice":
        batches = [{name: x[None] for name, x in part.items()} for part in batches]
    return Inputs(batches, words)


def target_length(model: Model, limit: int) -> int:
    """Returns the length of the longest row: 32, or beyond a sliding window (on both sides if not causal)."""
    stack = model.config.encoder or model.config.stack
    if stack.sliding_window is None:
        return min(limit, 32)
    return min(limit, stack.sliding_window * (1 if stack.causal else 2) + 22)


def one_row(batch: Mapping[str, Tensor], row: int) -> dict[str, Tensor]:
    """Returns one row without its padding and mask."""
    inputs = {}
    for name in (name for name in batch if not name.endswith("attention_mask")):
        side = "decoder_" if name.startswith("decoder_") else ""
        inputs[name] = batch[name][row : row + 1, batch[f"{side}attention_mask"][row].bool()]
    return inputs


def decoder_batch(model: EncoderDecoderModel, rows: int, source_length: int) -> dict[str, Tensor]:
    """Makes random decoder inputs, shorter than the source so that sizes tell the two apart."""
    longest = max(1, min(11, source_length - 1, model.decoder_embedder.max_tokens))
    lengths = [max(1, longest - 4 * row) for row in range(rows)]
    drawn = random_ids(model.decoder_embedder.config, lengths)
    return {f"decoder_{name}": drawn[name] for name in ("input_ids", "attention_mask")}


def end_each(batch: dict[str, Tensor], eos: int | None) -> None:
    """Lets every row end with its only end token, whose hidden state the head classifies."""
    if eos is None:
        return  # the model raises an error
    ids, lengths = batch["input_ids"], batch["attention_mask"].sum(dim=1, keepdim=True)
    other = eos - 1 if eos else 1
    batch["input_ids"] = ids.masked_fill(ids == eos, other).scatter(1, lengths - 1, eos)


def text_batch(tokenizer: Tokenizer, longest: int, pad: int) -> dict[str, Tensor]:
    """Tokenizes texts, right-padded; with `pad`, which nothing attends to, if there is no padding token."""
    texts = list(TEXTS)
    while len(tokenizer.encode(texts[-1])) < longest:
        texts[-1] += " " + TEXTS[-1]
    if tokenizer.pad_token_id is None:
        rows = [tokenizer.encode(text)[:longest] for text in texts]
        time = max(map(len, rows))
        ids = torch.tensor([row + [pad] * (time - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (time - len(row)) for row in rows])
        return {"input_ids": ids, "attention_mask": mask}
    return dict(tokenizer(texts, padding=True, truncation=True, max_length=longest, padding_side="right"))


def random_batch(model: Model, lengths: Sequence[int]) -> dict[str, Tensor]:
    """Makes random input ids with both token types."""
    config, time = model.config.text_inputs, max(lengths)
    batch = random_ids(config, lengths)
    if isinstance(config.type_vocab_size, int) and config.type_vocab_size > 1:
        half = torch.tensor(lengths)[:, None] // 2
        batch["token_type_ids"] = (torch.arange(time) >= half).long() * batch["attention_mask"]
    return batch


def table_types(sizes: Sequence[int], mask: Tensor) -> Tensor:
    """Makes the token types of a table of two columns and two tokens per cell, after three of a question.

    Args:
        sizes: number of types of each of K kinds.
        mask: (B, T), 1 at tokens.

    Returns:
        (B, T, K)
    """
    cell = (torch.arange(mask.shape[1]) - 3).div(2, rounding_mode="floor")
    kinds = [torch.ones_like(cell), 1 + cell % 2, cell.div(2, rounding_mode="floor")]
    kinds += [cell * kind for kind in range(3, len(sizes))]
    types = torch.stack([kind % size for kind, size in zip(kinds, sizes, strict=False)], dim=-1)
    return types.masked_fill((cell < 0)[:, None], 0) * mask[..., None]


def random_ids(config: TextInputs, lengths: Sequence[int]) -> dict[str, Tensor]:
    """Makes random ids, the same at every call and without the padding id."""
    time = max(lengths)
    generator = torch.Generator().manual_seed(0)
    pad = config.pad_token_id
    ids = torch.randint(config.vocab_size - (pad is not None), (len(lengths), time), generator=generator)
    if pad is not None:
        ids += ids >= pad
    mask = (torch.arange(time) < torch.tensor(lengths)[:, None]).long()
    ids = torch.where(mask.bool(), ids, pad or 0)
    return {"input_ids": ids, "attention_mask": mask}
