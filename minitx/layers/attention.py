"""Scaled dot-product attention (arXiv:1706.03762, equation 1), and the modules of self- and cross-attention.

The functions compute it step by step or with fused kernels; the modules' output projection is `Output` in
layer.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minitx.config import AttentionConfig, NormConfig
from minitx.layers.cache import CrossAttentionCache, LayerCache
from minitx.layers.norm import Slot, norm
from minitx.layers.rotary import RotaryTables, apply_rotary_pos_emb
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_choice, check_tensor

# --- functions -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScoreOptions:
    """How scores become attention weights; the same for every backend.

    Attributes:
        scale: multiplies the scores.
        causal: no query attends to a later key, and T = S; instead of a mask.
        groups: number of query heads per key/value head (arXiv:2305.13245).
        softcap: caps scores by softcap * tanh(scores / softcap); None: no cap.
        sinks: (H,), a score per head that joins the softmax and has no value; None: no sinks.
        dropout: probability for the attention weights.
    """

    scale: float
    causal: bool = False
    groups: int = 1
    softcap: float | None = None
    sinks: Tensor | None = None
    dropout: float = 0.0


class Backend(Protocol):
    """Computes attention.

    Args:
        query: (B, H, T, D)
        key: (B, K, S, D)
        value: (B, K, S, D)
        mask: (1 or B, 1 or H, 1 or T, S), bool (True = attend) or added to the scores; None: attend to all.
        options: of the scores.

    Returns:
        (B, H, T, D)
    """

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: ScoreOptions
    ) -> Tensor: ...


def attention_scores(query: Tensor, key: Tensor, mask: Tensor | None, options: ScoreOptions) -> Tensor:
    """Returns the scores that the softmax takes: scaled, capped, with position bias and mask.

    Args:
        query: (B, H, T, D)
        key: (B, K, S, D)
        mask: (1 or B, 1 or H, 1 or T, S), as for `Backend`; or None.
        options: of the scores.

    Returns:
        (B, H, T, S), in float32 for float16 inputs
    """
    if options.groups > 1:
        key = key.repeat_interleave(options.groups, dim=1)
    if query.dtype == torch.float16:  # products that are scaled afterwards exceed its largest number
        query, key = query.float(), key.float()
    scores = query @ key.transpose(-2, -1) * options.scale  # (B, H, T, S)
    if options.softcap is not None:
        scores = options.softcap * torch.tanh(scores / options.softcap)
    if options.causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is None:
        return scores
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores + mask


def softmax_with_sinks(scores: Tensor, sinks: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Returns the attention weights of scores.

    Args:
        scores: (B, H, T, S)
        sinks: (H,), as in `ScoreOptions`.
        dtype: of the weights.

    Returns:
        (B, H, T, S)
    """
    if sinks is not None:
        shares = sinks.to(scores.dtype).view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat((scores, shares), dim=-1)
    # In half precision a softmax over many keys loses digits, so it is computed in float32.
    wide = torch.promote_types(scores.dtype, torch.float32)
    weights = torch.softmax(scores, dim=-1, dtype=wide).to(dtype)
    return weights if sinks is None else weights[..., :-1]


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None, options: ScoreOptions) -> Tensor:
    """Returns the attention weights before dropout.

    Args:
        query: (B, H, T, D)
        key: (B, K, S, D)
        mask: (1 or B, 1 or H, 1 or T, S), as for `Backend`; or None.
        options: of the scores.

    Returns:
        (B, H, T, S)
    """
    return softmax_with_sinks(attention_scores(query, key, mask, options), options.sinks, query.dtype)


def mix(weights: Tensor, value: Tensor, options: ScoreOptions) -> Tensor:
    """Returns the sums of the values by attention weights, after their dropout.

    (B, H, T, S), (B, K, S, D) -> (B, H, T, D)
    """
    if options.groups > 1:
        value = value.repeat_interleave(options.groups, dim=1)
    return F.dropout(weights, p=options.dropout, training=options.dropout > 0.0) @ value


def eager(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: ScoreOptions) -> Tensor:
    """Computes attention step by step, as in the equation; a `Backend`.

    (B, H, T, D), twice (B, K, S, D), mask (1 or B, 1 or H, 1 or T, S) -> (B, H, T, D)
    """
    return mix(attention_weights(query, key, mask, options), value, options)


def sdpa(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: ScoreOptions) -> Tensor:
    """Computes the same with PyTorch's fused kernels, which never hold the (T, S) weights; a `Backend`.

    The kernels support neither caps nor sinks: with those, falls back to `eager`.

    (B, H, T, D), twice (B, K, S, D), mask (1 or B, 1 or H, 1 or T, S) -> (B, H, T, D)
    """
    if options.softcap is not None or options.sinks is not None:
        return eager(query, key, value, mask, options)
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        dropout_p=options.dropout,
        is_causal=options.causal,
        scale=options.scale,
        enable_gqa=options.groups > 1,
    )


