"""A decoding step over buffers that never change their shape or address, as a CUDA graph needs them.

A plain step attends to slices of the cache that grow by a token at a time. This one attends to all slots, or
to the first ones of each layer without a window, and a mask leaves out those that are empty; where the step
stands is a number on the device. Its results are those of the plain step up to the rounding of other kernels.

B rows, K key heads, S slots, D features of a head, H heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from operator import attrgetter, is_, methodcaller
from threading import get_ident
from types import SimpleNamespace
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn

from minitx.config import RelativeBias
from minitx.config.model import SLIDING
from minitx.layers.attention import AttentionContext
from minitx.layers.cache import Cache, LayerCache, SlidingWindowCache, StaticCache
from minitx.layers.experts import FEW_TOKENS, MixtureOfExperts
from minitx.layers.masks import to_additive_mask
from minitx.layers.positions import alibi
from minitx.layers.stack import LayerKind
from minitx.optimize.classes import HOOKS, TracksWeight, all_modules, has_global_hooks

_ADDRESS, _DTYPE, _WRITES = methodcaller("data_ptr"), attrgetter("dtype"), attrgetter("_version")
SLOTS = 256  # the slots of a cache are a multiple of this, so that calls of similar lengths share a step


class NotCompiledError(Exception):
    """A step cannot be compiled; the plain model computes it."""


class FixedPart:
    """Keys and values of one layer, with a slot for the next token that is known to the device alone.

    Args:
        key: (B, K, S, D), of finite numbers: an empty slot has the weight 0, and 0 times NaN is NaN.
        value: likewise.
        past: (), the number of tokens that are stored; the step changes it.
        is_ring: the last tokens are kept, token p in slot p % S.
    """

    def __init__(self, key: Tensor, value: Tensor, past: Tensor, *, is_ring: bool) -> None:
        self.key, self.value, self.past, self.is_ring = key, value, past, is_ring

    @property
    def slots(self) -> int:
        """S."""
        return self.key.shape[2]

    def append(self, key: Tensor, value: Tensor, attended: int) -> tuple[Tensor, Tensor]:
        """Stores one token; returns the slots to attend to: twice (B, K, 1, D) -> twice (B, K, S', D).

        Args:
            key: (B, K, 1, D)
            value: (B, K, 1, D)
            attended: S', the number of slots to attend to; 0, and in a ring: all.
        """
        slot = (self.past % self.slots if self.is_ring else self.past).reshape(1)
        self.key.index_copy_(2, slot, key)
        self.value.index_copy_(2, slot, value)
        if self.is_ring or not attended:
            return self.key, self.value
        return self.key.narrow(2, 0, attended), self.value.narrow(2, 0, attended)

    def positions(self, attended: int) -> Tensor:
        """Returns the position of the token in each slot to attend to; (S',) long.

        It is negative or beyond that of the token of this step where a slot is empty.

        Args:
            attended: as for `append`.
        """
        past = self.past
        if self.is_ring:
            return past - (past - torch.arange(self.slots, device=past.device)) % self.slots
        return torch.arange(attended or self.slots, device=past.device)


class StaticStep:
    """One step of a decoder for a number of rows and of slots; computes it as it is, without a graph.

    Args:
        model: one that predicts the next token.
        cache: of the first generation that it serves; others of the same sizes may follow.
        sizes: of `sizes_of`.
    """

    serves_encoder_decoders = True
    serves_experts = True
    serves_views = False

    def __init__(self, model: Any, cache: Cache, sizes: Sequence[int]) -> None:
        first = cache.layers[0].key
        assert first is not None, "`sizes_of` finds caches with tokens alone"
        self.past = torch.zeros((), dtype=torch.long, device=first.device)
        self.parts = [self.part(layer, size) for layer, size in zip(cache.layers, sizes, strict=True)]
        self.allocate(len(first), max(sizes))
        self.stored: Any = SimpleNamespace(layers=self.parts, cross_attention=[])  # what a stack reads
        self.encoder_mask: Tensor | None = None
        self.owner: ReferenceType[Cache] | None = None
        self.thread = get_ident()  # which took the last step

    def allocate(self, batch: int, slots: int) -> None:
        """Allocates what a step reads beside keys and values.

        Args:
            batch: B
            slots: of the largest layer.
        """
        self.ids = self.past.new_zeros((batch, 1))
        self.position_ids = torch.zeros_like(self.ids)
        self.real = torch.ones(batch, slots, dtype=torch.bool, device=self.past.device)

    @staticmethod
    def key(batch: int, sizes: Sequence[int]) -> tuple[int, ...]:
        """Returns by what `Steps` finds a step for a number of rows and sizes of the layers."""
        return batch, *sizes

    def part(self, layer: LayerCache, size: int) -> FixedPart:
        """Returns buffers for the keys and values of a layer.

        Args:
            layer: of a cache.
            size: number of slots.
        """
        assert layer.key is not None, "`sizes_of` finds caches with tokens alone"
        rows, heads, _, features = layer.key.shape
        key, value = (layer.key.new_zeros((rows, heads, size, features)) for _ in range(2))
        return FixedPart(key, value, self.past, is_ring=isinstance(layer, SlidingWindowCache))

    def adopt(self, cache: Cache) -> None:
        """Moves keys and values of a cache into the buffers; the cache that had them gets copies."""
        if self.holds(cache):
            return
        before = None if self.owner is None else self.owner()
        for layer, part in zip([] if before is None else before.layers, self.parts, strict=False):
            if layer.key is part.key and before is not cache:
                layer.key, layer.value = part.key.clone(), part.value.clone()
        for layer, part in zip(cache.layers, self.parts, strict=True):
            assert layer.key is not None
            assert layer.value is not None
            if layer.key is part.key:
                continue
            # Slots beyond were never filled: they may hold NaN.
            used = min(cache.high_water_mark, part.slots) if part.is_ring else cache.length
            part.key[:, :, :used] = layer.key[:, :, :used]
            part.value[:, :, :used] = layer.value[:, :, :used]
            layer.key, layer.value = part.key, part.value
        self.owner = ref(cache)

    def holds(self, cache: Cache) -> bool:
        """Whether keys and values of a cache are in the buffers."""
        owner = None if self.owner is None else self.owner()
        return owner is cache and all(
            layer.key is part.key and layer.value is part.value
            for layer, part in zip(cache.layers, self.parts, strict=True)
        )

    def can_run(self, cache: Cache, built: Built) -> bool:
        """Whether the step can compute the next token of a cache.

        Args:
            cache: of the rows.
            built: the parts of the model.
        """
        autocast = torch.is_autocast_enabled(self.past.device.type)  # code and graphs are those without it
        return not autocast and (len(self.ids) <= FEW_TOKENS or not built.has_experts)

    def is_free(self) -> bool:
        """Whether this thread may move the cache in the buffers out of them; no other thread uses it."""
        return self.owner is None or self.owner() is None or self.thread == get_ident()

    def __call__(self, model: Any, ids: Tensor, position_ids: Tensor | None, cache: Cache) -> Any:
        """Runs a step, and advances the cache.

        Args:
            model: the one that it was made for.
            ids: (B, 1).
            position_ids: (1 or B, 1); None: the number of tokens in the cache.
            cache: of the rows.

        Returns:
            A `ModelOutput` with hidden states (B, 1, E) and logits (B, 1, V).
        """
        self.thread = get_ident()
        self.adopt(cache)
        real = cache.full_mask(None, tuple(ids.shape), ids.device)
        if real is None:
            self.real.fill_(True)
        else:
            self.real[:, : real.shape[1]] = real
        self.stored.cross_attention, self.encoder_mask = cache.cross_attention, cache.encoder_mask
        self.ids.copy_(ids)
        self.past.fill_(cache.length)
        if position_ids is None:
            self.position_ids.fill_(cache.length)
        else:
            self.position_ids.copy_(position_ids.expand_as(self.position_ids))
        cache.reserve(1)
        output = self.run(model, cache.length)
        cache.advance(real, 1)
        return output._replace(cache=cache)

    def run(self, model: Any, length: int) -> Any:
        """Computes the step in the buffers.

        Args:
            model: the one that it was made for.
            length: number of tokens in the cache.
        """
        return self.compute(model)

    def compute(self, model: Any, attended: int = 0) -> Any:
        """Computes hidden states and logits of the tokens in the buffers; stores their keys and values.

        Args:
            model: the one that it was made for.
            attended: number of slots that layers without a window attend to; 0: all.
        """
        stack = model.decoder
        hidden = model.decoder_embedder(self.ids, None, self.position_ids)
        contexts = {kind: self.context(model, kind, hidden, attended) for kind in {*stack.layer_kinds}}
        cross = AttentionContext(self.encoder_mask) if self.stored.cross_attention else None
        hidden = stack.run_layers(hidden, contexts, self.stored, cross, None)
        if not stack.ends_with_a_layer:
            hidden = stack.projection(stack.dropout(stack.layer_norm(hidden)))
        return model.result(hidden, None)

    def context(self, model: Any, kind: LayerKind, hidden: Tensor, attended: int) -> AttentionContext:
        """Returns mask and positions for one kind of layer.

        Args:
            model: the model.
            kind: of the layer.
            hidden: (B, 1, E), for its dtype.
            attended: as for `compute`.
        """
        stack, past = model.decoder, self.past
        part = self.parts[stack.layer_kinds.index(kind)]
        places = part.positions(attended)  # (S',)
        attend = (places >= 0) & (places <= past)
        if kind.layer_type == SLIDING and stack.config.sliding_window is not None:
            attend = attend & (places > past - stack.config.sliding_window)
        attend = attend & self.real[:, places.clamp(min=0, max=self.real.shape[1] - 1)]  # (B, S')
        mask = attend[:, None, None]
        if stack.has_score_bias:
            mask = to_additive_mask(mask, self.score_bias(stack, kind, mask, places, hidden.dtype))
        rotary = stack.rotary(kind, self.position_ids, hidden.dtype) if kind.uses_rope else None
        return AttentionContext(mask, rotary=rotary, past=attended)

    def score_bias(
        self, stack: Any, kind: LayerKind, attend: Tensor, places: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """Returns the position bias of the scores.

        Args:
            stack: of the model.
            kind: of the layer.
            attend: (B, 1, 1, S'), True = attend.
            places: (S',) long, the position of each slot.
            dtype: of the result.

        Returns:
            (1 or B, H, 1, S')
        """
        if isinstance(stack.config.positions, RelativeBias):
            bias: Tensor = stack.relative_bias[kind.bias_table].scores(self.past.reshape(1), places)
            return bias
        counted = (attend.long().cumsum(dim=-1) - 1).clamp(min=0)
        return alibi(stack.config.layer.attention.num_attention_heads, counted, dtype)


class GraphStep(StaticStep):
    """A step that is recorded as a CUDA graph when it first runs, and replayed from then on."""

    serves_encoder_decoders = False  # the keys and values of each source would have addresses of their own
    graph: Any = None
    output: Any = None

    def run(self, model: Any, length: int) -> Any:
        """Replays the step, which attends to all slots."""
        if self.graph is None:
            self.record(model)
        self.graph.replay()
        hidden, logits = self.output.last_hidden_state, self.output.logits  # the next step writes there
        return self.output._replace(last_hidden_state=hidden.clone(), logits=logits.clone())

    def record(self, model: Any) -> None:
        """Records the step; runs it before, as the first run of a kernel may allocate or wait.

        To run it again changes nothing: it stores the same keys and values in the same slot.
        """
        stream: Any = torch.cuda.Stream(self.ids.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self.ids.device))
        with torch.cuda.stream(stream):
            for _ in range(2):
                self.compute(model)
        torch.cuda.current_stream(self.ids.device).wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        # Without these two, it would record on the current device, and on that of the first graph.
        with torch.cuda.device(self.ids.device), torch.cuda.graph(self.graph, stream=stream):
            self.output = self.compute(model)


def sizes_of(cache: Cache, *, views: bool = False) -> tuple[int, ...] | None:
    """Returns the slots of each layer of a step that can serve a cache; None if no step can.

    Args:
        cache: with tokens.
        views: whether its tensors may be parts of larger ones; a step then leaves them to the cache.
    """
    sizes = []
    for layer in cache.layers:
        if layer.key is None or layer.value is None:
            return None
        if type(layer) is StaticCache or (views and isinstance(layer, StaticCache)):
            if cache.length >= layer.max_length:  # the plain step tells so
                return None
            sizes.append(-(-layer.max_length // SLOTS) * SLOTS)
        elif type(layer) is SlidingWindowCache:
            sizes.append(layer.size)
        else:
            return None
    # Masks are looked up by positions, for which a layer without a window has a slot each.
    has_all = any(isinstance(layer, StaticCache) for layer in cache.layers)
    return tuple(sizes) if has_all or cache.mask is None else None


class Built:
    """The parts of a model, on which steps that were recorded or compiled depend.

    Made to be asked at every step: modules and parameters are in flat lists, which `map` compares without a
    line of Python for each.

    Args:
        model: any module.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules = [*all_modules(model)]
        self.classes = [*map(type, self.modules)]
        self.attributes = [m.__dict__ for m in self.modules]
        self.attention = [own.get("backend") for own in self.attributes]
        self.backends = {*self.attention} - {None}
        self.children = _Entries(m._modules for m in self.modules)
        self.parameters = _Entries(m._parameters for m in self.modules)
        weights = [(m, p) for m in self.modules for p in m._parameters.values() if p is not None]
        self.weights = [p for _, p in weights]
        self.addresses, self.dtypes = [*map(_ADDRESS, self.weights)], [*map(_DTYPE, self.weights)]
        self.counted = [p for m, p in weights if isinstance(m, TracksWeight) and not p.is_inference()]
        self.writes = [*map(_WRITES, self.counted)]
        self.has_experts = any(isinstance(m, MixtureOfExperts) for m in self.modules)

    def is_current(self) -> bool:
        """Whether classes, submodules, attention and parameters are the same; int8 weights unwritten, too."""
        return (
            all(map(is_, map(type, self.modules), self.classes))
            and all(map(is_, map(dict.get, self.attributes, repeat("backend")), self.attention))
            and self.children.are_current()
            and self.parameters.are_current()
            and [*map(_ADDRESS, self.weights)] == self.addresses
            and [*map(_DTYPE, self.weights)] == self.dtypes
            and [*map(_WRITES, self.counted)] == self.writes
        )

    def is_watched(self) -> bool:
        """Whether a part has hooks or another forward, which steps would not call, or trains."""
        parts = self.attributes[1:]  # the model itself is called around a step
        names = (*HOOKS, "forward", "training")
        return has_global_hooks() or any(any(map(dict.get, parts, repeat(name))) for name in names)


class _Entries:
    """The entries of several dictionaries.

    Args:
        dictionaries: of modules.
    """

    def __init__(self, dictionaries: Iterable[dict[str, Any]]) -> None:
        entries = [(own, name, value) for own in dictionaries for name, value in own.items()]
        self.dictionaries, self.names = [own for own, _, _ in entries], [name for _, name, _ in entries]
        self.values = [value for _, _, value in entries]

    def are_current(self) -> bool:
        """Whether the dictionaries have the same values."""
        return all(map(is_, map(dict.get, self.dictionaries, self.names), self.values))
