"""A stack of layers, and what all of them share during one forward."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from minitx.config import StackConfig
from minitx.layers.attention import AttentionContext, CrossAttention
from minitx.layers.cache import (
    Cache,
    CrossAttentionCache,
    DynamicCache,
    LayerCache,
    SlidingWindowCache,
    StaticCache,
)
from minitx.layers.layer import Layer
from minitx.layers.linear import Linear
from minitx.layers.masks import causal_window_mask, padding_mask, to_additive_mask
from minitx.layers.norm import Slot, dropout, identity, norm
from minitx.layers.positions import RelativeBias, alibi
from minitx.layers.recorder import Recorder
from minitx.layers.rotary import rotary_table

FULL, SLIDING = "full_attention", "sliding_attention"


def schedule(config: StackConfig) -> list[int]:
    """Which of the stack's own layers runs at each step: mostly 0, 1, 2, ..."""
    groups = config.num_hidden_groups
    return list(range(config.num_hidden_layers)) if groups is None else by_group(config, groups)


def by_group(config: StackConfig, groups: int) -> list[int]:
    """The schedule where groups share parameters (arXiv:1909.11942, section 3.1).

    The steps are dealt out evenly to the groups, and each step runs its group's `inner_group_num` layers.
    """
    steps = []
    for i in range(config.num_hidden_layers):
        group = i * groups // config.num_hidden_layers
        steps += [group * config.inner_group_num + k for k in range(config.inner_group_num)]
    return steps


