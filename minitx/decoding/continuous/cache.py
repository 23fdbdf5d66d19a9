"""The keys and values of rows that join and leave a running batch.

Every row ends at the same slot of one buffer per layer, as if it had been padded on the left, so that a
forward sees an ordinary `Cache` with a mask:

    slot      0 1 2 3 4 5 6 7 8 9
    row 0     . . a b c d e . . .     the cache views slots 2 to 6 of rows 0 and 1,
    row 1     . . . . f g h . . .     and its mask is False at slots 2 and 3 of row 1

A row that joins is written to the next free row, up to the slot where the others end. When one leaves, the
last row takes its place. The view begins where the longest row does, so nothing moves when that row leaves.

R rows, K heads, D features of a head, L tokens of the longest row, S tokens of the longest source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from minitx.layers.cache import Cache, CrossAttentionCache, DynamicCache, Int8Cache, LayerCache, StaticCache
from minitx.models.decoder import CausalModel

# Slots beyond the longest row. At most once in so many steps all rows are moved back to the left.
SPARE = 128


def growing_cache(model: CausalModel, dtype: torch.dtype | None) -> Cache:
    """Returns an empty cache for a prefill, whose layers keep all tokens, those outside of a window too.

    Args:
        model: that runs it.
        dtype: as for `make_cache`.
    """
    steps, kind = model.decoder.layer_order, DynamicCache if dtype is None else Int8Cache
    cross = [CrossAttentionCache() for _ in steps] if model.config.stack.layer.cross_attention else []
    return Cache([kind() for _ in steps], cross)


class RowsLayer(StaticCache):
    """Keys and values of one layer, which are views of a `RowsCache`.

    It has a class of its own since a step with buffers would move a `StaticCache` there, and the tokens that
    it stores would be missing here.
    """


class RowsCache:
    """Buffers for the rows of a running batch, and a `Cache` that views those in use.

    Args:
        model: whose keys and values they are.
        rows: R, the most rows at once.
        longest_prompt: the most tokens with which a row joins.
        longest: the most tokens that a row gets.
        longest_source: S, the most tokens of an encoder input; 0 without an encoder.
        dtype: of keys and values; None for the model's.

    Attributes:
        cache: for the forwards; `advance` after each.
        lengths: the number of tokens of each row.
        sources: the number of source tokens of each row; empty without an encoder.
    """

    def __init__(
        self,
        model: CausalModel,
        rows: int,
        longest_prompt: int,
        longest: int,
        longest_source: int = 0,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.cache = growing_cache(model, dtype)
        kind = RowsLayer if dtype is None else Int8Cache
        self.cache.layers = [kind(longest) for _ in self.cache.layers]
        self.lengths, self.sources = list[int](), list[int]()
        self._rows, self._slots = rows, min(2 * longest_prompt, longest) + SPARE
        self._longest_prompt, self._longest, self._longest_source = longest_prompt, longest, longest_source
        self._end = longest_prompt  # the slot after the last token of every row
        self._buffers: list[list[Tensor]] = []  # per layer keys, values and scales, (R, K, slots, D or 1)
        self._cross: list[list[Tensor]] = []  # (R, K, S, D)

    def join(self, prefill: Cache, lengths: Sequence[int], sources: Sequence[int] = ()) -> None:
        """Adds rows that a prefill has filled.

        Args:
            prefill: of rows padded on the left, and their sources, padded on the right.
            lengths: the number of tokens of each of its rows.
            sources: the number of source tokens of each; none without an encoder.
        """
        if not self._buffers:
            self._buffers = [self._allocate(layer, self._slots) for layer in prefill.layers]
            self._cross = [self._allocate(part, self._longest_source) for part in prefill.cross_attention]
        for number, length in enumerate(lengths):
            self._write(prefill, number, len(self.lengths), length)
            if sources:
                for part, buffers in zip(prefill.cross_attention, self._cross, strict=True):
                    for buffer, new in zip(buffers, part.recall(), strict=True):
                        buffer[len(self.lengths), :, : sources[number]] = new[number, :, : sources[number]]
                self.sources.append(sources[number])
            self.lengths.append(length)
        self._view()

    def replace(self, row: int, prefill: Cache, length: int) -> None:
        """Writes all tokens of one row anew, from the only row of a prefill."""
        self._write(prefill, 0, row, length)
        self.lengths[row] = length
        self._view()

    def copy_source(self, row: int, cache: Cache) -> None:
        """Gives the encoder output of a row, if there is one, to a cache of this row alone."""
        if self.sources:
            parts, mask = self.cache.cross_attention, self.cache.encoder_mask
            cache.cross_attention = [CrossAttentionCache(*(x[row, None] for x in p.recall())) for p in parts]
            cache.encoder_mask = None if mask is None else mask[row, None]

    def keep(self, rows: Sequence[int]) -> None:
        """Keeps these rows. Row i of them moves to place i, which is free: i is rows[i], or is left out."""
        for to, row in enumerate(rows):
            if to == row:
                continue
            start = self._end - self.lengths[row]
            for buffer in (x for buffers in self._buffers for x in buffers):
                buffer[to, :, start : self._end] = buffer[row, :, start : self._end]
            for buffer in (x for buffers in self._cross for x in buffers):
                buffer[to] = buffer[row]
        self.lengths = [self.lengths[row] for row in rows]
        self.sources = [self.sources[row] for row in rows] if self.sources else []
        self._view()

    def make_room(self) -> None:
        """Makes sure that one more token per row can be stored: moves rows back, or doubles the room."""
        if self._end < self._slots:
            return
        longest = max(self.lengths)
        end = max(longest, self._longest_prompt)
        self._slots = max(self._slots, min(2 * end, self._longest) + SPARE)
        for buffers in self._buffers:
            if self._slots > buffers[0].shape[2]:
                buffers[:] = [nn.functional.pad(x, (0, 0, 0, self._slots - x.shape[2])) for x in buffers]
            for buffer in buffers:
                used = buffer[: len(self.lengths)]
                used[:, :, end - longest : end] = used[:, :, self._end - longest : self._end].clone()
        self._end = end
        self._view()

    def advance(self) -> None:
        """Counts a token that a forward has stored in every row."""
        self._end += 1
        self.lengths = [length + 1 for length in self.lengths]

    def _allocate(self, part: LayerCache | CrossAttentionCache, slots: int) -> list[Tensor]:
        """Returns room for the keys and values of all rows; zeros, since masked values must be finite."""
        tensors: list[Tensor] = [getattr(part, name) for name in part.tensors]
        return [x.new_zeros((self._rows, x.shape[1], slots, x.shape[3])) for x in tensors]

    def _write(self, prefill: Cache, number: int, row: int, length: int) -> None:
        """Copies the last `length` tokens of a row of a prefill to a row of the buffers."""
        start = prefill.length - length
        for layer, buffers in zip(prefill.layers, self._buffers, strict=True):
            for name, buffer in zip(layer.tensors, buffers, strict=True):
                new = getattr(layer, name)[number, :, start : prefill.length]
                buffer[row, :, self._end - length : self._end] = new

    def _view(self) -> None:
        """Lets the cache view the rows and slots in use."""
        count, cache, length = len(self.lengths), self.cache, max(self.lengths, default=0)
        start = self._end - length
        layer: Any
        for layer, buffers in zip(cache.layers, self._buffers, strict=True):
            vars(layer).update(zip(layer.tensors, (x[:count, :, start:] for x in buffers), strict=True))
            layer.max_length = self._slots - start
        cache.length = cache.high_water_mark = length
        device = self._buffers[0][0].device
        real = torch.arange(-length, 0, device=device) >= -torch.tensor(self.lengths, device=device)[:, None]
        cache.mask = None if bool(real.all()) else real
        if self.sources:
            longest = max(self.sources)
            for part, buffers in zip(cache.cross_attention, self._cross, strict=True):
                part.key, part.value = (buffer[:count, :, :longest] for buffer in buffers)
            known = torch.arange(longest, device=device) < torch.tensor(self.sources, device=device)[:, None]
            cache.encoder_mask = None if bool(known.all()) else known[:, None, None]
