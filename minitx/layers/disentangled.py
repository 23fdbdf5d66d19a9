"""Disentangled attention to content and relative positions (arXiv:2006.03654), and its stack.

Differs from attention.py and stack.py: scores are the sum of content-to-content, content-to-position and
position-to-content (equation 4), with relative positions only, in buckets that widen with distance. The layer
around the attention is the shared one. A convolution may stand beside the first layer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from minitx.config import AttentionConfig, Disentangled, NormConfig, StackConfig
from minitx.layers.activation import Activation
from minitx.layers.attention import (
    AttentionContext,
    Backend,
    ScoreOptions,
    attention_weights,
    sdpa,
)
from minitx.layers.embedding import Embedding
from minitx.layers.layer import Layer
from minitx.layers.masks import to_additive_mask
from minitx.layers.norm import norm
from minitx.layers.recorder import Recorder
from minitx.layers.unpadded import Runs, UnpaddedContext


def log_bucket(distance: Tensor, buckets: int, most: int) -> Tensor:
    """Returns distances up to buckets / 2 unchanged, larger ones on a logarithmic scale up to `most`.

    (T, T) -> (T, T)
    """
    middle = buckets // 2
    near = distance.abs() <= middle
    size = distance.abs().clamp(min=middle).float()
    # float32 throughout, in this order: at a bucket's edge the rounding decides, as in training
    largest = torch.tensor((most - 1) / middle, dtype=torch.float32)
    steps = torch.log(size / middle) / torch.log(largest) * (middle - 1)
    return torch.where(near, distance, (torch.ceil(steps).long() + middle) * distance.sign())


class PositionHeads(NamedTuple):
    """Relative positions as keys and as queries, each (H, 2 * span, D), or None without scores of them."""

    key: Tensor | None
    query: Tensor | None


@dataclass(frozen=True)
class RelativeContext(AttentionContext):
    """Adds the inputs of the position scores.

    Attributes:
        embeddings: (2 * span, E), of the relative positions; None: there are no position scores.
        bucket: (T, T), relative position of each pair.
        projected: the embeddings as keys and queries; None: each attention projects them.
    """

    embeddings: Tensor | None = None
    bucket: Tensor | None = None
    projected: PositionHeads | None = None

    def attend(self, attention: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(B, H, T, D), twice (B, H, S, D) -> (B, H, T, D)"""
        if self.embeddings is None or self.bucket is None:
            return super().attend(attention, query, key, value)
        projected = self.projected or attention.project_positions(self.embeddings)
        scores = attention.position_scores(query, key, projected, self.bucket)
        context = replace(self, mask=to_additive_mask(self.mask, scores))
        mixed: Tensor = attention.attend(query, key, value, context)
        return mixed


