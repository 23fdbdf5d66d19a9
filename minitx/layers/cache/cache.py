"""Keys and values of the tokens that a decoder has seen, so that the next token costs one token's work.

A cache is passed to the model and handed back; no module keeps one. Each layer's part is one of three:

    Dynamic   a longer tensor at every step; the simplest
    Static    room for a known number of tokens, written in place; the fastest
    Sliding   a ring of the last tokens, for layers that see no further than a window

Beside it, a layer with cross-attention has a `Memory`: the keys and values of the text that an encoder read.

Only `Cache.length` says how much of it counts. A forward that fails half-way has written beyond that, and
the next one writes over it, unless a ring has lost what it needs, which is an error; to go back (`crop`) is
to make the number smaller. Gradients go through all three; where they are recorded (not under no_grad or
inference_mode) the last two copy what they hold before they write, since a backward may need it as it was.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from minitx.layers.cache.cross_attention import CrossAttentionCache
from minitx.layers.cache.kv import LayerCache
from minitx.validation import check_indices, check_integer, check_tensor, check_token_ids, values_unavailable


class Cache:
    """Everything a decoder has seen, for every layer.

    Attributes:
        layers: one part per layer that runs.
        memory: one more per layer with cross-attention.
        memory_mask: (B', 1, 1, S') bool, False at that text's padding; None where there was none.
        length: tokens seen, padding counted.
        seen: the most tokens that any forward has begun to store.
        mask: (B, length) bool, False at padding; None where there was none.
    """

    def __init__(self, layers: Sequence[LayerCache], memory: Sequence[CrossAttentionCache] = ()) -> None:
        self.layers = list(layers)
        self.memory = list(memory)
        self.memory_mask: Tensor | None = None
        self.length = 0
        self.seen = 0  # the longest it has been; a ring has overwritten what lies too far behind it
        self.mask: Tensor | None = None

    def __repr__(self) -> str:
        kinds = ", ".join(dict.fromkeys(type(layer).__name__ for layer in self.layers))
        return f"Cache({len(self.layers)} layers, {kinds}, length={self.length})"

    @property
    def batch(self) -> int | None:
        """B; None while it is empty."""
        key = self.layers[0].key
        return None if key is None or not self.length else key.shape[0]

    def check(self, mask: Tensor | None, input_ids: Tensor) -> None:
        """
        Raises:
            TypeError: a mask that is no tensor.
            ValueError: another batch size than before, or a mask that is not one of the new tokens (B, T).
        """
        shape = check_token_ids("input_ids", input_ids)
        for layer in self.layers:  # a forward that failed may have overwritten what this one needs
            layer.check_crop(self.length, self.seen)
        if self.batch not in (None, len(input_ids)):
            raise ValueError(
                f"the cache holds a batch of {self.batch}, but input_ids has one of {len(input_ids)}."
            )
        if self.texts and len(input_ids) % self.texts:
            raise ValueError(
                f"the cache remembers {self.texts} texts, but input_ids has {len(input_ids)} rows; expected "
                "as many for each text."
            )
        if mask is not None:
            check_tensor("attention_mask", mask)
            if tuple(mask.shape) != shape:
                raise ValueError(
                    f"attention_mask has shape {tuple(mask.shape)}; expected (batch, time) = {shape} like "
                    "input_ids: with a cache it is of the new tokens alone, the cache remembers the others'."
                )

    def extended(self, mask: Tensor | None, input_ids: Tensor) -> Tensor | None:
        """The mask of all keys once the tokens (B, T) with this mask (B, T) will have come.

        Returns:
            (B, length + T), or None where there is no padding.
        """
        if self.mask is None and (mask is None or (not values_unavailable(mask) and bool(mask.all()))):
            return None
        shape = len(input_ids), self.length + input_ids.shape[1]
        real = torch.ones(shape, dtype=torch.bool, device=input_ids.device)
        past = real[:, : self.length] if self.mask is None else self.mask
        return torch.cat((past, real[:, self.length :] if mask is None else mask), dim=1)

    def begin(self, time: int) -> None:
        """Notes that `time` tokens are about to be stored, beyond what counts already."""
        self.seen = max(self.seen, self.length + time) if self.length else time

    def advance(self, mask: Tensor | None, time: int) -> None:
        """Counts `time` tokens that every layer has stored; `mask` is what `extended` gave."""
        self.length += time
        self.mask = mask

    def withdraw(self, time: int) -> None:
        """The last `time` tokens no longer count. Whether a ring still has those before, `check` says."""
        self.length -= time
        if self.mask is not None:
            self.mask = self.mask[:, : self.length] if self.length else None

    def crop(self, length: int) -> Cache:
        """Forgets all but the first `length` tokens.

        Raises:
            TypeError: no whole number.
            ValueError: more than there are, or so few that a sliding layer no longer has what it needs.
        """
        length = check_integer("length", length, hint="the number of tokens to keep")
        if length > self.length:
            raise ValueError(f"cannot crop to {length}: the cache holds {self.length} tokens.")
        if length < self.length:
            for layer in self.layers:
                layer.check_crop(length, self.seen)
        self.withdraw(self.length - length)
        return self

    def select(self, rows: Tensor) -> Cache:
        """Keeps these rows of the batch, in this order, as often as they are named: a search's reordering.

        Changes this cache, and returns it; so do `repeat` and `crop`.

        Args:
            rows: (N,) long.

        Raises:
            TypeError: no tensor.
            ValueError: no rows, or others than there are.
        """
        check_tensor("rows", rows)
        if rows.dim() != 1 or len(rows) == 0:
            raise ValueError(f"rows has shape {tuple(rows.shape)}; expected the numbers of one or more rows.")
        count = self.batch or self.texts  # before the first token, rows are of the texts
        if not count:
            return self
        check_indices("rows", rows, count, "the cache holds that many rows")
        if self.texts:
            texts = _texts_of(rows, count // self.texts)
            _select(self.memory, texts)
            self.memory_mask = None if self.memory_mask is None else self.memory_mask.index_select(0, texts)
        return self.reorder(rows)

    def reorder(self, rows: Tensor) -> Cache:
        """`select` where each row stays among those of its text: the memory is shared, and stays as it is.

        rows: (N,) long, as many for each text; not checked, since a search names those that there are.
        """
        _select(self.layers, rows, self.length)
        self.mask = None if self.mask is None else self.mask.index_select(0, rows)
        return self

    @property
    def texts(self) -> int:
        """How many texts the memory is of, each for as many rows of the batch; 0 without one."""
        key = self.memory[0].key if self.memory else None
        return 0 if key is None else key.shape[0]

    def forget(self) -> None:
        """Drops the memory, as after a forward that failed."""
        self.memory, self.memory_mask = [CrossAttentionCache() for _ in self.memory], None

    def repeat(self, times: int) -> Cache:
        """Every row `times` times, one after the other: several continuations of one prompt.

        Raises:
            TypeError, ValueError: no whole number from 1 on.
        """
        times, batch = check_integer("times", times, 1, hint="the number of copies of each row"), self.batch
        if times == 1 or batch is None:
            return self
        device = self.layers[0].key.device  # type: ignore[union-attr]
        return self.reorder(torch.arange(batch, device=device).repeat_interleave(times))


def _texts_of(rows: Tensor, shares: int) -> Tensor:
    """Which texts rows are of, each of which had so many; each text once where it has as many again."""
    texts = rows // shares
    if len(texts) % shares == 0:
        together = texts.view(-1, shares)
        if bool((together == together[:, :1]).all()):
            return together[:, 0]
    return texts


def _select(
    parts: Sequence[LayerCache | CrossAttentionCache], rows: Tensor, length: int | None = None
) -> None:
    """Keeps these rows of each part, of whose slots `length` are in use, or all: in place, through one piece
    of memory, so that a search makes no new ones; but where a gradient may need what was there, or the batch
    gets another size, by a copy.
    """
    between: Tensor | None = None
    for part in parts:
        if part.key is None or part.value is None:
            continue
        if not (torch.is_inference_mode_enabled() and part.key.is_inference() and len(rows) == len(part.key)):
            part.key, part.value = (x.index_select(0, rows) for x in (part.key, part.value))
            continue
        for stored in (part.key, part.value):
            if between is None or between.shape != stored.shape:
                between = torch.empty_like(stored)
            used, moved = stored[:, :, :length], between[:, :, :length]
            used.copy_(torch.index_select(used, 0, rows, out=moved))
