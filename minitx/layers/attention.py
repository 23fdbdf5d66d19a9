"""Multi-head self-attention and cross-attention; their output projection is `Output` in layer.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minitx.config import AttentionConfig, NormConfig
from minitx.layers.attention_kernels import Backend, ScoreOptions, attention_weights, sdpa
from minitx.layers.cache import CrossAttentionCache, LayerCache
from minitx.layers.norm import Slot, norm
from minitx.layers.rotary import RotaryTables, apply_rotary_pos_emb


@dataclass(frozen=True)
class AttentionContext:
    """Inputs of attention that all layers of one kind share during a forward; built once by the stack.

    Attributes:
        mask: (B or 1, H or 1, T or 1, S); bool (True = attend) or added to the scores; None: attend to all.
        causal: no query attends to a later key, and T = S; instead of a mask. Kernels then skip half the
            work.
        rotary: cos and sin for queries and keys; None: no RoPE.
        past: number of tokens in the cache.
        memory: (B, S, E), encoder hidden states for cross-attention; None: its keys and values are cached.
        watch: called with the attention weights before dropout, (B, H, T, S); None: they are not computed.
    """

    mask: Tensor | None = None
    causal: bool = False
    rotary: RotaryTables | None = None
    past: int = 0
    memory: Tensor | None = None
    watch: Callable[[Tensor], None] | None = None


def active_probability(dropout: nn.Module) -> float:
    """Returns the probability of a dropout module in training, else 0; fused kernels take it as a number."""
    return float(getattr(dropout, "p", 0.0)) if dropout.training else 0.0


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself.

    Args:
        config: of the attention.
        hidden_size: E.
        qk_norm: norm of queries and keys, if `config.qk_norm` asks for one.
        index: number of the layer, from 0.
    """

    def __init__(
        self, config: AttentionConfig, hidden_size: int, qk_norm: NormConfig, index: int = 0
    ) -> None:
        super().__init__()
        heads, self.head_dim = config.num_attention_heads, config.head_dim
        shared_heads = config.num_key_value_heads or heads
        width, shared, self.groups = (
            heads * self.head_dim,
            shared_heads * self.head_dim,
            heads // shared_heads,
        )
        self.Q = nn.Linear(hidden_size, width, bias=config.bias)
        self.K = nn.Linear(hidden_size, shared, bias=config.bias)
        self.V = nn.Linear(hidden_size, shared, bias=config.bias)
        normed, self.norm_per_head = config.qk_norm != "none", config.qk_norm == "head"
        self.q_norm = norm(qk_norm, self.head_dim if self.norm_per_head else width) if normed else None
        self.k_norm = norm(qk_norm, self.head_dim if self.norm_per_head else shared) if normed else None
        self.sinks = nn.Parameter(torch.empty(heads)) if config.sinks else None
        self.dropout = nn.Dropout(config.dropout)
        scale = config.head_dim**-0.5 if config.scale is None else config.scale
        self.scale = scale / (index + 1 if config.scale_by_layer else 1)
        self.softcap = config.softcap
        self.backend: Backend = sdpa

    def heads(self, x: Tensor, norm: Slot | None = None) -> Tensor:
        """Split into heads, and normalise queries and keys: (B, T, heads * D) -> (B, heads, T, D)."""
        if norm is not None and not self.norm_per_head:
            x = norm(x)
        x = x.view(*x.shape[:-1], x.shape[-1] // self.head_dim, self.head_dim)
        if norm is not None and self.norm_per_head:
            x = norm(x)
        return x.transpose(1, 2)

    def forward(self, hidden: Tensor, context: AttentionContext, cache: LayerCache | None = None) -> Tensor:
        """(B, T, E) -> (B, T, H * D)"""
        query = self.heads(self.Q(hidden), self.q_norm)  # (B, H, T, D)
        key = self.heads(self.K(hidden), self.k_norm)  # (B, K, T, D)
        value = self.heads(self.V(hidden))
        if context.rotary is not None:
            query = apply_rotary_pos_emb(query, context.rotary)
            key = apply_rotary_pos_emb(key, context.rotary)
        if cache is not None:
            key, value = cache.append(key, value, context.past)  # (B, K, S, D)
        return self.attend(query, key, value, context).transpose(1, 2).flatten(2)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, context: AttentionContext) -> Tensor:
        """(B, H, T, D), twice (B, K, S, D) -> (B, H, T, D)"""
        dropout = active_probability(self.dropout)
        options = ScoreOptions(self.scale, context.causal, self.groups, self.softcap, self.sinks, dropout)
        if context.watch is not None:
            context.watch(attention_weights(query, key, context.mask, options))
        return self.backend(query, key, value, context.mask, options)


class CrossAttention(SelfAttention):
    """Multi-head attention to the encoder output: keys and values are projected from it, or cached."""

    def forward(
        self,
        hidden: Tensor,
        context: AttentionContext,
        cache: CrossAttentionCache | None = None,  # type: ignore[override]
    ) -> Tensor:
        """(B, T, E) -> (B, T, H * D)"""
        query = self.heads(self.Q(hidden), self.q_norm)  # (B, H, T, D)
        if context.memory is not None:
            key, value = self.keys_and_values(context.memory)
        else:
            assert cache is not None, "without encoder hidden states, their keys and values are cached"
            key, value = cache.recall()
        # Rows of one source, such as its beams, become queries of one row: its keys are not copied per beam,
        # and are loaded once for all of them.
        sources = len(key)
        query = query.view(sources, -1, *query.shape[1:]).transpose(1, 2).flatten(2, 3)
        mixed = self.attend(query, key, value, context)
        return mixed.transpose(1, 2).reshape(*hidden.shape[:2], -1)

    def keys_and_values(self, encoder_hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """(B', S, E) -> (B', K, S, D) twice"""
        key = self.heads(self.K(encoder_hidden_states), self.k_norm)
        return key, self.heads(self.V(encoder_hidden_states))