@dataclass(frozen=True)
class UnpaddedRelativeContext(UnpaddedContext):
    """Several sequences in one row, for which an attention projects the relative positions once."""

    def attend(self, attention: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(1, H, N, D), twice (1, H, N, D) -> (1, H, N, D)"""
        contexts: list[Any] = [context for _, context in self.parts]
        if contexts[0].embeddings is None:
            return super().attend(attention, query, key, value)
        projected = attention.project_positions(contexts[0].embeddings)
        runs = (run for run, _ in self.parts)
        parts = zip(runs, (replace(context, projected=projected) for context in contexts), strict=True)
        return UnpaddedContext(parts=tuple(parts)).attend(attention, query, key, value)


class DisentangledSelfAttention(nn.Module):
    """Self-attention whose score bias is computed from queries, keys and relative positions."""

    def __init__(self, config: AttentionConfig, positions: Disentangled, hidden_size: int) -> None:
        super().__init__()
        self.config, self.positions = config, positions
        width = config.num_attention_heads * config.head_dim
        self.Q = nn.Linear(hidden_size, width)
        self.K = nn.Linear(hidden_size, width)
        self.V = nn.Linear(hidden_size, width)
        separate = positions.relative_attention and not positions.share_att_key
        c2p, p2c = ("c2p" in positions.pos_att_type, "p2c" in positions.pos_att_type)
        self.pos_K = nn.Linear(hidden_size, width) if separate and c2p else None
        self.pos_Q = nn.Linear(hidden_size, width) if separate and p2c else None
        self.dropout = nn.Dropout(config.dropout)
        self.pos_dropout = nn.Dropout(positions.dropout)
        # One share for content, one for each kind of position score; the root is float32, as in training.
        shares = torch.tensor(config.head_dim * (1 + c2p + p2c), dtype=torch.float32, device="cpu")
        self.scale = 1 / shares.sqrt().item()
        self.backend: Backend = sdpa

    def extra_repr(self) -> str:
        """Returns the heads, for the printout."""
        return f"{self.config.num_attention_heads} heads of {self.config.head_dim} features"

    def heads(self, x: Tensor) -> Tensor:
        """(..., T, H * D) -> (..., H, T, D)"""
        return x.view(*x.shape[:-1], self.config.num_attention_heads, self.config.head_dim).transpose(-3, -2)

    def forward(self, hidden: Tensor, context: AttentionContext, cache: None = None) -> Tensor:
        """(B, T, E) -> (B, T, H * D)"""
        query, key, value = self.project(hidden, context)
        return context.attend(self, query, key, value).transpose(1, 2).flatten(2)

    def project(self, hidden: Tensor, context: AttentionContext) -> tuple[Tensor, Tensor, Tensor]:
        """Returns queries, keys and values: (B, T, E) -> (B, H, T, D) three times."""
        return self.heads(self.Q(hidden)), self.heads(self.K(hidden)), self.heads(self.V(hidden))

    def options(self, context: AttentionContext) -> ScoreOptions:
        """Returns the options of the scores for one forward."""
        dropout = getattr(self.dropout, "p", 0.0) if self.dropout.training else 0.0
        return ScoreOptions(self.scale, dropout=dropout)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, context: AttentionContext) -> Tensor:
        """(B, H, T, D), twice (B, H, S, D) -> (B, H, T, D)"""
        options = self.options(context)
        if context.watch is not None:
            context.watch(attention_weights(query, key, context.mask, options))
        return self.backend(query, key, value, context.mask, options)

    def project_positions(self, embeddings: Tensor) -> PositionHeads:
        """Returns the relative positions as keys and queries, those of which there are scores.

        Args:
            embeddings: (2 * span, E)
        """
        embeddings, kinds = self.pos_dropout(embeddings), self.positions.pos_att_type
        key = self.heads((self.pos_K or self.K)(embeddings)) if "c2p" in kinds else None
        query = self.heads((self.pos_Q or self.Q)(embeddings)) if "p2c" in kinds else None
        return PositionHeads(key, query)

    def position_scores(self, query: Tensor, key: Tensor, positions: PositionHeads, bucket: Tensor) -> Tensor:
        """Returns the scores of relative positions.

        Args:
            query: (B, H, T, D)
            key: (B, H, T, D)
            positions: as keys and queries, each (H, 2 * span, D) or None.
            bucket: (T, T)

        Returns:
            (B, H, T, T)
        """
        span = self.positions.span
        total = query.new_zeros(())
        if positions.key is not None:
            index = (bucket + span).clamp(0, 2 * span - 1)
            scores = query @ positions.key.transpose(-1, -2)  # (B, H, T, 2 * span)
            total = total + scores.gather(-1, index.expand(*scores.shape[:2], -1, -1)) * self.scale
        if positions.query is not None:
            index = (span - bucket).clamp(0, 2 * span - 1)
            scores = key @ positions.query.transpose(-1, -2)
            by_key = scores.gather(-1, index.expand(*scores.shape[:2], -1, -1))
            total = total + by_key.transpose(-1, -2) * self.scale
        return total


class Convolution(nn.Module):
    """A convolution of the embeddings, added to the output of the first layer."""

    def __init__(self, positions: Disentangled, hidden_size: int, norm_config: NormConfig) -> None:
        super().__init__()
        kernel, groups = positions.conv_kernel_size, positions.conv_groups
        self.conv = nn.Conv1d(hidden_size, hidden_size, kernel, padding=(kernel - 1) // 2, groups=groups)
        self.dropout = nn.Dropout(positions.dropout)
        self.activation = Activation(positions.conv_act)
        self.layer_norm = norm(norm_config, hidden_size)

    def forward(self, embedded: Tensor, first: Tensor, real: Tensor) -> Tensor:
        """(B, T, E), (B, T, E), 1 at real tokens (B, T, 1) -> (B, T, E)"""
        mixed = self.conv(embedded.transpose(1, 2)).transpose(1, 2)
        mixed = self.activation(self.dropout(mixed * real))
        return self.layer_norm(first + mixed) * real


class DisentangledStack(nn.Module):
    """Layers with disentangled attention, which share one table of relative positions."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        positions, layer, size = config.positions, config.layer, config.hidden_size
        assert isinstance(positions, Disentangled), "StackConfig.positions chooses this stack"
        self.positions, self.hidden_size = positions, size
        self.layers = nn.ModuleList(
            Layer(
                layer,
                size,
                index,
                self_attention=DisentangledSelfAttention(layer.attention, positions, size),
            )
            for index in range(config.num_hidden_layers)
        )
        relative = positions.relative_attention
        self.relative_emb = Embedding(2 * positions.span, size) if relative else None
        self.relative_norm = norm(layer.norm if positions.norm_rel_ebd else None, size)
        self.convolution = Convolution(positions, size, layer.norm) if positions.conv_kernel_size else None

    def extra_repr(self) -> str:
        """Returns the sizes, for the printout."""
        return f"{len(self.layers)} layers of width {self.hidden_size}, Disentangled"

    def forward(
        self,
        hidden: Tensor,
        mask: Tensor | Runs | None,
        position_ids: Tensor,
        *,
        record: Recorder | None = None,
    ) -> Tensor:
        """Runs the layers.

        Args:
            hidden: (B, T, E)
            mask: (B, T) or (B, T, T); or the lengths of several sequences in one row; or None.
            position_ids: (1 or B, T)
            record: collects hidden states and attention weights; None: nothing is collected.

        Returns:
            (B, T, E)
        """
        if record is not None:
            record.begin(len(self.layers))
        real = hidden.new_ones(*hidden.shape[:2], 1)  # (B, T, 1)
        if isinstance(mask, Tensor):
            attended = mask if mask.dim() == 2 else mask.any(dim=1)
            real = attended[..., None].to(hidden.dtype)
        hidden = embedded = hidden * real
        shared = self.context(mask, hidden)
        for index, layer in enumerate(self.layers):
            context = shared if record is None else record.enter(index, hidden, shared)[0]
            hidden = layer(hidden, context)
            if index == 0 and self.convolution is not None:
                hidden = self.convolution(embedded, hidden, real)
        if record is not None:
            record.leave(hidden)
        return hidden

    def context(self, mask: Tensor | Runs | None, hidden: Tensor) -> AttentionContext:
        """Returns mask and relative positions for all layers.

        Args:
            mask: (B, T) or (B, T, T), or the lengths of several sequences in one row, or None.
            hidden: (B, T, E)
        """
        if isinstance(mask, Runs):
            parts = mask.parts(lambda length: self.context(None, hidden[:, :length]))
            return UnpaddedRelativeContext(parts=parts)
        attend, positions = mask, self.positions
        if mask is not None and mask.dim() == 2:
            # Padding is masked as a query too, and then attends to all tokens equally.
            attend = mask[:, :, None] & mask[:, None, :]
        if attend is not None:
            attend = attend[:, None]  # (B, 1, T, S)
        if self.relative_emb is None or not positions.pos_att_type:
            return RelativeContext(None if attend is None else to_additive_mask(attend, hidden.new_zeros(())))
        position = torch.arange(hidden.shape[1], device=hidden.device)
        distance = position[:, None] - position[None, :]  # (T, T), query minus key
        if positions.position_buckets:
            distance = log_bucket(distance, positions.position_buckets, positions.max_relative_positions)
        embeddings = self.relative_norm(self.relative_emb.weight)
        return RelativeContext(attend, embeddings=embeddings, bucket=distance)
