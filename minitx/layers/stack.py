"""A stack of layers, and the masks, tables and biases that its layers share during one forward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from minitx.config import Alibi, Disentangled, ExpertsConfig, LayerConfig, RelativeBias, Rotary, StackConfig
from minitx.config.model import FULL, SLIDING
from minitx.layers.attention import AttentionContext, CrossAttention
from minitx.layers.cache import (
    Cache,
    CrossAttentionCache,
    DynamicCache,
    Int8Cache,
    LayerCache,
    SlidingWindowCache,
    StaticCache,
)
from minitx.layers.disentangled import DisentangledStack
from minitx.layers.layer import make_layer
from minitx.layers.masks import causal_window_mask, distances, padding_mask, to_additive_mask
from minitx.layers.norm import Slot, dropout, identity, norm
from minitx.layers.positions import RelativePositionBias, alibi, relative_biases
from minitx.layers.recorder import Recorder
from minitx.layers.rotary import RotaryTables, rotary_tables
from minitx.layers.unpadded import Runs, UnpaddedContext
from minitx.validation import ArgumentValueError


class LayerKind(NamedTuple):
    """Properties of a layer that decide its mask and positions; layers of one kind share an AttentionContext.

    Attributes:
        layer_type: FULL or SLIDING.
        uses_rope: whether queries and keys are rotated.
        bias_table: index of the relative bias, if the stack has any.
    """

    layer_type: str
    uses_rope: bool
    bias_table: int


def layer_kinds(config: StackConfig, steps: int) -> list[LayerKind]:
    """Returns the kind of the layer that runs at each step."""
    positions, types = config.positions, config.layer_types or (FULL,) * steps
    per_layer = isinstance(positions, RelativeBias) and positions.per_layer
    rope = (positions.layers or (True,) * steps) if isinstance(positions, Rotary) else (False,) * steps
    return list(map(LayerKind, types, rope, range(steps) if per_layer else (0,) * steps))


def layer_order(config: StackConfig) -> list[int]:
    """Returns the index of the layer that runs at each step: 0, 1, 2, ... unless groups share parameters.

    With groups (arXiv:1909.11942, section 3.1) the steps are split evenly among them, and each step runs the
    `inner_group_num` layers of its group.
    """
    steps, inner = config.num_hidden_layers, config.inner_group_num
    groups = config.num_hidden_groups or steps
    return [step * groups // steps * inner + k for step in range(steps) for k in range(inner)]


def layer_configs(config: StackConfig, experts: Sequence[bool]) -> list[LayerConfig]:
    """Returns the config of each layer, where some have the dense network in place of the experts."""
    assert isinstance(config.layer.feed_forward, ExpertsConfig), "StackConfig checks it"
    assert config.layer.feed_forward.dense is not None
    dense = replace(config.layer, feed_forward=config.layer.feed_forward.dense)
    return [config.layer if has_experts else dense for has_experts in experts]


class Stack(nn.Module):
    """`layers`, run in order, and the final norm if the last layer does not end in one."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.config = config
        size, layer, width = config.hidden_size, config.layer, config.output_size
        self.layer_order = layer_order(config)
        self.layer_kinds = layer_kinds(config, len(self.layer_order))
        self.num_unique_layers = max(self.layer_order) + 1
        layers = [layer] * self.num_unique_layers
        if config.expert_layers is not None and not all(config.expert_layers):
            layers = layer_configs(config, config.expert_layers)
        first = config.first_attention_norm
        self.layers = nn.ModuleList(
            make_layer(part, size, i, attention_norm=i > 0 or first) for i, part in enumerate(layers)
        )
        self.has_score_bias = isinstance(config.positions, RelativeBias | Alibi)
        if isinstance(config.positions, RelativeBias):
            self.relative_bias = relative_biases(config, [kind.bias_table for kind in self.layer_kinds])
        has_norm = config.final_norm and layer.norm_placement != "post"
        self.layer_norm = norm(layer.norm if has_norm else None, size)
        self.dropout = dropout(config.final_dropout)
        self.projection: Slot = identity if width is None else nn.Linear(size, width, bias=False)
        ends = (self.layer_norm, self.dropout, self.projection)
        self.ends_with_a_layer = all(slot is identity for slot in ends)
        # Then one context serves all layers, and positions do not enter the scores.
        self.attends_to_all = not config.causal and config.positions is None and not config.sliding_window

    def extra_repr(self) -> str:
        """Returns sizes and kinds of the layers, for the printout."""
        config, steps = self.config, len(self.layer_order)
        words = [f"{steps} layers of width {config.hidden_size}"]
        words += [f"{self.num_unique_layers} different ones"] if self.num_unique_layers < steps else []
        words += ["causal"] if config.causal else []
        words += [type(config.positions).__name__] if config.positions is not None else []
        slides = sum(kind.layer_type == SLIDING for kind in self.layer_kinds)
        words += [f"{slides} with a window of {config.sliding_window}"] if slides else []
        return ", ".join(words)

    def forward(
        self,
        hidden: Tensor,
        mask: Tensor | Runs | None,
        position_ids: Tensor,
        cache: Cache | None = None,
        cross: AttentionContext | None = None,
        record: Recorder | None = None,
    ) -> Tensor:
        """Runs the layers.

        Args:
            hidden: (B, T, E).
            mask: (B, S) or (B, T, S), bool; S includes the tokens in the cache. The lengths of several
                sequences in one row, B = 1, take its place.
            position_ids: (1 or B, T).
            cache: of earlier tokens; each layer appends its keys and values. The caller advances its length
                (`Cache.advance`).
            cross: mask and encoder hidden states for cross-attention; None: no encoder.
            record: collects hidden states and attention weights; None: nothing is collected.

        Returns:
            (B, T, E), or (B, T, output_size) if the config projects the output.
        """
        if len(self.layers) != self.num_unique_layers:
            hint = "build one of another depth with minitx.from_config"
            expected = f"{self.num_unique_layers}, as in the config"
            raise ArgumentValueError("layers", len(self.layers), expected, hint)
        contexts = self.contexts(hidden, mask, position_ids, cache)
        if cache is not None or cross is not None or record is not None:
            hidden = self.run_layers(hidden, contexts, cache, cross, record)
        else:
            for index, kind in zip(self.layer_order, self.layer_kinds, strict=True):
                hidden = self.layers[index](hidden, contexts[kind])
        if not self.ends_with_a_layer:
            hidden = self.projection(self.dropout(self.layer_norm(hidden)))
        if record is not None:
            record.leave(hidden)
        return hidden

    def run_layers(
        self,
        hidden: Tensor,
        contexts: Mapping[LayerKind, AttentionContext],
        cache: Cache | None,
        cross: AttentionContext | None,
        record: Recorder | None,
    ) -> Tensor:
        """Runs the layers with a cache, cross-attention or a recorder: (B, T, E) -> (B, T, E)."""
        parts = [None] * len(self.layer_order) if cache is None else cache.layers
        cross_parts = [None] * len(parts) if cache is None or cross is None else cache.cross_attention
        if record is not None:
            record.begin(len(self.layer_order))
        steps = zip(self.layer_order, self.layer_kinds, parts, cross_parts, strict=True)
        for step, (index, kind, part, cross_part) in enumerate(steps):
            context, across = contexts[kind], cross
            if record is not None:
                context, across = record.enter(step, hidden, context, cross, part)
            hidden = self.layers[index](hidden, context, part, across, cross_part)
        return hidden

    def fill_cross_attention(self, cache: Cache, encoder_hidden_states: Tensor, mask: Tensor | None) -> None:
        """Stores the cross-attention keys and values of every layer in a cache.

        Args:
            cache: without any so far.
            encoder_hidden_states: (B', S', E'); each source serves B / B' rows of the batch.
            mask: (B', 1, 1, S'), bool.
        """
        caches = []  # complete before the cache is changed: if a layer fails, it stays as it was
        for index in self.layer_order:
            attention = self.layers[index].get_submodule("cross_attention.cross_attention")
            assert isinstance(attention, CrossAttention)
            caches.append(CrossAttentionCache(*attention.keys_and_values(encoder_hidden_states)))
        cache.cross_attention, cache.encoder_mask = caches, mask

    def contexts(
        self, hidden: Tensor, mask: Tensor | Runs | None, position_ids: Tensor, cache: Cache | None
    ) -> Mapping[LayerKind, AttentionContext]:
        """Returns mask and positions for each kind of layer.

        Args:
            hidden: (B, T, E), for its length, device and dtype.
            mask: (B, S) or (B, T, S), or the lengths of sequences, or None.
            position_ids: (1 or B, T)
            cache: of earlier tokens.
        """
        if self.attends_to_all and cache is None and not isinstance(mask, Runs):
            return dict.fromkeys(self.layer_kinds, AttentionContext(padding_mask(mask)))
        return self.contexts_by_kind(hidden, mask, position_ids, cache)

    def contexts_by_kind(
        self, hidden: Tensor, mask: Tensor | Runs | None, position_ids: Tensor, cache: Cache | None
    ) -> Mapping[LayerKind, AttentionContext]:
        """Returns mask and positions for each kind of layer, whatever it attends to.

        Args:
            hidden: (B, T, E), for its length, device and dtype.
            mask: (B, S) or (B, T, S), True = token; or the lengths of sequences; None for no padding.
            position_ids: (1 or B, T)
            cache: of earlier tokens.
        """
        if isinstance(mask, Runs):
            return {kind: self.row_context(kind, mask, hidden, position_ids) for kind in {*self.layer_kinds}}
        apart = None
        if cache is not None and mask is not None and mask.dim() == 3:
            mask = mask.tril(cache.length)
            apart = distances(mask[:, None])
        inputs = (hidden, padding_mask(mask), position_ids, cache, apart)
        return {kind: self.context(kind, *inputs) for kind in {*self.layer_kinds}}

    def row_context(
        self, kind: LayerKind, runs: Runs, hidden: Tensor, position_ids: Tensor
    ) -> UnpaddedContext:
        """Returns the context of several sequences in one row, for one kind of layer.

        Args:
            kind: of the layer.
            runs: lengths of the sequences.
            hidden: (1, N, E), for its device and dtype.
            position_ids: (1, N).
        """

        def _single(length: int) -> AttentionContext:
            return self.context(unrotated, hidden[:, :length], None, position_ids[:, :length], None)

        unrotated = kind._replace(uses_rope=False)  # queries and keys are rotated before they are divided
        rotary = self.rotary(kind, position_ids, hidden.dtype) if kind.uses_rope else None
        return UnpaddedContext(rotary=rotary, parts=runs.parts(_single))

    def context(
        self,
        kind: LayerKind,
        hidden: Tensor,
        attend: Tensor | None,
        position_ids: Tensor,
        cache: Cache | None,
        apart: Tensor | None = None,
    ) -> AttentionContext:
        """Returns mask and positions for one kind of layer.

        Args:
            kind: of the layer.
            hidden: (B, T, E), for its length, device and dtype.
            attend: padding mask, (B, 1, 1 or T, S), or None.
            position_ids: (1 or B, T).
            cache: of earlier tokens.
            apart: (B, 1, T, S), `distances` where the mask lists the keys of each query; None: the tokens are
                in the order of their sequence.
        """
        past, part = 0, None
        if cache is not None:
            past, part = cache.length, cache.layers[self.layer_kinds.index(kind)]
        bias = self.score_bias(kind, attend, past, hidden, apart) if self.has_score_bias else None
        if apart is None or attend is None:
            mask, causal = self.build_mask(kind, attend, past, hidden, part, plain=bias is None)
        else:
            mask, causal = self.mask_of_queries(kind, attend, apart, part, past), False
        mask = mask if bias is None else to_additive_mask(mask, bias)
        rotary = self.rotary(kind, position_ids, hidden.dtype) if kind.uses_rope else None
        return AttentionContext(mask, causal, rotary, past)

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
        outside_window = columns > (window or columns)
        if plain and attend is None and past == 0 and causal and not outside_window:
            return None, True
        if part is not None and attend is not None:
            attend = attend[..., part.key_positions(past, time, device)]
        if causal or outside_window:
            queries = torch.arange(past, past + time, device=device)
            keys = queries if part is None else part.key_positions(past, time, device)
            attend = causal_window_mask(attend, queries, keys, causal=self.config.causal, window=window)
        return attend, False

    def mask_of_queries(
        self, kind: LayerKind, attend: Tensor, apart: Tensor, part: LayerCache | None, past: int
    ) -> Tensor:
        """Narrows a mask that lists the keys of each query to the window of the layer.

        Args:
            kind: of the layer.
            attend: (B, 1, T, S).
            apart: (B, 1, T, S), the distance of each key.
            part: cache of a layer of this kind.
            past: number of tokens in it.

        Returns:
            (B, 1, T, S), for the keys that the cache returns.
        """
        if kind.layer_type == SLIDING and self.config.sliding_window is not None:
            attend = attend & (apart < self.config.sliding_window)
        if part is None:
            return attend
        return attend[..., part.key_positions(past, attend.shape[2], attend.device)]

    def rotary(self, kind: LayerKind, position_ids: Tensor, dtype: torch.dtype) -> RotaryTables:
        """Returns the RoPE tables of one kind of layer.

        Args:
            kind: of the layer.
            position_ids: (1 or B, T)
            dtype: of the tables.
        """
        assert isinstance(self.config.positions, Rotary), "the kind uses RoPE"
        return rotary_tables(self.config.positions.ropes[kind.layer_type], position_ids, dtype)

    def score_bias(
        self,
        kind: LayerKind,
        attend: Tensor | None,
        past: int,
        hidden: Tensor,
        apart: Tensor | None = None,
    ) -> Tensor:
        """Returns the position bias of the scores.

        Args:
            kind: of the layer.
            attend: padding mask, (B, 1, 1 or T, S).
            past: S - T.
            hidden: (B, T, E), for its length, device and dtype.
            apart: (B, 1, T, S), as for `context`.

        Returns:
            (1 or B, H, 1 or T, S)
        """
        places = torch.arange(past + hidden.shape[1], device=hidden.device)
        if isinstance(self.config.positions, RelativeBias):
            bias = self.relative_bias[kind.bias_table]
            assert isinstance(bias, RelativePositionBias)
            return bias.scores(places[past:], places) if apart is None else bias.of_distances(-apart[:, 0])
        positions = places[None, None, None]
        if attend is not None:  # skip padding and keys that a query does not attend to
            positions = (attend.long().cumsum(dim=-1) - 1).clamp(min=0)
        return alibi(self.config.layer.attention.num_attention_heads, positions, hidden.dtype)

    def make_cache(
        self, max_length: int | None = None, spare: int = 0, dtype: torch.dtype | None = None
    ) -> Cache:
        """Returns an empty cache for this stack; the arguments are those of `DecoderModel.make_cache`."""

        def _part(layer_type: str) -> LayerCache:
            if dtype is not None:
                return Int8Cache(max_length)
            window = self.config.sliding_window if layer_type == SLIDING else None
            if window is not None and (max_length is None or window + spare < max_length):
                return SlidingWindowCache(window, window + spare)
            return DynamicCache() if max_length is None else StaticCache(max_length)

        cross_attention = self.config.layer.cross_attention
        cross_parts = [CrossAttentionCache() for _ in self.layer_kinds] if cross_attention else []
        return Cache([_part(kind.layer_type) for kind in self.layer_kinds], cross_parts)


def make_stack(config: StackConfig) -> nn.Module:
    """Returns the stack of the class that `config.positions` needs."""
    return (DisentangledStack if isinstance(config.positions, Disentangled) else Stack)(config)
