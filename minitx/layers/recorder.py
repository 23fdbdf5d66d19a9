"""Collects hidden states and attention weights while a stack runs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from torch import Tensor

from minitx.layers.attention import AttentionContext
from minitx.layers.cache import LayerCache, SlidingWindowCache
from minitx.validation import ArgumentTypeError, check_integer

Layers = bool | Collection[int]  # of no layer, of all layers, or of those listed; -1 is the last one
Context = TypeVar("Context", bound=AttentionContext)


@dataclass
class Recorder:
    """Hidden states and attention weights of one stack during one forward.

    Only the layers listed compute their weights, beside the fused kernel, whose result stays the same.

    Attributes:
        output_hidden_states: whether hidden states are collected.
        output_attentions: layers whose self-attention weights are collected.
        output_cross_attentions: layers whose cross-attention weights are collected.
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
    _cross_layers: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        """Checks that `output_hidden_states` is a bool."""
        if not isinstance(self.output_hidden_states, bool):
            raise ArgumentTypeError("output_hidden_states", self.output_hidden_states, "a bool")

    def begin(self, num_layers: int) -> None:
        """Notes the number of layers. Decoders do so before they change a cache, and stacks when they run.

        Raises:
            ArgumentTypeError, ArgumentValueError: a layer that does not exist.
        """
        self.num_layers = num_layers
        self._layers = layer_numbers("output_attentions", self.output_attentions, num_layers)
        self._cross_layers = layer_numbers(
            "output_cross_attentions", self.output_cross_attentions, num_layers
        )

    def enter(
        self,
        layer: int,
        hidden: Tensor,
        context: Context,
        cross: AttentionContext | None = None,
        cache: LayerCache | None = None,
    ) -> tuple[Context, AttentionContext | None]:
        """Records the input of a layer.

        Args:
            layer: its number.
            hidden: (B, T, E).
            context: of its self-attention.
            cross: of its cross-attention; None: it has none.
            cache: its part of the cache.

        Returns:
            The contexts of its self-attention and cross-attention, which pass their weights to this recorder.
        """
        if self.output_hidden_states:
            self.hidden_states.append(hidden)
        rows, time = hidden.shape[:2]

        def _watch(weights: Tensor) -> None:
            self.attentions[layer] = sort_keys(weights, cache, context.past)

        def _watch_cross(weights: Tensor) -> None:  # (B', H, B / B' * T, S'): rows of a source are folded
            each = rows // max(1, len(weights))
            unfolded = weights.view(*weights.shape[:2], each, time, weights.shape[-1]).transpose(1, 2)
            self.cross_attentions[layer] = unfolded.reshape(rows, *unfolded.shape[2:])

        if layer in self._layers:
            context = replace(context, watch=_watch)
        if cross is not None and layer in self._cross_layers:
            cross = replace(cross, watch=_watch_cross)
        return context, cross

    def leave(self, hidden: Tensor) -> None:
        """Records the output of the stack.

        Args:
            hidden: (B, T, E).
        """
        if self.output_hidden_states:
            self.hidden_states.append(hidden)

    def fields(self, prefix: str = "") -> dict[str, Any]:
        """Returns fields of `ModelOutput`: hidden states, and weights per layer, None for layers not listed.

        Args:
            prefix: of their names, "encoder_" or "decoder_" in an encoder-decoder.
        """
        fields = {f"{prefix}hidden_states": tuple(self.hidden_states) or None}
        fields[f"{prefix}attentions"] = self._per_layer(self.attentions)
        if self.cross_attentions:
            fields["cross_attentions"] = self._per_layer(self.cross_attentions)
        return fields

    def _per_layer(self, weights: dict[int, Tensor]) -> Any:
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


def sort_keys(weights: Tensor, cache: LayerCache | None, past: int) -> Tensor:
    """Sorts the keys of a ring buffer by position, without those before the window: (..., S) -> (..., S)."""
    if not isinstance(cache, SlidingWindowCache) or weights.shape[2] > 1:
        return weights
    order = cache.key_positions(past, 1, weights.device).argsort()
    return weights[..., order[-cache.window :]]
