"""A stack of layers, and the masks, tables and biases that its layers share during one forward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from minitx.config import Alibi, Disentangled, ExpertsConfig, LayerConfig, StackConfig
from minitx.config import RelativeBias as RelativeBiasConfig
from minitx.config import Rotary as RotaryConfig
from minitx.layers.attention import AttentionContext, CrossAttention
from minitx.layers.cache import (
    Cache,
    CrossAttentionCache,
    DynamicCache,
    LayerCache,
    SlidingWindowCache,
    StaticCache,
)
from minitx.layers.disentangled import DisentangledStack
from minitx.layers.layer import Layer, ParallelLayer
from minitx.layers.linear import Linear
from minitx.layers.masks import causal_window_mask, padding_mask, to_additive_mask
from minitx.layers.norm import Slot, dropout, identity, norm
from minitx.layers.positions import RelativeBias, alibi
from minitx.layers.recorder import Recorder
from minitx.layers.rotary import RotaryTables, rotary_tables

FULL, SLIDING = "full_attention", "sliding_attention"


class LayerKind(NamedTuple):
    """Properties of a layer that decide its mask and positions; layers of one kind share an AttentionContext.

    Attributes:
        layer_type: FULL or SLIDING.
        uses_rope: whether queries and keys are rotated, if the stack has RoPE.
        bias_table: index of the relative bias, if the stack has any.
    """

    layer_type: str
    uses_rope: bool
    bias_table: int


def layer_kinds(config: StackConfig, steps: int) -> list[LayerKind]:
    """Returns the kind of the layer that runs at each step."""
    positions = config.positions
    rope = positions.layers if isinstance(positions, RotaryConfig) else None
    per_layer = isinstance(positions, RelativeBiasConfig) and positions.per_layer
    columns = (
        config.layer_types or (FULL,) * steps,
        rope or (True,) * steps,
        range(steps) if per_layer else (0,) * steps,
    )
    return [LayerKind(*kind) for kind in zip(*columns, strict=True)]


def layer_order(config: StackConfig) -> list[int]:
    """Returns the index of the layer that runs at each step: 0, 1, 2, ... unless groups share parameters.

    With groups (arXiv:1909.11942, section 3.1) the steps are split evenly among them, and each step runs the
    `inner_group_num` layers of its group.
    """
    groups, inner = config.num_hidden_groups, config.inner_group_num
    if groups is None:
        return list(range(config.num_hidden_layers))
    steps = range(config.num_hidden_layers)
    return [step * groups // len(steps) * inner + k for step in steps for k in range(inner)]


def layer_config(config: StackConfig, index: int) -> LayerConfig:
    """Returns the config of one layer, which may have the dense network in place of the experts."""
    network = config.layer.feed_forward
    if config.expert_layers is None or config.expert_layers[index] or not isinstance(network, ExpertsConfig):
        return config.layer
    assert network.dense is not None, "StackConfig checks it"
    return replace(config.layer, feed_forward=network.dense)


class Stack(nn.Module):
    """`layers`, run in order, and the final norm if the last layer does not end in one."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.config = config
        size, layer = config.hidden_size, config.layer
        self.layer_order = layer_order(config)
        self.layer_kinds = layer_kinds(config, len(self.layer_order))
        self.num_unique_layers = (
            config.num_hidden_groups or config.num_hidden_layers
        ) * config.inner_group_num
        kind = Layer if layer.parallel == "none" else ParallelLayer
        self.layers = nn.ModuleList(
            kind(
                layer_config(config, index),
                size,
                index,
                attention_norm=index > 0 or config.first_attention_norm,
            )
            for index in range(self.num_unique_layers)
        )
        self.relative_bias = relative_biases(config, len({kind.bias_table for kind in self.layer_kinds}))
        ends_in_norm = layer.norm_placement == "post" or not config.final_norm
        self.layer_norm = norm(None if ends_in_norm else layer.norm, size)
        self.dropout = dropout(config.final_dropout)
        self.projection: Slot = identity
        if config.output_size is not None:
            self.projection = Linear(size, config.output_size, bias=False)

    def forward(
        self,
        hidden: Tensor,
        mask: Tensor | None,
        position_ids: Tensor,
        cache: Cache | None = None,
        cross: AttentionContext | None = None,
        record: Recorder | None = None,
    ) -> Tensor:
        """Run the layers.

        Args:
            hidden: (B, T, E).
            mask: (B, S) or (B, T, S), bool; S includes the tokens in the cache.
            position_ids: (1 or B, T).
            cache: of earlier tokens; each layer appends its keys and values. The caller advances its length
                (`Cache.advance`).
            cross: mask and encoder hidden states for cross-attention; None: no encoder.
            record: collects hidden states and attention weights; None: nothing is collected.

        Returns:
            (B, T, E)
        """
        if len(self.layers) != self.num_unique_layers:
            raise ValueError(
                f"layers={len(self.layers)} must be {self.num_unique_layers}, the depth of the config; to change "
                "it, build another model (minitx.from_config)."
            )
        parts = [None] * len(self.layer_order) if cache is None else cache.layers
        contexts = self.contexts(hidden, mask, position_ids, cache)
        cross_parts = [None] * len(parts) if cache is None or cross is None else cache.cross_attention
        if record is not None:
            record.begin(len(self.layer_order))
        steps = zip(self.layer_order, self.layer_kinds, parts, cross_parts, strict=True)
        for step, (index, kind, part, cross_part) in enumerate(steps):
            context, across = contexts[kind], cross
            if record is not None:
                context, across = record.enter(step, hidden, context, cross, part)
            hidden = self.layers[index](hidden, context, part, across, cross_part)
        hidden = self.projection(self.dropout(self.layer_norm(hidden)))
        if record is not None:
            record.leave(hidden)
        return hidden

    def remember(self, cache: Cache, memory: Tensor, mask: Tensor | None) -> None:
        """Store the cross-attention keys and values of every layer in a cache.

        Args:
            cache: without any so far.
            memory: (B', S', E'), the encoder hidden states; each source serves B / B' rows of the batch.
            mask: (B', 1, 1, S'), bool.
        """
        caches = []  # complete before the cache is changed: if a layer fails, it stays as it was
        for index in self.layer_order:
            attention = self.layers[index].get_submodule("cross_attention.cross_attention")
            assert isinstance(attention, CrossAttention)
            caches.append(CrossAttentionCache(*attention.keys_and_values(memory)))
        cache.cross_attention, cache.encoder_mask = caches, mask

    def contexts(
        self, hidden: Tensor, mask: Tensor | None, position_ids: Tensor, cache: Cache | None
    ) -> Mapping[LayerKind, AttentionContext]:
        """Returns mask and positions for each kind of layer; the arguments are those of `forward`."""
        past = 0 if cache is None else cache.length
        attend = padding_mask(mask)
        parts = [None] * len(self.layer_kinds) if cache is None else cache.layers
        contexts = {}
        for kind, part in dict(zip(self.layer_kinds, parts, strict=True)).items():
            bias = self.score_bias(kind, attend, past, hidden)
            allowed, causal = self.build_mask(kind, attend, past, hidden, part, plain=bias is None)
            if bias is not None:
                allowed = to_additive_mask(allowed, bias)
            rotary = self.rotary(kind, position_ids, hidden.dtype)
            contexts[kind] = AttentionContext(allowed, causal, rotary, past)
        return contexts

    def build_mask(
        self,
        kind: LayerKind,
        attend: Tensor | None,
        past: int,
        hidden: Tensor,
        part: LayerCache | None,
        *,
        plain: bool,
    ) -> tuple[Tensor | None, bool]:
        """Returns the keys that each query may attend to, and whether the plain causal rule describes them.

        Args:
            kind: of the layer.
            attend: padding mask, (B, 1, 1 or T, S).
            past: number of tokens in the cache.
            hidden: (B, T, E), for its length and device.
            part: cache of a layer of this kind.
            plain: whether the kernel's own causal rule may replace the mask.
        """
        time, device, causal = hidden.shape[1], hidden.device, self.config.causal and hidden.shape[1] > 1
        window = self.config.sliding_window if kind.layer_type == SLIDING else None
        columns = past + time if part is None else part.key_length(past, time)
        outside_window = window is not None and columns > window
        if plain and attend is None and past == 0 and causal and not outside_window:
            return None, True
        if part is not None and attend is not None:
            attend = attend[..., part.key_positions(past, time, device)]
        if causal or outside_window:
            queries = torch.arange(past, past + time, device=device)
            keys = queries if part is None else part.key_positions(past, time, device)
            attend = causal_window_mask(attend, queries, keys, causal=self.config.causal, window=window)
        return attend, False

    def rotary(self, kind: LayerKind, position_ids: Tensor, dtype: torch.dtype) -> RotaryTables | None:
        """Returns the RoPE tables of one kind of layer for positions (1 or B, T); None: no RoPE."""
        positions = self.config.positions
        if not isinstance(positions, RotaryConfig) or not kind.uses_rope:
            return None
        return rotary_tables(positions.ropes[kind.layer_type], position_ids, dtype)

    def score_bias(self, kind: LayerKind, attend: Tensor | None, past: int, hidden: Tensor) -> Tensor | None:
        """Returns the position bias of the scores, (1 or B, H, 1 or T, S); None: no bias.

        Args:
            kind: of the layer.
            attend: padding mask, (B, 1, 1 or T, S).
            past: S - T.
            hidden: (B, T, E), for its length, device and dtype.
        """
        if self.relative_bias is None and not isinstance(self.config.positions, Alibi):
            return None
        places = torch.arange(past + hidden.shape[1], device=hidden.device)
        if self.relative_bias is not None:
            bias = self.relative_bias[kind.bias_table]
            assert isinstance(bias, RelativeBias)
            return bias.scores(places[past:], places)
        if attend is None:
            positions = places[None, None, None]
        else:  # positions skip padding and keys that a query does not attend to
            positions = (attend.long().cumsum(dim=-1) - 1).clamp(min=0)
        return alibi(self.config.layer.attention.num_attention_heads, positions, hidden.dtype)

    def make_cache(self, max_length: int | None = None, spare: int = 0) -> Cache:
        """Returns an empty cache for this stack; the arguments are those of `DecoderModel.make_cache`."""

        def part(layer_type: str) -> LayerCache:
            window = self.config.sliding_window if layer_type == SLIDING else None
            if window is not None and (max_length is None or window + spare < max_length):
                return SlidingWindowCache(window, window + spare)
            return DynamicCache() if max_length is None else StaticCache(max_length)

        cross_attention = self.config.layer.cross_attention
        memory = [CrossAttentionCache() for _ in self.layer_kinds] if cross_attention else []
        return Cache([part(kind.layer_type) for kind in self.layer_kinds], memory)


def make_stack(config: StackConfig) -> nn.Module:
    """Returns the stack of the class that `config.positions` needs."""
    return (DisentangledStack if isinstance(config.positions, Disentangled) else Stack)(config)


def relative_biases(config: StackConfig, count: int) -> nn.ModuleList | None:
    """Returns `count` tables of relative biases; None: the stack has none."""
    positions, heads = config.positions, config.layer.attention.num_attention_heads
    if not isinstance(positions, RelativeBiasConfig):
        return None
    return nn.ModuleList(RelativeBias(positions, heads, causal=config.causal) for _ in range(count))