BACKENDS: dict[str, Backend] = {"eager": eager, "sdpa": sdpa}
_BUILT_IN = frozenset(BACKENDS)


def register_attention(name: str, function: Backend) -> None:
    """Makes a custom attention known under a name, for `model.set_attention` and `minitx.load(attention=)`.

    Args:
        name: not the name of a built-in attention.
        function: with the signature of `Backend`.

    Raises:
        ArgumentTypeError: not a name, or not a function of five arguments.
        ArgumentValueError: the name of a built-in attention.

    Example:
        >>> def uniform(query, key, value, mask, options):
        ...     return minitx.layers.attention.sdpa(query * 0, key, value, mask, options)
        >>> minitx.register_attention("uniform", uniform)
        >>> model = minitx.load(folder, attention="uniform")
    """
    if not isinstance(name, str) or not name:
        raise ArgumentTypeError("name", name, "a non-empty string")
    check_backend("function", function)
    if name in _BUILT_IN:
        raise ArgumentValueError("name", name, "a new name", f"minitx has {', '.join(sorted(_BUILT_IN))}")
    BACKENDS[name] = function


def backend_of(attention: str | Backend) -> Backend:
    """Returns the function under a name of `BACKENDS`, or the function; outputs of custom ones are checked.

    Raises:
        ArgumentTypeError: neither a name nor a function of five arguments.
        ArgumentValueError: an unknown name.
    """
    if isinstance(attention, str):
        hint = "minitx.register_attention adds a custom one"
        attention = BACKENDS[check_choice("attention", attention, BACKENDS, hint)]
    if attention is eager or attention is sdpa:
        return attention
    check_backend("attention", attention, f" or one of {', '.join(BACKENDS)}")
    return partial(_checked_attention, attention)


def check_backend(parameter: str, function: Any, others: str = "") -> None:
    """Checks that a function can be called with the five arguments of `Backend`.

    Args:
        parameter: name in the message.
        function: the value.
        others: other values that the parameter takes, for the message.

    Raises:
        ArgumentTypeError: not a function, or one of other arguments.
    """
    if not callable(function):
        raise ArgumentTypeError(parameter, function, f"a function{others}" if others else "callable")
    try:
        inspect.signature(function).bind(*[None] * 5)
    except TypeError:
        expected = "a function of (query, key, value, mask, options)"
        hint = "minitx.layers.attention.Backend describes them"
        raise ArgumentTypeError(parameter, function, expected, hint) from None
    except ValueError:
        pass  # a compiled function without a signature


def _checked_attention(
    function: Backend, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: ScoreOptions
) -> Tensor:
    """Runs a custom attention and checks its output.

    (B, H, T, D), twice (B, K, S, D), mask (1 or B, 1 or H, 1 or T, S) -> (B, H, T, D)

    Raises:
        ArgumentTypeError: it returns no tensor.
        ArgumentValueError: it returns a tensor of another shape or dtype than the queries have.
    """
    output = function(query, key, value, mask, options)
    name = f"the output of {getattr(function, '__name__', function)}"
    check_tensor(name, output)
    if (output.shape, output.dtype) != (query.shape, query.dtype):
        expected = f"a tensor of shape {tuple(query.shape)} and {query.dtype}, like the queries"
        raise ArgumentValueError(name, output, expected)
    return output


