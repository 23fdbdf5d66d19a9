"""Taps inside attention and routing: the steps of a module are replaced by versions that run the functions.

An attribute of the instance hides the method of the class while there are functions, and is deleted with the
last of them. Values that nobody replaces come from the module's own backend, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from minitx.layers.attention import (
    AttentionContext,
    CrossAttention,
    attention_scores,
    mix,
    softmax_with_sinks,
)

Apply = Callable[[str, Tensor], Tensor]  # of the point and its value; returns the value to go on with
Wanted = Callable[[str], bool]  # whether a point has functions


def hide_attention(module: Any, apply: Apply, wanted: Wanted) -> list[str]:
    """Replaces the steps of an attention module on this instance.

    Args:
        module: SelfAttention, CrossAttention or DisentangledSelfAttention.
        apply: runs the functions of a point.
        wanted: whether a point has functions.

    Returns:
        Names of the attributes that now hide methods.
    """
    cls = type(module)

    def _project(hidden: Tensor, context: AttentionContext) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = cls.project(module, hidden, context)
        return apply("query", query), apply("key", key), apply("value", value)

    def _queries(hidden: Tensor) -> Tensor:
        return apply("query", cls.queries(module, hidden))

    def _keys_and_values(encoder_hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        key, value = cls.keys_and_values(module, encoder_hidden_states)
        return apply("key", key), apply("value", value)

    def _attend(query: Tensor, key: Tensor, value: Tensor, context: AttentionContext) -> Tensor:
        if not (wanted("scores") or wanted("weights")):
            return apply("mixed", cls.attend(module, query, key, value, context))
        mixed = _attend_in_steps(module, (query, key, value), context, apply)
        return apply("mixed", mixed)

    steps: dict[str, Any] = {"attend": _attend, "project": _project}
    if isinstance(module, CrossAttention):
        steps = {"attend": _attend, "queries": _queries, "keys_and_values": _keys_and_values}
    for name, function in steps.items():
        setattr(module, name, function)
    return [*steps]


def _attend_in_steps(
    module: Any, inputs: tuple[Tensor, Tensor, Tensor], context: AttentionContext, apply: Apply
) -> Tensor:
    """Computes attention with functions at scores or weights.

    Rows whose weights no function replaced keep the output of the module's own backend.

    (B, H, T, D), twice (B', K, S, D) -> (B, H, T, D)
    """
    query, key, value = inputs
    options, copies = module.options(context), len(query) // len(inputs[1])
    own: Tensor = type(module).attend(module, query, key, value, replace(context, watch=None))
    mask = context.mask
    if copies > 1:  # rows of one source
        key, value = (x.repeat_interleave(copies, dim=0) for x in (key, value))
        if mask is not None and len(mask) > 1:
            mask = mask.repeat_interleave(copies, dim=0)
    scores = attention_scores(query, key, mask, options)
    replaced_scores = apply("scores", scores)
    weights = softmax_with_sinks(replaced_scores, options.sinks, query.dtype)
    replaced_weights = apply("weights", weights)
    if context.watch is not None:
        context.watch(_fold(replaced_weights, copies))
    changed = _changed_rows(scores, replaced_scores) | _changed_rows(weights, replaced_weights)
    if not bool(changed.any()):
        return own
    return torch.where(changed[:, None, None, None], mix(replaced_weights, value, options), own)


def _fold(weights: Tensor, copies: int) -> Tensor:
    """Makes rows of one source queries of one row: (B, H, T, S) -> (B / copies, H, copies * T, S)."""
    return weights.view(-1, copies, *weights.shape[1:]).transpose(1, 2).flatten(2, 3)


def _changed_rows(value: Tensor, replacement: Tensor) -> Tensor:
    """Returns which rows differ, or are to have gradients of their own: (B, ...) twice -> (B,) bool."""
    if replacement is value:
        return torch.zeros(len(value), dtype=torch.bool, device=value.device)
    if replacement.requires_grad:
        return torch.ones(len(value), dtype=torch.bool, device=value.device)
    return (value != replacement).flatten(1).any(dim=1)


def hide_routing(module: Any, apply: Apply, wanted: Wanted) -> list[str]:
    """Replaces the routing of a mixture of experts on this instance; arguments as for `hide_attention`."""
    cls = type(module)

    def _route(hidden: Tensor) -> tuple[Tensor, Tensor]:
        weights, indices = cls.route(module, hidden)  # (B * T, k)
        shape = (*hidden.shape[:-1], -1)
        weights = apply("expert_weights", weights.view(shape))
        indices = apply("expert_indices", indices.view(shape))
        return weights.flatten(0, -2), indices.flatten(0, -2)

    module.route = _route
    return ["route"]


def restore(module: nn.Module, names: list[str]) -> None:
    """Deletes the attributes that hide methods."""
    for name in names:
        delattr(module, name)
