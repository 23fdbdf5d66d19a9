"""Keys and values of the tokens that a decoder has processed, so that a decoding step costs one token's work.

A cache is passed to the model and returned; no module keeps one. Each layer has a part of one of four kinds:

    DynamicCache         grows at every step; the simplest
    StaticCache          room for a known number of tokens, filled in place; the fastest
    SlidingWindowCache   a ring buffer, for layers that attend to a window of the last tokens only
    Int8Cache            either of the first two in 8 bits; its keys and values are rounded

A layer with cross-attention has a `CrossAttentionCache` beside it: keys and values of the encoder output.

Only `Cache.length` defines how many positions are valid. A forward that fails half-way has stored tokens
after that, and the next one overwrites them, unless a ring buffer has lost tokens that it needs, which is an
error; cropping only makes the number smaller. Gradients flow through the first three kinds. While they are
recorded (outside of no_grad and inference_mode), the second and third copy their tensors before storing,
since a backward may need the old values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from minitx.layers.cache.cross_attention import CrossAttentionCache
from minitx.layers.cache.kv import LayerCache, SlidingWindowCache
from minitx.validation import (
    ArgumentValueError,
    check_indices,
    check_integer,
    check_tensor,
    values_unavailable,
)


class Cache:
    """Key/value cache of a whole decoder.

    Attributes:
        layers: one part per layer that runs.
        cross_attention: one part per layer with cross-attention; empty in a model without an encoder.
        encoder_mask: (B', 1, 1, S') bool, False at padding of the sources; None: no padding.
        length: number of tokens, padding included.
        high_water_mark: the most tokens that any forward has begun to store; a ring buffer has overwritten
            those that lie too far before it.
        mask: (B, length) bool, False at padding; None: no padding.
    """

    def __init__(
        self, layers: Sequence[LayerCache], cross_attention: Sequence[CrossAttentionCache] = ()
    ) -> None:
        self.layers = list(layers)
        self.cross_attention = list(cross_attention)
        self.encoder_mask: Tensor | None = None
        self.length = 0
        self.high_water_mark = 0
        self.mask: Tensor | None = None

    def __repr__(self) -> str:
        kinds = ", ".join(dict.fromkeys(type(layer).__name__ for layer in self.layers))
        return f"Cache({len(self.layers)} layers, {kinds}, length={self.length})"

    @property
    def batch(self) -> int | None:
        """B, the number of rows; None while no tokens are stored."""
        key = self.layers[0].key
        return None if key is None or not self.length else key.shape[0]

    @property
    def num_sources(self) -> int:
        """B', the number of sources, each of which serves B / B' rows; 0 without encoder output."""
        key = self.cross_attention[0].key if self.cross_attention else None
        return 0 if key is None else key.shape[0]

    # --- use in a forward ------------------------------------------------------------------------------

    def check(self, mask: Tensor | None, shape: tuple[int, ...], prefix: str = "") -> None:
        """Checks that tokens of this shape and mask can follow those in the cache.

        Args:
            mask: (B, T) of the new tokens, or (B, T, S) of all keys, S = length + T; or None.
            shape: (B, T).
            prefix: of the names in messages, "decoder_" in an encoder-decoder.

        Raises:
            ArgumentTypeError: a mask that is not a tensor.
            ArgumentValueError: a mask of another shape, or a cache of another batch size.
            ValueError: a cache that has lost tokens.
        """
        for layer in self.layers:  # a forward that failed may have overwritten tokens that this one needs
            layer.check_crop(self.length, self.high_water_mark)
        if self.batch not in (None, shape[0]):
            expected = f"of a batch of {shape[0]} like {prefix}input_ids, not of {self.batch}"
            raise ArgumentValueError("cache", self, expected)
        if self.num_sources and shape[0] % self.num_sources:
            expected = f"of a number of sources that divides the {shape[0]} rows of {prefix}input_ids"
            hint = f"it holds {self.num_sources}, and each has the same number of rows"
            raise ArgumentValueError("cache", self, expected, hint)
        if mask is None:
            return
        given = tuple(check_tensor(f"{prefix}attention_mask", mask).shape)
        per_query = self.length > 0 and given == (*shape, self.length + shape[1])
        if given != shape and not per_query:
            raise ArgumentValueError(
                f"{prefix}attention_mask",
                mask,
                f"of shape (batch, time) = {shape} like {prefix}input_ids, not {given}",
                "with a cache it covers the new tokens alone, the cache has the mask of the earlier ones",
            )

    def full_mask(self, mask: Tensor | None, shape: tuple[int, ...], device: torch.device) -> Tensor | None:
        """Returns the mask of all keys, earlier and new.

        Args:
            mask: (B, T) bool of the new tokens, or (B, T, S) of all keys, which is returned; or None.
            shape: of the new tokens.
            device: of the result.

        Returns:
            (B, S) or (B, T, S) bool with S = length + T; None if there is no padding.
        """
        if mask is not None and mask.dim() == 3:
            return mask
        if self.mask is None and (mask is None or (not values_unavailable(mask) and bool(mask.all()))):
            return None
        real = torch.ones(shape[0], self.length + shape[1], dtype=torch.bool, device=device)
        past = real[:, : self.length] if self.mask is None else self.mask
        return torch.cat((past, real[:, self.length :] if mask is None else mask), dim=1)

    def reserve(self, time: int) -> None:
        """Notes that `time` tokens are about to be stored after the valid ones."""
        self.high_water_mark = max(self.high_water_mark, self.length + time) if self.length else time

    def advance(self, mask: Tensor | None, time: int) -> None:
        """Makes tokens valid that every layer has stored.

        Args:
            mask: (B, S) or (B, T, S) bool, the result of `full_mask`.
            time: number of the tokens.
        """
        if mask is not None and mask.dim() == 3:  # which tokens attend to which; none of them is padding
            mask = self.full_mask(None, tuple(mask.shape[:2]), mask.device)
        self.length += time
        self.mask = mask

    def rollback(self, time: int) -> None:
        """Makes the last `time` tokens invalid. `check` finds if a ring buffer still has those before."""
        self.length -= time
        if self.mask is not None:
            self.mask = self.mask[:, : self.length] if self.length else None

    def clear_cross_attention(self) -> None:
        """Drops the keys and values of the encoder output, as after a forward that failed."""
        self.cross_attention = [CrossAttentionCache() for _ in self.cross_attention]
        self.encoder_mask = None

    # --- use between forwards --------------------------------------------------------------------------

    def crop(self, length: int) -> Cache:
        """Keeps the first `length` tokens only. Changes this cache and returns it; so do the methods below.

        Raises:
            ArgumentTypeError: not an integer.
            ArgumentValueError: more tokens than there are.
            ValueError: so few that a ring buffer has lost some it needs.
        """
        length = check_integer("length", length, hint="the number of tokens to keep")
        if length > self.length:
            raise ArgumentValueError(
                "length", length, f"at most {self.length}, the tokens that the cache holds"
            )
        if length < self.length:
            for layer in self.layers:
                layer.check_crop(length, self.high_water_mark)
        self.rollback(self.length - length)
        return self

    def keep(self, kept: Tensor) -> Cache:
        """Keeps these tokens of each row, as after a tree of which one path was chosen.

        Rows that keep fewer tokens than others are padded on the left, so that later ones need positions.

        Args:
            kept: (B, length) bool.

        Raises:
            ArgumentTypeError: not a tensor.
            ArgumentValueError: of another shape or dtype, or of nothing but False.
            ValueError: layers with a ring buffer, which has no place for each token.
        """
        check_tensor("kept", kept)
        if tuple(kept.shape) != (self.batch, self.length) or kept.dtype != torch.bool:
            expected = f"a torch.bool tensor of shape {(self.batch, self.length)}, not {tuple(kept.shape)}"
            raise ArgumentValueError("kept", kept, expected)
        if any(isinstance(layer, SlidingWindowCache) for layer in self.layers):
            raise ValueError("a ring buffer has no place for each token; leave the window to the mask.")
        counts = kept.sum(dim=1)
        length = int(counts.max())
        if length == 0:
            raise ArgumentValueError("kept", kept, "at least one token of a row")
        slots = kept.long().argsort(dim=1, stable=True)[:, -length:]  # those that are kept come last
        places = torch.arange(length, device=kept.device)
        real = places >= (length - counts)[:, None]
        moved = ((slots != places) & real).any(dim=0)
        first = int(moved.long().argmax()) if bool(moved.any()) else length
        for layer in self.layers if first < length else ():
            _keep(layer, slots[:, first:], first)
        self.length, self.mask = length, None if bool(real.all()) else real
        return self

    def crop_rows(self, removed: Sequence[int], *, trim: bool = False) -> Cache:
        """Removes another number of last tokens from each row; all rows then end at the same position.

        Rows that lose more than others move to the right, as if they had been padded on the left, so that
        later tokens need explicit positions. Each row that moves is copied.

        Args:
            removed: one number per row, at most its number of tokens.
            trim: also remove the positions at the start that are padding in every row, which moves all rows.

        Raises:
            ArgumentValueError: not one number per row, or more tokens than there are.
            ValueError: so many that a ring buffer has lost some it needs. The cache stays as it was.
        """
        key = self.layers[0].key
        if key is None or len(removed) != self.batch or min(removed) < 0 or max(removed) > self.length:
            expected = f"numbers from 0 to {self.length}, one for each of the {self.batch} rows"
            raise ArgumentValueError("removed", removed, expected)
        for layer in self.layers if max(removed) else ():
            layer.check_crop(self.length - max(removed), self.high_water_mark)
        ends = [self.length - count for count in removed]
        mask = torch.ones_like(key[:, 0, :1, 0], dtype=torch.bool) if self.mask is None else self.mask
        mask, starts = mask.expand(-1, self.length), [0] * len(ends)
        if trim:
            starts = (~mask).long().cumprod(dim=1).sum(dim=1).tolist()
        length = max(end - start for end, start in zip(ends, starts, strict=True)) if trim else max(ends)
        steps = [end - length for end in ends]
        if any(steps):
            for layer in self.layers:
                layer.shift(steps, length, self.high_water_mark)
            places = torch.arange(length, device=key.device) + torch.tensor(steps, device=key.device)[:, None]
            mask = mask.gather(1, places.clamp(min=0)) & (places >= 0)
            self.mask = None if bool(mask.all()) else mask
            self.high_water_mark -= min(steps)
        self.rollback(self.length - length)
        return self

    def select(self, rows: Tensor) -> Cache:
        """Selects rows of the batch, each any number of times, in this order; sources are selected with them.

        Args:
            rows: (N,) long.

        Raises:
            ArgumentTypeError: not a tensor.
            ArgumentValueError: no rows, or indices outside of the batch.
        """
        check_tensor("rows", rows)
        if rows.dim() != 1 or len(rows) == 0:
            expected = f"a tensor of shape (rows,) with at least one index, not of shape {tuple(rows.shape)}"
            raise ArgumentValueError("rows", rows, expected)
        count = self.batch or self.num_sources  # before the first token, rows are sources
        if not count:
            return self
        check_indices("rows", rows, count, "the cache holds that many rows")
        if self.num_sources:
            sources = _source_indices(rows, count // self.num_sources)
            _select(self.cross_attention, sources)
            if self.encoder_mask is not None:
                self.encoder_mask = self.encoder_mask.index_select(0, sources)
        return self.reorder(rows)

    def reorder(self, rows: Tensor) -> Cache:
        """Reorders beams within each source; the cross-attention cache is shared per source and not touched.

        Args:
            rows: (N,) long, the same number for each source; not checked.
        """
        _select(self.layers, rows, self.length)
        self.mask = None if self.mask is None else self.mask.index_select(0, rows)
        return self

    def repeat(self, times: int) -> Cache:
        """Repeats every row `times` times, its copies next to each other: several samples of one prompt.

        Raises:
            ArgumentTypeError, ArgumentValueError: not an integer of at least 1.
        """
        times, batch = check_integer("times", times, 1, hint="the number of copies of each row"), self.batch
        if times == 1 or batch is None:
            return self
        device = self.layers[0].key.device  # type: ignore[union-attr]
        return self.reorder(torch.arange(batch, device=device).repeat_interleave(times))


def _source_indices(rows: Tensor, per_source: int) -> Tensor:
    """Maps batch rows to source indices.

    Returns one index per source if every group of `per_source` rows still belongs to one source, else one
    per row.
    """
    sources = rows // per_source
    if len(sources) % per_source == 0:
        groups = sources.view(-1, per_source)
        if bool((groups == groups[:, :1]).all()):
            return groups[:, 0]
    return sources


def _keep(layer: LayerCache, slots: Tensor, first: int) -> None:
    """Moves the tokens at `slots` (B, N) to the places from `first` on."""
    end = first + slots.shape[1]
    for name in layer.tensors:
        stored: Tensor = getattr(layer, name)
        index = slots[:, None, :, None].expand(-1, stored.shape[1], -1, stored.shape[3])
        chosen = stored.gather(2, index)
        if getattr(layer, "max_length", None) is not None:
            stored[:, :, first:end] = chosen
        else:
            setattr(layer, name, torch.cat((stored[:, :, :first], chosen), dim=2))


def _select(
    parts: Sequence[LayerCache | CrossAttentionCache], rows: Tensor, length: int | None = None
) -> None:
    """Selects batch rows of each part, in place through one scratch buffer.

    Falls back to `index_select` where autograd may need the old values or the batch size changes.

    Args:
        parts: caches of all layers.
        rows: (N,) long.
        length: number of valid tokens; None: all slots.
    """
    scratches: dict[tuple[torch.Size, torch.dtype], Tensor] = {}
    for part in parts:
        if part.key is None or part.value is None:
            continue
        in_place = (
            torch.is_inference_mode_enabled() and part.key.is_inference() and len(rows) == len(part.key)
        )
        for name in part.tensors:
            stored: Tensor = getattr(part, name)
            if not in_place:
                setattr(part, name, stored.index_select(0, rows))
                continue
            if (kind := (stored.shape, stored.dtype)) not in scratches:
                scratches[kind] = torch.empty_like(stored)
            scratch = scratches[kind]
            valid, moved = stored[:, :, :length], scratch[:, :, :length]
            valid.copy_(torch.index_select(valid, 0, rows, out=moved))
