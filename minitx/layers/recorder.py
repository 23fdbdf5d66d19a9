"""Collects hidden states and attention weights while a stack runs, for `output_hidden_states` and its like."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import TypeVar

from torch import Tensor

from minitx.layers.attention import AttentionContext
from minitx.layers.cache import LayerCache, SlidingWindowCache
from minitx.validation import ArgumentTypeError, check_integer

Layers = bool | Collection[int]  # of no layer, of all layers, or of these; negative numbers are from the end
Context = TypeVar("Context", bound=AttentionContext)


@dataclass
class Recorder:
    """What a stack collects during one forward.

    Only the layers that are asked for compute their weights beside the fused kernel; its result stays the same.

    Attributes:
        output_hidden_states: collect the hidden states.
        output_attentions: layers whose self-attention weights are collected.
        output_cross_attentions: the same of cross-attention.
        hidden_states: (B, T, E) before the first layer, and after each; the last one after the final norm.
        attentions: layer -> (B, H, T, S).
        cross_attentions: layer -> (B, H, T, S').
        num_layers: number of layers that run, once the stack has begun.
    """

    output_hidden_states: bool = False
    output_attentions: Layers = False
    output_cross_attentions: Layers = False
    hidden_states: list[Tensor] = field(default_factory=list)
    attentions: dict[int, Tensor] = field(default_factory=dict)
    cross_attentions: dict[int, Tensor] = field(default_factory=dict)
    num_layers: int = 0
    _layers: frozenset[int] = frozenset()
    _cross: frozenset[int] = frozenset()

    def begin(self, num_layers: int) -> None:
        """Note the number of layers.

        Raises:
            ArgumentTypeError, ArgumentValueError: a layer that does not exist.
        """
        self.num_layers = num_layers
        self._layers = layer_numbers("output_attentions", self.output_attentions, num_layers)
        self._cross = layer_numbers("output_cross_attentions", self.output_cross_attentions, num_layers)

    def enter(
        self,
        layer: int,
        hidden: Tensor,
        context: Context,
        cross: AttentionContext | None = None,
        cache: LayerCache | None = None,
    ) -> tuple[Context, AttentionContext | None]:
        """Record the input (B, T, E) of a layer.

        Returns:
            The contexts of its self-attention and cross-attention, which pass on the weights that are asked for.
        """
        across = None if cross is None else self._enter_cross(layer, hidden, cross)
        if self.output_hidden_states:
            self.hidden_states.append(hidden)
        if layer not in self._layers:
            return context, across
        past, time = context.past, hidden.shape[1]

        def watch(weights: Tensor) -> None:
            self.attentions[layer] = in_order(weights, cache, past, time)

        return replace(context, watch=watch), across

    def _enter_cross(self, layer: int, hidden: Tensor, context: AttentionContext) -> AttentionContext:
        if layer not in self._cross:
            return context
        rows, time = hidden.shape[:2]

        def watch(weights: Tensor) -> None:  # (B', H, B / B' * T, S'): all rows of a source are one
            unfolded = weights.view(*weights.shape[:2], -1, time, weights.shape[-1])
            self.cross_attentions[layer] = unfolded.transpose(1, 2).reshape(rows, -1, *unfolded.shape[-2:])

        return replace(context, watch=watch)

    def leave(self, hidden: Tensor) -> None:
        """Record the output (B, T, E) of the stack."""
        if self.output_hidden_states:
            self.hidden_states.append(hidden)

    def all_hidden_states(self) -> tuple[Tensor, ...] | None:
        """Returns the hidden states, None if they were not asked for."""
        return tuple(self.hidden_states) if self.output_hidden_states else None

    def all_attentions(self) -> tuple[Tensor | None, ...] | None:
        """Returns the self-attention weights per layer, None for the others; None if no layer was asked for."""
        return self._per_layer(self.attentions)

    def all_cross_attentions(self) -> tuple[Tensor | None, ...] | None:
        """Returns the cross-attention weights per layer, None for the others; None if no layer was asked for."""
        return self._per_layer(self.cross_attentions)

    def _per_layer(self, weights: dict[int, Tensor]) -> tuple[Tensor | None, ...] | None:
        return tuple(weights.get(layer) for layer in range(self.num_layers)) if weights else None


def layer_numbers(parameter: str, layers: Layers, num_layers: int) -> frozenset[int]:
    """Returns the layers as numbers from 0.

    Raises:
        ArgumentTypeError: neither a bool nor a collection of integers.
        ArgumentValueError: a layer that does not exist.
    """
    if isinstance(layers, bool):
        return frozenset(range(num_layers) if layers else ())
    if not isinstance(layers, Collection) or isinstance(layers, str):
        raise ArgumentTypeError(parameter, layers, "a bool or a collection of layer numbers")
    hint = f"the model runs {num_layers} layers"
    numbers = (check_integer(parameter, layer, -num_layers, num_layers - 1, hint) for layer in layers)
    return frozenset(number % num_layers for number in numbers)


def in_order(weights: Tensor, cache: LayerCache | None, past: int, time: int) -> Tensor:
    """Sort the keys of a ring buffer by position, without those before the window: (B, H, T, S) -> (B, H, T, S)."""
    if not isinstance(cache, SlidingWindowCache) or time > 1:
        return weights
    order = cache.key_positions(past, time, weights.device).argsort()
    return weights[..., order[-cache.window :]]
