"""Scaled dot-product attention (arXiv:1706.03762, equation 1): softmax(Q K^T / sqrt(D)) V."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minitx.config import StackConfig
from minitx.layers.cache import CrossAttentionCache, LayerCache
from minitx.layers.linear import Linear
from minitx.layers.norm import Slot, norm
from minitx.layers.rotary import Rotary, rotate, rotate_every_two, rotate_half
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_choice


@dataclass(frozen=True)
class AttentionContext:
    """What every layer of one kind shares during a forward; built once by the stack.

    Attributes:
        mask: (B or 1, H or 1, T or 1, S); bool (True = attend) or added to the scores; None = all.
        causal: instead of a mask: no query sees a key behind it, and T = S. Kernels then skip half the work.
        rotary: tables that turn queries and keys, or None.
        past: how many positions are in the cache already.
        memory: (B, S, E), what an encoder made of another text, whose keys and values are attended to; None:
            those of the text itself, or of what the cache remembers.
        watch: called with the attention weights before dropout, (B, H, T, S); None: they are not computed.
    """

    mask: Tensor | None = None
    causal: bool = False
    rotary: Rotary | None = None
    past: int = 0
    memory: Tensor | None = None
    watch: Callable[[Tensor], None] | None = None


class Backend(Protocol):
    """(B, H, T, D), twice (B, K, S, D) with K key/value heads that divide H -> (B, H, T, D)."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scale: float,
        dropout: float,
        *,
        causal: bool = False,
        groups: int = 1,
        softcap: float | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor: ...


def eager(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float,
    dropout: float,
    *,
    causal: bool = False,
    groups: int = 1,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """The equation, step by step."""
    if groups > 1:
        value = value.repeat_interleave(groups, dim=1)
    weights = attention_weights(
        query, key, mask, scale, causal=causal, groups=groups, softcap=softcap, sinks=sinks
    )
    weights = F.dropout(weights, p=dropout, training=dropout > 0.0)
    return weights @ value


def attention_weights(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    scale: float,
    *,
    causal: bool = False,
    groups: int = 1,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """(B, H, T, D), (B, K, S, D) -> (B, H, T, S): how much of each key's value a query gets."""
    if groups > 1:
        key = key.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(-2, -1) * scale  # (B, H, T, S)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    if sinks is not None:
        scores = torch.cat((scores, sinks.view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)), dim=-1)
    # In half precision a softmax over many keys loses digits; the weights are made in float32.
    wide = torch.promote_types(scores.dtype, torch.float32)
    weights = torch.softmax(scores, dim=-1, dtype=wide).to(scores.dtype)
    return weights if sinks is None else weights[..., :-1]


def sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float,
    dropout: float,
    *,
    causal: bool = False,
    groups: int = 1,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """The same through PyTorch's fused kernels, which never hold the (T, S) weights.

    They know neither caps nor sinks: scores that have them are computed step by step.
    """
    if softcap is not None or sinks is not None:
        return eager(
            query,
            key,
            value,
            mask,
            scale,
            dropout,
            causal=causal,
            groups=groups,
            softcap=softcap,
            sinks=sinks,
        )
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=causal,
        scale=scale,
        enable_gqa=groups > 1,
    )


BACKENDS: dict[str, Backend] = {"eager": eager, "sdpa": sdpa}
_BUILT_IN = frozenset(BACKENDS)


def register_attention(name: str, function: Backend) -> None:
    """Make a custom attention known under a name, for `model.set_attention` and `minitx.load(attention=)`.

    Args:
        name: not the name of a built-in attention.
        function: with the signature of `Backend`.

    Raises:
        ArgumentTypeError: not a name, or not callable.
        ArgumentValueError: the name of a built-in attention.
    """
    if not isinstance(name, str) or not name:
        raise ArgumentTypeError("name", name, "a non-empty string")
    if not callable(function):
        raise ArgumentTypeError("function", function, "callable")
    if name in _BUILT_IN:
        raise ArgumentValueError("name", name, "a new name", f"minitx has {', '.join(sorted(_BUILT_IN))}")
    BACKENDS[name] = function


def backend_of(attention: str | Backend) -> Backend:
    """Returns the function of a name of `BACKENDS`, or the function itself.

    Raises:
        ArgumentTypeError: neither a name nor a function.
        ArgumentValueError: an unknown name.
    """
    if isinstance(attention, str):
        return BACKENDS[
            check_choice("attention", attention, BACKENDS, "minitx.register_attention adds a custom one")
        ]
    if not callable(attention):
        raise ArgumentTypeError("attention", attention, f"a function or one of {', '.join(BACKENDS)}")
    return attention


