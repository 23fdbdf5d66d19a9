"""Scaled dot-product attention (arXiv:1706.03762, equation 1): step by step, or with fused kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from minitx.validation import ArgumentTypeError, ArgumentValueError, check_choice


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
    """Computes attention: (B, H, T, D), (B, K, S, D), (B, K, S, D), mask -> (B, H, T, D).

    The mask is (1 or B, 1 or H, 1 or T, S): bool (True = attend) or added to the scores; None: attend to all.
    """

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: ScoreOptions
    ) -> Tensor: ...


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
    if options.groups > 1:
        key = key.repeat_interleave(options.groups, dim=1)
    scores = query @ key.transpose(-2, -1) * options.scale  # (B, H, T, S)
    if options.softcap is not None:
        scores = options.softcap * torch.tanh(scores / options.softcap)
    if options.causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    if options.sinks is not None:
        sinks = options.sinks.view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat((scores, sinks), dim=-1)
    # In half precision a softmax over many keys loses digits, so it is computed in float32.
    wide = torch.promote_types(scores.dtype, torch.float32)
    weights = torch.softmax(scores, dim=-1, dtype=wide).to(scores.dtype)
    return weights if options.sinks is None else weights[..., :-1]


def eager(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: ScoreOptions) -> Tensor:
    """Compute attention step by step, as in the equation.

    Args:
        query: (B, H, T, D)
        key: (B, K, S, D)
        value: (B, K, S, D)
        mask: (1 or B, 1 or H, 1 or T, S), as for `Backend`; or None.
        options: of the scores.

    Returns:
        (B, H, T, D)
    """
    if options.groups > 1:
        value = value.repeat_interleave(options.groups, dim=1)
    weights = attention_weights(query, key, mask, options)
    weights = F.dropout(weights, p=options.dropout, training=options.dropout > 0.0)
    return weights @ value


def sdpa(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: ScoreOptions) -> Tensor:
    """Compute the same with PyTorch's fused kernels, which never hold the (T, S) weights.

    The kernels support neither caps nor sinks: with those, falls back to `eager`.

    Args:
        query: (B, H, T, D)
        key: (B, K, S, D)
        value: (B, K, S, D)
        mask: (1 or B, 1 or H, 1 or T, S), as for `Backend`; or None.
        options: of the scores.

    Returns:
        (B, H, T, D)
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
    """Make a custom attention known under a name, for `model.set_attention` and `minitx.load(attention=)`.

    Args:
        name: not the name of a built-in attention.
        function: with the signature of `Backend`.

    Raises:
        ArgumentTypeError: not a name, or not callable.
        ArgumentValueError: the name of a built-in attention.

    Example:
        >>> def uniform(query, key, value, mask, options):
        ...     return minitx.layers.attention_kernels.sdpa(query * 0, key, value, mask, options)
        >>> minitx.register_attention("uniform", uniform)
        >>> model = minitx.load(folder, attention="uniform")
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
        hint = "minitx.register_attention adds a custom one"
        return BACKENDS[check_choice("attention", attention, BACKENDS, hint)]
    if not callable(attention):
        raise ArgumentTypeError("attention", attention, f"a function or one of {', '.join(BACKENDS)}")
    return attention