class Stack(nn.Module):
    """`layers`, run in order, and the final norm where the last layer does not end in one."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.config = config
        self.schedule = schedule(config)
        self.owned = (config.num_hidden_groups or config.num_hidden_layers) * config.inner_group_num
        self.layers = nn.ModuleList(Layer(config, index) for index in range(self.owned))
        steps = len(self.schedule)
        types = config.layer_types or (FULL,) * steps
        turns = config.rope_layers or (True,) * steps
        tables = range(steps) if config.relative_bias_per_layer else (0,) * steps
        self.kinds = list(zip(types, turns, tables, strict=True))  # layers of one kind share a context
        self.relative_bias = relative_biases(config, len(set(tables)))
        self.layer_norm = norm(config, when=config.norm_placement != "post" and config.final_norm)
        self.dropout = dropout(config.final_dropout)
        self.projection: Slot = identity
        if config.output_size is not None:
            self.projection = Linear(config.hidden_size, config.output_size, bias=False)

    def forward(
        self,
        hidden: Tensor,
        mask: Tensor | None,
        position_ids: Tensor,
        cache: Cache | None = None,
        cross: AttentionContext | None = None,
        record: Recorder | None = None,
    ) -> Tensor:
        """Runs the layers.

        Args:
            hidden: (B, T, E).
            mask: (B, S) or (B, T, S), bool; S counts what is in the cache as well.
            position_ids: (1 or B, T).
            cache: what came before; each layer stores its keys and values there. Counting them is the
                caller's (`Cache.advance`).
            cross: what the layers share when they look at another text; None where they do not.
            record: collects hidden states and attention weights; None: nothing does.

        Returns:
            (B, T, E)
        """
        if len(self.layers) != self.owned:
            raise ValueError(
                f"the stack has {len(self.layers)} layers, its config says {self.owned}; make a model of "
                "another depth from a config that says so (minitx.from_config)."
            )
        parts = [None] * len(self.schedule) if cache is None else cache.layers
        attend = padding_mask(mask)
        contexts = {
            kind: self.context(*kind, hidden, attend, position_ids, cache, part)
            for kind, part in dict(zip(self.kinds, parts, strict=True)).items()
        }
        memories = [None] * len(parts) if cache is None or cross is None else cache.cross_attention
        if record is not None:
            record.begin(len(self.schedule))
        steps = zip(self.schedule, self.kinds, parts, memories, strict=True)
        for step, (index, kind, part, own) in enumerate(steps):
            context, across = contexts[kind], cross
            if record is not None:
                context, across = record.enter(step, hidden, context, cross, part)
            hidden = self.layers[index](hidden, context, part, across, own)
        hidden = self.projection(self.dropout(self.layer_norm(hidden)))
        if record is not None:
            record.leave(hidden)
        return hidden

    def remember(self, cache: Cache, memory: Tensor, mask: Tensor | None) -> None:
        """Stores the keys and values of another text in a cache, for the layers with cross-attention.

        Args:
            cache: without a memory so far.
            memory: (B', S', E), what an encoder made of it; each text serves as many rows of the batch.
            mask: (B', 1, 1, S'), bool.
        """
        made = []  # all of them before the cache gets any: where one fails, it stays as it was
        for index in self.schedule:
            attention = self.layers[index].get_submodule("cross_attention.self_attention")
            assert isinstance(attention, CrossAttention)
            made.append(CrossAttentionCache(*attention.keys_and_values(memory)))
        cache.cross_attention, cache.encoder_mask = made, mask

    def context(
        self,
        kind: str,
        turns: bool,
        table: int,
        hidden: Tensor,
        attend: Tensor | None,
        position_ids: Tensor,
        cache: Cache | None,
        part: LayerCache | None,
    ) -> AttentionContext:
        """The mask and position tables of one kind of layer.

        Args:
            kind: of the layer types.
            turns: whether its layers have rotary positions.
            table: which of the relative biases they have, if there are any.
            hidden: (B, T, E), for its sizes.
            attend: the padding mask (B, 1, 1 or T, S).
            position_ids: (1 or B, T).
            cache: what came before.
            part: the part of it of one of these layers.
        """
        config, time, device = self.config, hidden.shape[1], hidden.device
        past = 0 if cache is None else cache.length
        window = config.sliding_window if kind == SLIDING else None
        rotary = None
        if config.rope is not None and turns:
            rotary = rotary_table(config.rope[kind], position_ids, hidden.dtype)
        biased = config.alibi or self.relative_bias is not None
        bias = self.score_bias(table, attend, past, hidden) if biased else None

        columns = past + time if part is None else part.key_length(past, time)
        hides_later = config.causal and time > 1
        hides_far = window is not None and columns > window
        if attend is None and bias is None and past == 0 and hides_later and not hides_far:
            return AttentionContext(causal=True, rotary=rotary)
        if part is not None and attend is not None:
            attend = attend[..., part.key_positions(past, time, device)]
        if hides_later or hides_far:
            queries = torch.arange(past, past + time, device=device)
            keys = queries if part is None else part.key_positions(past, time, device)
            attend = causal_window_mask(attend, queries, keys, causal=config.causal, window=window)
        if bias is not None:
            attend = to_additive_mask(attend, bias)
        return AttentionContext(attend, rotary=rotary, past=past)

    def score_bias(self, table: int, attend: Tensor | None, past: int, hidden: Tensor) -> Tensor:
        """What is added to the scores for where their keys stand.

        Args:
            table: which of the relative biases.
            attend: the padding mask (B, 1, 1 or T, S).
            past: S - T.
            hidden: (B, T, E), for its size and type.

        Returns:
            (1 or B, H, 1 or T, S)
        """
        places = torch.arange(past + hidden.shape[1], device=hidden.device)
        if self.relative_bias is not None:
            bias = self.relative_bias[table]
            assert isinstance(bias, RelativeBias)
            return bias.scores(places[past:], places)
        if attend is None:
            positions = places[None, None, None]
        else:  # padding does not count, nor what a query does not see
            positions = (attend.long().cumsum(dim=-1) - 1).clamp(min=0)
        return alibi(self.config.num_attention_heads, positions, hidden.dtype)

    def make_cache(self, max_length: int | None = None, spare: int = 0) -> Cache:
        """An empty cache for this stack; `DecoderModel.make_cache` says more."""

        def part(kind: str) -> LayerCache:
            window = self.config.sliding_window if kind == SLIDING else None
            if window is not None and (max_length is None or window + spare < max_length):
                return SlidingWindowCache(window, window + spare)
            return DynamicCache() if max_length is None else StaticCache(max_length)

        memory = [CrossAttentionCache() for _ in self.kinds] if self.config.cross_attention else []
        return Cache([part(kind) for kind, *_ in self.kinds], memory)


def relative_biases(config: StackConfig, count: int) -> nn.ModuleList | None:
    """The tables of biases by distance, if there are any."""
    if not config.relative_attention_num_buckets:
        return None
    return nn.ModuleList(RelativeBias(config) for _ in range(count))
