"""Token ids to vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from minitx.config import Numbering, Projection, SinusoidalPositions, TextInputs
from minitx.layers.embedding import (
    Embedding,
    ScaledEmbedding,
    ShiftedEmbedding,
    SinusoidalEmbedding,
    SummedEmbeddings,
    scaled,
)
from minitx.layers.norm import dropout, norm
from minitx.layers.tables import COLUMN, ROW, cell_positions
from minitx.validation import check_indices, check_position_ids, check_shape


class Embedder(nn.Module):
    """The sum of word, token type and position embeddings, normalised.

    Attributes:
        max_tokens: the longest sequence: entries of the position table, less those before the first position.
            Without a table it is the context length of the training, which longer sequences may exceed.
        prefix: of the names of its inputs in messages, "decoder_" in an encoder-decoder.
    """

    prefix = ""
    types: Any = Embedding  # the module of the token types

    def __init__(self, config: TextInputs) -> None:
        super().__init__()
        self.config = config
        size, hidden, place = config.embedding_size, config.hidden_size, config.projection
        summed, added = hidden if place == "words" else size, config.positions
        self.number = NUMBERINGS[added.numbering] if added else number_all
        padding = config.pad_token_id if self.number is number_unpadded else None
        self.word_emb = word_embedding(config)
        self.pos_emb = position_embedding(config, summed, padding) if added else None
        self.tok_type_emb = self.types(config.type_vocab_size, summed) if config.type_vocab_size else None
        if place != "none":
            self.projection = nn.Linear(size, hidden, bias=place == "after_dropout")
        self.layer_norm = norm(config.norm, size if place == "after_dropout" else hidden)
        self.dropout = dropout(config.dropout)
        self.has_position_table = isinstance(self.pos_emb, Embedding)  # which limits the length
        first = getattr(added, "offset", 0) if padding is None else padding + 1
        self.max_tokens = config.max_position_embeddings - first

    def check_ids(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> None:
        """Checks ids against the tables, which would fail with an index error or a dead GPU.

        Args:
            input_ids: (B, T).
            token_type_ids: (B, T) or (B, T, K), or None.

        Raises:
            ArgumentTypeError: not a tensor.
            ArgumentValueError: a wrong shape or dtype, or an id outside its table.
        """
        hint = "does the tokenizer belong to this model?"
        check_indices(f"{self.prefix}input_ids", input_ids, self.config.vocab_size, hint)
        if token_type_ids is not None:
            self.check_types(token_type_ids, tuple(input_ids.shape))

    def positions(
        self, input_ids: Tensor, position_ids: Tensor | None, past: int = 0, mask: Tensor | None = None
    ) -> Tensor:
        """Returns the positions, checked against their table.

        Args:
            input_ids: (B, T).
            position_ids: (1 or B, T); None: the architecture's own numbering.
            past: number of tokens before them.
            mask: (B, past + T), False at padding.

        Returns:
            (1 or B, T)

        Raises:
            ArgumentTypeError: not a tensor.
            ArgumentValueError: a wrong shape or dtype, or a position outside the table.
            ValueError: a sequence longer than the table.
        """
        if position_ids is not None:
            self.check_positions(position_ids, tuple(input_ids.shape))
            return position_ids
        positions = self.number(input_ids, self.config.pad_token_id, past, mask)
        if past + input_ids.shape[1] > self.max_tokens:
            self.check_length(positions, past)
        return positions

    def check_types(self, token_type_ids: Tensor, shape: tuple[int, ...]) -> None:
        """Checks shape and values of the token type ids.

        Args:
            token_type_ids: (B, T)
            shape: (B, T) of the tokens.
        """
        check_shape("token_type_ids", token_type_ids, shape)
        if self.tok_type_emb is not None:
            check_indices("token_type_ids", token_type_ids, self.tok_type_emb.num_embeddings)

    def check_positions(self, position_ids: Tensor, shape: tuple[int, ...], hint: str = "") -> None:
        """Checks that the positions fit the tokens and the table.

        Args:
            position_ids: (1 or B, T)
            shape: (B, T) of the tokens.
            hint: what to do about a position outside the table.
        """
        check_position_ids(position_ids, shape, self.prefix)
        if self.has_position_table:
            rows = self.config.max_position_embeddings - getattr(self.config.positions, "offset", 0)
            check_indices(f"{self.prefix}position_ids", position_ids, rows, hint)

    def check_length(self, position_ids: Tensor, past: int) -> None:
        """Checks that more tokens than `max_tokens` fit the table, since padding may share a position.

        Args:
            position_ids: (1 or B, T), the architecture's own numbering.
            past: number of tokens before them.
        """
        count = past + position_ids.shape[1]
        too_long = f"the text has {count} tokens; pass truncation=True to the tokenizer, or split it"
        if self.number is number_unpadded:
            self.check_positions(position_ids, tuple(position_ids.shape), too_long)
        elif self.has_position_table:
            raise ValueError(f"the model has positions for {self.max_tokens} tokens, but {too_long}.")

    def project(self, hidden: Tensor, place: Projection) -> Tensor:
        """Applies the projection if it belongs to this place: (B, T, size) -> (B, T, size or E)."""
        return self.projection(hidden) if self.config.projection == place else hidden

    def forward(
        self, ids: Tensor, types: Tensor | None, position_ids: Tensor, inputs_embeds: Tensor | None = None
    ) -> Tensor:
        """(B, T), (B, T) or (B, T, K), (1 or B, T), output of `word_emb` (B, T, W) or None -> (B, T, E)"""
        hidden = self.project(self.word_emb(ids) if inputs_embeds is None else inputs_embeds, "words")
        if self.tok_type_emb is not None:
            hidden = hidden + self.tok_type_emb(torch.zeros_like(ids) if types is None else types)
        if self.pos_emb is not None:
            hidden = hidden + self.pos_emb(position_ids).to(hidden.dtype)
        hidden = self.dropout(self.layer_norm(self.project(hidden, "before_norm")))
        return self.project(hidden, "after_dropout")


class ScalingEmbedder(Embedder):
    """An embedder that scales after the lookup, and so `inputs_embeds` too; its `word_emb` does not scale."""

    def forward(
        self, ids: Tensor, types: Tensor | None, position_ids: Tensor, inputs_embeds: Tensor | None = None
    ) -> Tensor:
        """(B, T), (B, T) or (B, T, K), (1 or B, T), output of `word_emb` (B, T, W) or None -> (B, T, E)"""
        words, scale = (
            self.word_emb(ids) if inputs_embeds is None else inputs_embeds,
            self.config.embedding_scale,
        )
        if scale is not None:
            words = scaled(words, scale, rounded=self.config.rounded_scale)
        return super().forward(ids, types, position_ids, words)


class TableEmbedder(Embedder):
    """An embedder of tokens that have a type of each of several kinds, such as column and row in a table."""

    types = SummedEmbeddings

    def __init__(self, config: TextInputs) -> None:
        super().__init__(config)
        self.sizes = config.type_vocab_size if isinstance(config.type_vocab_size, tuple) else ()

    def check_types(self, token_type_ids: Tensor, shape: tuple[int, ...]) -> None:
        """Checks shape and values of the token type ids.

        Args:
            token_type_ids: (B, T, K)
            shape: (B, T) of the tokens.
        """
        check_shape("token_type_ids", token_type_ids, (*shape, len(self.sizes)))
        for kind, size in enumerate(self.sizes):
            check_indices(f"token_type_ids[..., {kind}]", token_type_ids[..., kind], size)

    def cell_positions(self, token_type_ids: Tensor) -> Tensor:
        """Numbers the tokens of each cell from 0 to the last position of the table: (B, T, K) -> (B, T)."""
        positions = cell_positions(token_type_ids, self.sizes[COLUMN], self.sizes[ROW])
        return positions.clamp(max=self.config.max_position_embeddings - 1)

    def forward(
        self, ids: Tensor, types: Tensor | None, position_ids: Tensor, inputs_embeds: Tensor | None = None
    ) -> Tensor:
        """(B, T), (B, T, K), (1 or B, T), output of `word_emb` (B, T, W) or None -> (B, T, E)"""
        types = ids.new_zeros(*ids.shape, len(self.sizes)) if types is None else types
        return super().forward(ids, types, position_ids, inputs_embeds)


def text_embedder(config: TextInputs) -> Embedder:
    """Returns the embedder of token ids."""
    several = isinstance(config.type_vocab_size, tuple)
    return (TableEmbedder if several else ScalingEmbedder if config.scale_inputs_embeds else Embedder)(config)


def word_embedding(config: TextInputs) -> Embedding:
    """Returns the word embedding, scaled if the config asks for it."""
    padding = None if config.padding_is_trained else config.pad_token_id
    shape, scale = (config.vocab_size, config.embedding_size), config.embedding_scale
    if scale is None or config.scale_inputs_embeds:
        return Embedding(*shape, padding_idx=padding)
    return ScaledEmbedding(*shape, padding, scale=scale, rounded=config.rounded_scale)


def position_embedding(config: TextInputs, size: int, padding: int | None) -> nn.Module:
    """Returns the module of the position vectors; position `padding` gets a zero vector."""
    if isinstance(config.positions, SinusoidalPositions):
        return SinusoidalEmbedding(config.positions.kind, size, padding)
    if offset := getattr(config.positions, "offset", 0):
        return ShiftedEmbedding(config.max_position_embeddings, size, padding, offset)
    return Embedding(config.max_position_embeddings, size, padding)


# --- position ids: (ids (B, T), pad_token_id, past, mask (B, past + T)) -> (1 or B, T) -------------


def number_all(input_ids: Tensor, pad_token_id: int | None, past: int, mask: Tensor | None) -> Tensor:
    """Numbers all tokens from 0: (B, T), mask (B, past + T) -> (1, T)."""
    return torch.arange(past, past + input_ids.shape[1], device=input_ids.device)[None]


def number_unpadded(input_ids: Tensor, pad_token_id: int | None, past: int, mask: Tensor | None) -> Tensor:
    """Numbers tokens other than padding from pad_token_id + 1; padding gets pad_token_id.

    (B, T), mask (B, past + T) -> (B, T)

    This is fairseq's numbering, whose position table starts after the padding row. None of the `past` tokens
    is padding.
    """
    assert pad_token_id is not None, "TextInputs checks it"
    real = (input_ids != pad_token_id).long()
    return (torch.cumsum(real, dim=1) + past) * real + pad_token_id


def number_attended(input_ids: Tensor, pad_token_id: int | None, past: int, mask: Tensor | None) -> Tensor:
    """Numbers attended tokens from 0; padding gets -1: (B, T), mask (B, past + T) -> (1 or B, T)."""
    if mask is None:
        return number_all(input_ids, pad_token_id, past, mask)
    attended = mask.long()
    return (attended.cumsum(dim=1) * attended - 1)[:, past:]


NUMBERINGS: dict[Numbering, Callable[[Tensor, int | None, int, Tensor | None], Tensor]] = {
    "sequence": number_all,
    "padding": number_unpadded,
    "mask": number_attended,
    "cell": number_all,  # without token types; `TableEmbedder.cell_positions` needs them
}
