"""Token ids to vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from minitx.config import EmbedderConfig
from minitx.layers.embedding import Embedding, ScaledEmbedding
from minitx.layers.linear import Linear
from minitx.layers.norm import Slot, dropout, identity, layer_norm
from minitx.layers.positions import position_ids_from_mask, position_ids_from_padding, sinusoids
from minitx.validation import check_indices, check_position_ids, check_shape, check_token_ids


class Embedder(nn.Module):
    """The sum of word, token type and position embeddings, normed.

    Which of its parts there are, and where the sum gets the width of the stack, the config says.
    """

    def __init__(self, config: EmbedderConfig) -> None:
        super().__init__()
        self.config = config
        size, hidden = config.embedding_size, config.hidden_size
        summed = hidden if config.projection == "words" else size
        padding = None if config.padding_is_trained else config.pad_token_id
        self.word_emb = word_embedding(config, padding)
        padding = config.pad_token_id if config.positions_from_padding else None
        self.pos_emb = (
            Embedding(config.max_position_embeddings, summed, padding_idx=padding)
            if config.position_embeddings
            else None
        )
        self.tok_type_emb = Embedding(config.type_vocab_size, summed) if config.type_vocab_size else None
        self.projection: Slot = identity
        if config.projection != "none":
            self.projection = Linear(size, hidden, bias=config.projection == "after_dropout")
        normed = size if config.projection == "after_dropout" else hidden
        self.layer_norm = layer_norm(normed, config.layer_norm_eps, config.norm_bias)
        self.dropout = dropout(config.hidden_dropout_prob)

    @property
    def max_tokens(self) -> int:
        """How long a text can be; fewer tokens than rows where positions count from behind the padding id.

        Without a table, what the model was made for: longer texts run, but it has never seen any.
        """
        config = self.config
        if config.positions_from_padding and config.pad_token_id is not None:
            return config.max_position_embeddings - config.pad_token_id - 1
        return config.max_position_embeddings - config.position_offset

    def position_ids(self, input_ids: Tensor, past: int = 0, mask: Tensor | None = None) -> Tensor:
        """The positions that `forward` uses when none are given.

        Args:
            input_ids: (B, T).
            past: how many tokens came before them.
            mask: (B, past + T), False at padding.

        Returns:
            (1 or B, T)
        """
        if self.config.positions_from_padding:
            assert self.config.pad_token_id is not None
            return position_ids_from_padding(input_ids, self.config.pad_token_id, past)
        if self.config.positions_from_mask and mask is not None:
            return position_ids_from_mask(mask)[:, past:]
        return torch.arange(past, past + input_ids.shape[1], device=input_ids.device)[None]

    def check(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        past: int = 0,
        mask: Tensor | None = None,
        prefix: str = "",
    ) -> Tensor:
        """Refuses what the tables could only answer with an index error, or a dead GPU.

        Args:
            input_ids, token_type_ids, position_ids: as for `forward`, of which the last may be None.
            past, mask: as for `position_ids`.
            prefix: of the names in messages, "decoder_" in an encoder-decoder.

        Returns:
            (1 or B, T): the positions; the architecture's own numbering where none are given.

        Raises:
            TypeError: no tensor.
            ValueError: no tokens, a wrong shape or type, an id outside its table.
        """
        name = f"{prefix}input_ids"
        shape = check_token_ids(name, input_ids)
        check_indices(name, input_ids, self.config.vocab_size, "does the tokenizer belong to this model?")
        if token_type_ids is not None:
            self.check_types(token_type_ids, shape)
        length = past + shape[1]
        too_long = f"the text has {length} tokens, truncate or split it"
        if position_ids is not None or (self.config.positions_from_padding and length > self.max_tokens):
            found = self.position_ids(input_ids, past, mask) if position_ids is None else position_ids
            return self.checked_positions(found, shape, too_long, prefix)
        if self.pos_emb is not None and length > self.max_tokens:
            raise ValueError(f"the model has positions for {self.max_tokens} tokens, but {too_long}.")
        return self.position_ids(input_ids, past, mask)

    def check_types(self, token_type_ids: Tensor, shape: tuple[int, ...]) -> None:
        check_shape("token_type_ids", token_type_ids, shape)
        if self.tok_type_emb is not None:
            check_indices("token_type_ids", token_type_ids, self.config.type_vocab_size)

    def checked_positions(
        self, position_ids: Tensor, shape: tuple[int, ...], hint: str, prefix: str
    ) -> Tensor:
        """The positions, if they are some for tokens (B, T) and rows of the table."""
        check_position_ids(position_ids, shape, prefix)
        if self.pos_emb is not None:
            rows = self.config.max_position_embeddings - self.config.position_offset
            check_indices(f"{prefix}position_ids", position_ids, rows, hint)
        return position_ids

    def waves(self, position_ids: Tensor, dtype: torch.dtype) -> Tensor:
        """(1 or B, T) -> (1 or B, T, E); 0 for padding where positions count from behind its id."""
        config = self.config
        made = sinusoids(config.sinusoids, position_ids, config.hidden_size, dtype)
        if not config.positions_from_padding:
            return made
        real: Tensor = position_ids != (config.pad_token_id or 0)
        return made * real[..., None]

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None,
        position_ids: Tensor,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """(B, T), (B, T), (1 or B, T), word embeddings (B, T, E') or None -> (B, T, E)"""
        hidden = self.word_emb(input_ids) if inputs_embeds is None else inputs_embeds
        if self.config.projection == "words":
            hidden = self.projection(hidden)
        if self.tok_type_emb is not None:
            types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            hidden = hidden + self.tok_type_emb(types)
        if self.pos_emb is not None:
            hidden = hidden + self.pos_emb(position_ids + self.config.position_offset)
        if self.config.sinusoids != "none":
            hidden = hidden + self.waves(position_ids, hidden.dtype)
        if self.config.projection == "before_norm":
            hidden = self.projection(hidden)
        hidden = self.dropout(self.layer_norm(hidden))
        return self.projection(hidden) if self.config.projection == "after_dropout" else hidden


def word_embedding(config: EmbedderConfig, padding: int | None) -> Embedding:
    rows, size, scale = config.vocab_size, config.embedding_size, config.embedding_scale
    if scale is None:
        return Embedding(rows, size, padding_idx=padding)
    return ScaledEmbedding(rows, size, padding, scale=scale, rounded=config.rounded_scale)