def active_probability(dropout: nn.Module) -> float:
    """What the fused kernels need instead of a call: the probability in training, else 0."""
    return float(getattr(dropout, "p", 0.0)) if dropout.training else 0.0


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself, without the output projection."""

    def __init__(self, config: StackConfig, index: int = 0) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        width = config.num_attention_heads * config.head_dim
        # each key/value head serves a group of query heads (arXiv:2305.13245)
        self.groups = config.num_attention_heads // (config.num_key_value_heads or config.num_attention_heads)
        shared = width // self.groups
        self.Q = Linear(config.hidden_size, width, bias=config.attention_bias)
        self.K = Linear(config.hidden_size, shared, bias=config.attention_bias)
        self.V = Linear(config.hidden_size, shared, bias=config.attention_bias)
        per_head = config.qk_norm == "head"
        self.q_norm = norm(config, config.head_dim if per_head else width, when=config.qk_norm != "none")
        self.k_norm = norm(config, config.head_dim if per_head else shared, when=config.qk_norm != "none")
        self.norms_heads = per_head
        self.sinks = nn.Parameter(torch.empty(config.num_attention_heads)) if config.attention_sinks else None
        self.dropout = nn.Dropout(config.attention_dropout)
        self.scale = config.head_dim**-0.5 if config.attention_scale is None else config.attention_scale
        if config.scale_by_layer:
            self.scale /= index + 1
        self.softcap = config.attention_softcap
        interleaved = any(rope.interleaved for rope in (config.rope or {}).values())
        self.rotate_pairs = rotate_every_two if interleaved else rotate_half
        self.backend: Backend = sdpa

    def heads(self, x: Tensor, norm: Slot) -> Tensor:
        """(B, T, heads * D) -> (B, heads, T, D), normed"""
        if self.norms_heads:
            return norm(self.split(x)).transpose(1, 2)
        return self.split(norm(x)).transpose(1, 2)

    def split(self, x: Tensor) -> Tensor:
        """(B, T, heads * D) -> (B, T, heads, D)"""
        return x.view(*x.shape[:-1], x.shape[-1] // self.head_dim, self.head_dim)

    def forward(self, hidden: Tensor, context: AttentionContext, cache: LayerCache | None = None) -> Tensor:
        """(B, T, E) -> (B, T, H * D)"""
        query = self.heads(self.Q(hidden), self.q_norm)  # (B, H, T, D)
        key = self.heads(self.K(hidden), self.k_norm)  # (B, K, T, D)
        value = self.split(self.V(hidden)).transpose(1, 2)
        if context.rotary is not None:
            query = rotate(query, context.rotary, self.rotate_pairs)
            key = rotate(key, context.rotary, self.rotate_pairs)
        if cache is not None:
            key, value = cache.append(key, value, context.past)  # (B, K, S, D)
        return self.attend(query, key, value, context).transpose(1, 2).flatten(2)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, context: AttentionContext) -> Tensor:
        """(B, H, T, D), twice (B, K, S, D) -> (B, H, T, D)"""
        if context.watch is not None:
            context.watch(
                attention_weights(
                    query,
                    key,
                    context.mask,
                    self.scale,
                    causal=context.causal,
                    groups=self.groups,
                    softcap=self.softcap,
                    sinks=self.sinks,
                )
            )
        return self.backend(
            query,
            key,
            value,
            context.mask,
            self.scale,
            active_probability(self.dropout),
            causal=context.causal,
            groups=self.groups,
            softcap=self.softcap,
            sinks=self.sinks,
        )


class CrossAttention(SelfAttention):
    """The same with keys and values of another text, the memory."""

    def forward(self, hidden: Tensor, context: AttentionContext, cache: LayerCache | None = None) -> Tensor:
        """(B, T, E) -> (B, T, H * D)"""
        query = self.heads(self.Q(hidden), self.q_norm)  # (B, H, T, D)
        if context.memory is not None:
            key, value = self.keys_and_values(context.memory)
        else:
            assert isinstance(cache, CrossAttentionCache)
            key, value = cache.recall()
        # Rows that look at one text, as its beams and samples do, become queries of one row: so its keys
        # need no copy for each of them, and are read once for all.
        texts = len(key)
        query = query.view(texts, -1, *query.shape[1:]).transpose(1, 2).flatten(2, 3)
        mixed = self.attend(query, key, value, context)
        return mixed.transpose(1, 2).reshape(*hidden.shape[:2], -1)

    def keys_and_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(B', S, E) -> twice (B', K, S, D)"""
        key = self.heads(self.K(memory), self.k_norm)
        return key, self.split(self.V(memory)).transpose(1, 2)
