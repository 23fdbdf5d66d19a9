"""Token ids to vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from minitx.config import EmbedderConfig
from minitx.layers.checks import batch_and_time, fit_positions, same_shape, within
from minitx.layers.embedding import Embedding
from minitx.layers.linear import Linear
from minitx.layers.norm import Slot, dropout, identity, layer_norm
from minitx.layers.position import position_ids_from_mask, position_ids_from_padding


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
        self.word_emb = Embedding(config.vocab_size, size, padding_idx=padding)
        self.word_emb.scale = config.embedding_scale
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
            return position_ids_from_padding(input_ids, self.config.pad_token_id)
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
    ) -> Tensor:
        """Refuses what the tables could only answer with an index error, or a dead GPU.

        Returns:
            (1 or B, T): the positions; the architecture's own numbering where none are given.

        Raises:
            TypeError: no tensor.
            ValueError: no tokens, a wrong shape or type, an id outside its table.
        """
        shape = batch_and_time(input_ids)
        within("input_ids", input_ids, self.config.vocab_size, "is the tokenizer another model's?")
        if token_type_ids is not None:
            same_shape("token_type_ids", token_type_ids, shape)
            if self.tok_type_emb is not None:
                within(
                    "token_type_ids", token_type_ids, self.config.type_vocab_size, "segments count from 0."
                )
        given, length = position_ids is not None, past + shape[1]
        too_long = f"the text has {length} tokens; truncate it or split it."
        if position_ids is None:
            position_ids = self.position_ids(input_ids, past, mask)
        else:
            fit_positions(position_ids, shape)
        if self.pos_emb is None:
            return position_ids
        if given or (self.config.positions_from_padding and length > self.max_tokens):
            rows = self.config.max_position_embeddings - self.config.position_offset
            within("position_ids", position_ids, rows, too_long)
        elif length > self.max_tokens:
            raise ValueError(f"the model has positions for {self.max_tokens} tokens, but {too_long}")
        return position_ids

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None, position_ids: Tensor) -> Tensor:
        """(B, T), (B, T), (1 or B, T) -> (B, T, E)"""
        hidden = self.word_emb(input_ids)
        if self.config.projection == "words":
            hidden = self.projection(hidden)
        if self.tok_type_emb is not None:
            types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            hidden = hidden + self.tok_type_emb(types)
        if self.pos_emb is not None:
            hidden = hidden + self.pos_emb(position_ids + self.config.position_offset)
        if self.config.projection == "before_norm":
            hidden = self.projection(hidden)
        hidden = self.dropout(self.layer_norm(hidden))
        return self.projection(hidden) if self.config.projection == "after_dropout" else hidden