# --- modules ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AttentionContext:
    """Inputs of attention that all layers of one kind share during a forward; built once by the stack.

    Attributes:
        mask: (B or 1, H or 1, T or 1, S); bool (True = attend) or added to the scores; None: attend to all.
        causal: no query attends to a later key, and T = S; instead of a mask. Kernels then skip half the
            work.
        rotary: cos and sin for queries and keys; None: no RoPE.
        past: number of tokens in the cache.
        encoder_hidden_states: (B, S, E) for cross-attention; None: their keys and values are cached.
        watch: called with the attention weights before dropout, (B, H, T, S); None: they are not computed.
    """

    mask: Tensor | None = None
    causal: bool = False
    rotary: RotaryTables | None = None
    past: int = 0
    encoder_hidden_states: Tensor | None = None
    watch: Callable[[Tensor], None] | None = None

    def attend(self, attention: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Runs an attention module in this context: (B, H, T, D), twice (B, K, S, D) -> (B, H, T, D)."""
        return attention.attend(query, key, value, self)  # type: ignore[no-any-return]


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
        heads = config.num_attention_heads
        width, shared = (n * config.head_dim for n in (heads, config.num_key_value_heads or heads))
        self.head_dim, self.groups = config.head_dim, width // shared
        self.Q = nn.Linear(hidden_size, width, bias=config.bias)
        self.K = nn.Linear(hidden_size, shared, bias=config.bias)
        self.V = nn.Linear(hidden_size, shared, bias=config.bias)
        normed, self.norm_per_head = config.qk_norm != "none", config.qk_norm == "head"
        self.q_norm = norm(qk_norm, self.head_dim if self.norm_per_head else width) if normed else None
        self.k_norm = norm(qk_norm, self.head_dim if self.norm_per_head else shared) if normed else None
        self.sinks = nn.Parameter(torch.empty(heads)) if config.sinks else None
        self.dropout, self.softcap = nn.Dropout(config.dropout), config.softcap
        scale = config.head_dim**-0.5 if config.scale is None else config.scale
        self.scale = scale / (index + 1 if config.scale_by_layer else 1)
        self.backend: Backend = sdpa

    def extra_repr(self) -> str:
        """Returns the heads, for the printout."""
        heads = self.Q.out_features // self.head_dim
        shared = f", {heads // self.groups} for keys and values" if self.groups > 1 else ""
        return f"{heads} heads of {self.head_dim} features{shared}"

    def heads(self, x: Tensor, norm: Slot | None = None) -> Tensor:
        """Splits into heads, and normalises queries and keys: (B, T, heads * D) -> (B, heads, T, D)."""
        x = x if norm is None or self.norm_per_head else norm(x)
        x = x.view(*x.shape[:-1], x.shape[-1] // self.head_dim, self.head_dim)
        x = x if norm is None or not self.norm_per_head else norm(x)
        return x.transpose(1, 2)

    def forward(self, hidden: Tensor, context: AttentionContext, cache: LayerCache | None = None) -> Tensor:
        """(B, T, E) -> (B, T, H * D)"""
        query, key, value = self.project(hidden, context)
        if cache is not None:
            key, value = cache.append(key, value, context.past)  # (B, K, S, D)
        return context.attend(self, query, key, value).transpose(1, 2).flatten(2)

    def project(self, hidden: Tensor, context: AttentionContext) -> tuple[Tensor, Tensor, Tensor]:
        """Returns queries, keys and values, rotated: (B, T, E) -> (B, H, T, D), (B, K, T, D) twice."""
        query = self.heads(self.Q(hidden), self.q_norm)
        key = self.heads(self.K(hidden), self.k_norm)
        if context.rotary is not None:
            query, key = (apply_rotary_pos_emb(x, context.rotary) for x in (query, key))
        return query, key, self.heads(self.V(hidden))

    def options(self, context: AttentionContext) -> ScoreOptions:
        """Returns the options of the scores for one forward."""
        dropout = getattr(self.dropout, "p", 0.0) if self.dropout.training else 0.0
        return ScoreOptions(self.scale, context.causal, self.groups, self.softcap, self.sinks, dropout)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, context: AttentionContext) -> Tensor:
        """(B, H, T, D), twice (B, K, S, D) -> (B, H, T, D)"""
        options = self.options(context)
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
        query = self.queries(hidden)
        if context.encoder_hidden_states is not None:
            key, value = self.keys_and_values(context.encoder_hidden_states)
        else:
            assert cache is not None, "without encoder hidden states, their keys and values are cached"
            key, value = cache.recall()
        return self.attend(query, key, value, context).transpose(1, 2).flatten(2)

    def queries(self, hidden: Tensor) -> Tensor:
        """(B, T, E) -> (B, H, T, D)"""
        return self.heads(self.Q(hidden), self.q_norm)

    def keys_and_values(self, encoder_hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """(B', S, E) -> (B', K, S, D) twice"""
        key = self.heads(self.K(encoder_hidden_states), self.k_norm)
        return key, self.heads(self.V(encoder_hidden_states))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, context: AttentionContext) -> Tensor:
        """(B, H, T, D), twice (B', K, S, D) -> (B, H, T, D)

        Rows of one source, such as its beams, become queries of one row: its keys are not copied per beam,
        and are loaded once for all of them.
        """
        rows, time = query.shape[0], query.shape[2]
        each = rows // max(1, len(key))  # B / B', a number: -1 would be ambiguous in an empty batch
        folded = query.view(len(key), each, *query.shape[1:]).transpose(1, 2).flatten(2, 3)
        mixed = super().attend(folded, key, value, context)  # (B', H, B / B' * T, D)
        unfolded = mixed.reshape(*mixed.shape[:2], each, time, mixed.shape[-1]).transpose(1, 2)
        return unfolded.reshape(rows, *query.shape[1:])
