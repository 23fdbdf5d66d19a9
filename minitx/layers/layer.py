"""The transformer layer: attention, then feed-forward, each with a residual connection."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from minitx.config import ExpertsConfig, LayerConfig
from minitx.layers.attention import AttentionContext, CrossAttention, SelfAttention
from minitx.layers.cache import CrossAttentionCache, LayerCache
from minitx.layers.experts import MixtureOfExperts
from minitx.layers.feed_forward import GatedIntermediate, Intermediate
from minitx.layers.norm import Slot, dropout, identity, norm


class Output(nn.Module):
    """The end of a branch: project to hidden_size, normalise, drop out, scale, add the residual, normalise.

    Args:
        config: of the layer.
        size: width of the branch; None: hidden_size already, so there is no projection.
        hidden_size: E.
        bias: of the projection.
        drop: probability of the dropout; None: no dropout module.
    """

    def __init__(
        self, config: LayerConfig, size: int | None, hidden_size: int, *, bias: bool, drop: float | None
    ) -> None:
        super().__init__()
        after_branch = config.norm_placement in ("sandwich", "branch")
        self.dense: Slot = identity if size is None else nn.Linear(size, hidden_size, bias=bias)
        self.branch_norm = norm(config.norm, hidden_size) if after_branch else None
        self.layer_norm = norm(config.norm if config.norm_placement == "post" else None, hidden_size)
        self.dropout, self.branch_scale = dropout(drop), config.branch_scale

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """(B, T, size), (B, T, E) -> (B, T, E)"""
        hidden = self.dense(hidden)
        hidden = hidden if self.branch_norm is None else self.branch_norm(hidden)
        return self.layer_norm(torch.add(residual, self.dropout(hidden), alpha=self.branch_scale))


def attention_output(config: LayerConfig, hidden_size: int) -> Output:
    """Returns the end of an attention branch."""
    attention = config.attention
    width = attention.num_attention_heads * attention.head_dim
    return Output(config, width, hidden_size, bias=attention.output_bias, drop=attention.output_dropout)


class SelfAttentionBranch(nn.Module):
    """Self-attention, its output projection and residual connection."""

    def __init__(self, config: LayerConfig, hidden_size: int, self_attention: nn.Module) -> None:
        super().__init__()
        self.self_attention = self_attention
        self.self_output = attention_output(config, hidden_size)

    def forward(
        self, hidden: Tensor, residual: Tensor, context: AttentionContext, cache: LayerCache | None = None
    ) -> Tensor:
        """(B, T, E), (B, T, E) -> (B, T, E)"""
        output: Tensor = self.self_output(self.self_attention(hidden, context, cache), residual)
        return output


class CrossAttentionBranch(nn.Module):
    """Cross-attention to the encoder output, its output projection and residual connection."""

    def __init__(self, config: LayerConfig, hidden_size: int, index: int) -> None:
        super().__init__()
        self.cross_attention = CrossAttention(config.attention, hidden_size, config.norm, index)
        self.cross_output = attention_output(config, hidden_size)

    def forward(
        self,
        hidden: Tensor,
        residual: Tensor,
        context: AttentionContext,
        cache: CrossAttentionCache | None = None,
    ) -> Tensor:
        """(B, T, E), (B, T, E) -> (B, T, E)"""
        output: Tensor = self.cross_output(self.cross_attention(hidden, context, cache), residual)
        return output


class Choice(Protocol):
    """Chooses between a normalised tensor and the one before the norm."""

    def __call__(self, normed: Tensor, hidden: Tensor) -> Tensor: ...


def after_norm(normed: Tensor, hidden: Tensor) -> Tensor:
    """Returns the normalised tensor: twice (B, T, E) -> (B, T, E)."""
    return normed


def before_norm(normed: Tensor, hidden: Tensor) -> Tensor:
    """Returns the tensor before the norm: twice (B, T, E) -> (B, T, E)."""
    return hidden


class Layer(nn.Module):
    """One layer, in one of these arrangements:

        post (arXiv:1706.03762)    pre (arXiv:2002.04745)    sandwich (arXiv:2105.13290)

           x ──────────┐              x ──────────┐              x ──────────┐
           │           │        attention_norm    │        attention_norm    │
       attention       │          attention       │          attention       │
           │           │              │           │         branch_norm      │
           +───────────┘              +───────────┘              +───────────┘
       layer_norm                     │                          │
           │───────────┐              │───────────┐              │───────────┐
           │           │      feed_forward_norm   │      feed_forward_norm   │
      intermediate     │         intermediate     │         intermediate     │
         output        │            output        │            output        │
           │           │              │           │         branch_norm      │
           +───────────┘              +───────────┘              +───────────┘
       layer_norm                     │                          │

    "branch" is the sandwich without its first norms (arXiv:2501.00656, section 3.3). With
    `residual_after_norm` the line on the right starts after the norm. A norm that an arrangement does not
    have is an empty slot.

    The layer of a decoder with an encoder has a third branch between the two, arranged like them:
    cross-attention (arXiv:1706.03762, section 3.1), with its `cross_attention_norm`.

    Args:
        config: of the layer.
        hidden_size: E.
        index: number of the layer, from 0.
        attention_norm: False: no norm before the attention, whatever the arrangement.
        self_attention: its attention; None: `SelfAttention`.
    """

    intermediate: nn.Module

    def __init__(
        self,
        config: LayerConfig,
        hidden_size: int,
        index: int = 0,
        *,
        attention_norm: bool = True,
        self_attention: nn.Module | None = None,
    ) -> None:
        super().__init__()
        first = config.norm if config.norm_placement in ("pre", "sandwich") else None
        self.attention_norm = norm(first if attention_norm else None, hidden_size)
        attention = self_attention or SelfAttention(config.attention, hidden_size, config.norm, index)
        self.attention = SelfAttentionBranch(config, hidden_size, attention)
        if config.cross_attention:
            self.cross_attention_norm = norm(first, hidden_size)
            self.cross_attention = CrossAttentionBranch(config, hidden_size, index)
        self.feed_forward_norm = norm(first if config.parallel != "one_norm" else None, hidden_size)
        network, size, drop = config.feed_forward, None, None
        if isinstance(network, ExpertsConfig):
            self.intermediate = MixtureOfExperts(network, hidden_size)
        else:
            size, drop = network.intermediate_size, network.output_dropout
            self.intermediate = (GatedIntermediate if network.gated else Intermediate)(network, hidden_size)
        self.output = Output(config, size, hidden_size, bias=network.bias, drop=drop)
        self.residual: Choice = after_norm if config.residual_after_norm else before_norm

    def extra_repr(self) -> str:
        """Returns the number of parameters, for the printout."""
        return f"{sum(parameter.numel() for parameter in self.parameters()):,} parameters"

    def forward(
        self,
        hidden: Tensor,
        context: AttentionContext,
        cache: LayerCache | None = None,
        cross_context: AttentionContext | None = None,
        cross_cache: CrossAttentionCache | None = None,
    ) -> Tensor:
        """(B, T, E) -> (B, T, E)"""
        normed = self.attention_norm(hidden)
        hidden = self.attention(normed, self.residual(normed, hidden), context, cache)
        if cross_context is not None:
            normed = self.cross_attention_norm(hidden)
            hidden = self.cross_attention(normed, hidden, cross_context, cross_cache)
        normed = self.feed_forward_norm(hidden)
        output: Tensor = self.output(self.intermediate(normed), self.residual(normed, hidden))
        return output


class PostNormLayer(Layer):
    """A layer without norms before its branches: the arrangements "post" and "branch"."""

    def forward(
        self,
        hidden: Tensor,
        context: AttentionContext,
        cache: LayerCache | None = None,
        cross_context: AttentionContext | None = None,
        cross_cache: CrossAttentionCache | None = None,
    ) -> Tensor:
        """(B, T, E) -> (B, T, E)"""
        hidden = self.attention(hidden, hidden, context, cache)
        if cross_context is not None:
            hidden = self.cross_attention(hidden, hidden, cross_context, cross_cache)
        output: Tensor = self.output(self.intermediate(hidden), hidden)
        return output


class ParallelLayer(Layer):
    """A layer whose branches both start from its input: x + attention(norm(x)) + feed_forward(norm(x)).

    With "one_norm" both share `attention_norm`; with "two_norms" each has its own.
    """

    def __init__(self, config: LayerConfig, *args: Any, **options: Any) -> None:
        super().__init__(config, *args, **options)
        self.source: Choice = after_norm if config.parallel == "one_norm" else before_norm

    def forward(
        self,
        hidden: Tensor,
        context: AttentionContext,
        cache: LayerCache | None = None,
        cross_context: AttentionContext | None = None,
        cross_cache: CrossAttentionCache | None = None,
    ) -> Tensor:
        """(B, T, E) -> (B, T, E)"""
        normed = self.attention_norm(hidden)
        attended = self.attention(normed, self.residual(normed, hidden), context, cache)
        normed = self.feed_forward_norm(self.source(normed, hidden))
        output: Tensor = self.output(self.intermediate(normed), self.residual(normed, attended))
        return output


def make_layer(config: LayerConfig, *args: Any, **options: Any) -> Layer:
    """Returns a layer of the class that suits its config; the arguments are those of `Layer`."""
    serial = PostNormLayer if config.norm_placement in ("post", "branch") else Layer
    return (serial if config.parallel == "none" else ParallelLayer)(config, *args, **options)
