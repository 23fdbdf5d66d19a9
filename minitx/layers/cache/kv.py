"""Key/value caches of self-attention, one per layer.

`Stack.make_cache` chooses the kind of each layer. Only `Cache.length` defines how many positions are valid,
so none of the three clears its tensors; later positions are overwritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor


class LayerCache(Protocol):
    """Key/value cache of one layer."""

    tensors: ClassVar[tuple[str, ...]]  # names of the attributes that hold (B, K, slots, ...)
    key: Tensor | None  # (B, K, slots, D)
    value: Tensor | None

    def append(self, key: Tensor, value: Tensor, past: int) -> tuple[Tensor, Tensor]:
        """Stores T tokens after `past` earlier ones.

        Args:
            key: (B, K, T, D)
            value: (B, K, T, D)
            past: number of earlier tokens.

        Returns:
            Twice (B, K, S, D), the keys and values that the T queries may attend to, at `key_positions`.
        """

    def key_positions(self, past: int, time: int, device: torch.device) -> Tensor:
        """Returns the position in the sequence of each key that `append` returns.

        Returns:
            (S,) long.
        """

    def key_length(self, past: int, time: int) -> int:
        """Returns S, the number of keys that `append` returns."""

    def check_crop(self, length: int, high_water_mark: int) -> None:
        """Checks that the token after `length` ones still has all keys that it attends to.

        Raises:
            ValueError: some have been overwritten.
        """

    def shift(self, steps: Sequence[int], length: int, high_water_mark: int) -> None:
        """Moves the tokens of each row, so that position p holds the token that was at p + steps[row].

        Args:
            steps: one per row; negative ones leave some undefined but finite tokens at the start of the row.
            length: number of positions to fill.
            high_water_mark: the most tokens that have been stored.
        """


def same_layout(stored: Tensor, new: Tensor) -> bool:
    """Whether stored keys or values can hold new ones, whatever their lengths are.

    Args:
        stored: (B, K, slots, D)
        new: (B, K, T, D)
    """
    sizes = (*stored.shape[:2], stored.shape[3]) == (*new.shape[:2], new.shape[3])
    return sizes and stored.dtype == new.dtype and stored.device == new.device


def check_layout(stored: Tensor, new: Tensor) -> None:
    """Checks that stored and new keys or values fit together.

    Args:
        stored: (B, K, slots, D)
        new: (B', K', T, D')

    Raises:
        ValueError: the stored ones are another model's.
    """
    if not same_layout(stored, new):
        old, own = (
            f"{x.shape[1]} heads of {x.shape[3]} features in {x.dtype} on {x.device}" for x in (stored, new)
        )
        raise ValueError(
            f"the cache holds keys or values with {old}, this model has {own}: a cache serves the model "
            "that filled it; make another with make_cache()."
        )


def preallocate(stored: Tensor | None, new: Tensor, slots: int, past: int) -> Tensor:
    """Returns stored keys or values that may be filled in place, with the first `past` tokens.

    Args:
        stored: (B, K, slots, D), or None.
        new: (B, K, T, D)
        slots: number of tokens to allocate.
        past: number of tokens to keep.

    Returns:
        (B, K, slots, D)
    """
    if stored is None or (past == 0 and not same_layout(stored, new)):
        return new.new_empty((*new.shape[:2], slots, new.shape[3]))
    check_layout(stored, new)
    return writable(stored)


def writable(stored: Tensor) -> Tensor:
    """Returns stored keys or values that may be changed in place: a copy where autograd needs the old.

    (...) -> (...)
    """
    if torch.is_grad_enabled():
        return stored.clone()
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():  # a graph cannot ask for the rest
        return stored
    return stored.clone() if stored.is_inference() else stored


class DynamicCache:
    """Keys and values of exactly the tokens so far; every step makes longer tensors."""

    tensors: ClassVar[tuple[str, ...]] = ("key", "value")

    def __init__(self) -> None:
        self.key: Tensor | None = None
        self.value: Tensor | None = None

    def append(self, key: Tensor, value: Tensor, past: int) -> tuple[Tensor, Tensor]:
        """Twice (B, K, T, D) -> twice (B, K, S, D)"""
        if past and self.key is not None and self.value is not None:
            check_layout(self.key, key)
            key = torch.cat((self.key[:, :, :past], key), dim=2)
            value = torch.cat((self.value[:, :, :past], value), dim=2)
        self.key, self.value = key, value
        return key, value

    def key_positions(self, past: int, time: int, device: torch.device) -> Tensor:
        """Returns 0, 1, 2, ...

        Returns:
            (S,) long.
        """
        return torch.arange(past + time, device=device)

    def key_length(self, past: int, time: int) -> int:
        """Returns S = past + T."""
        return past + time

    def check_crop(self, length: int, high_water_mark: int) -> None:
        """Accepts every length, since no token is ever dropped."""

    def shift(self, steps: Sequence[int], length: int, high_water_mark: int) -> None:
        """Copies the tokens of each row that moves."""
        if self.key is None or self.value is None:
            return
        self.key, self.value = writable(self.key), writable(self.value)
        for step in {*steps} - {0}:
            old, new = slice(max(step, 0), length + step), slice(max(-step, 0), length)
            rows = torch.tensor(
                [row for row, each in enumerate(steps) if each == step], device=self.key.device
            )
            for stored in (self.key, self.value):
                stored[rows, :, new] = stored[rows, :, old]


class StaticCache(DynamicCache):
    """Room for `max_length` tokens, allocated when the first ones are stored."""

    def __init__(self, max_length: int) -> None:
        super().__init__()
        self.max_length = max_length

    def append(self, key: Tensor, value: Tensor, past: int) -> tuple[Tensor, Tensor]:
        """Twice (B, K, T, D) -> twice (B, K, S, D)

        Raises:
            ValueError: no room for them.
        """
        end = past + key.shape[2]
        if end > self.max_length:
            raise ValueError(
                f"the cache has room for {self.max_length} tokens, but this is token {end}; "
                "make it with a larger max_length."
            )
        self.key = preallocate(self.key, key, self.max_length, past)
        self.value = preallocate(self.value, value, self.max_length, past)
        self.key[:, :, past:end] = key
        self.value[:, :, past:end] = value
        return self.key[:, :, :end], self.value[:, :, :end]


class SlidingWindowCache:
    """A ring buffer of the last `size` tokens, token p in slot p % size.

    Of several new tokens, the first may attend to keys that the last one overwrites, so they attend to the
    ring buffer and the new keys side by side, and are stored afterwards.

    Args:
        window: number of keys that a query attends to, itself included.
        size: number of slots, at least `window`; the difference is how far `Cache.crop` can go back.
    """

    tensors: ClassVar[tuple[str, ...]] = ("key", "value")

    def __init__(self, window: int, size: int) -> None:
        self.window = window
        self.size = size
        self.key: Tensor | None = None
        self.value: Tensor | None = None

    def append(self, key: Tensor, value: Tensor, past: int) -> tuple[Tensor, Tensor]:
        """Twice (B, K, T, D) -> twice (B, K, S, D)"""
        self.key = preallocate(self.key, key, self.size, past)
        self.value = preallocate(self.value, value, self.size, past)
        time = key.shape[2]
        if time == 1:
            slot, filled = past % self.size, min(past + 1, self.size)
            self.key[:, :, slot : slot + 1] = key
            self.value[:, :, slot : slot + 1] = value
            return self.key[:, :, :filled], self.value[:, :, :filled]
        old = self.slots(self.first(past), past, key.device)
        keys = torch.cat((self.key[:, :, old], key), dim=2)
        values = torch.cat((self.value[:, :, old], value), dim=2)
        stored = min(time, self.size)
        new = self.slots(past + time - stored, past + time, key.device)
        self.key[:, :, new] = key[:, :, time - stored :]
        self.value[:, :, new] = value[:, :, time - stored :]
        return keys, values

    def first(self, past: int) -> int:
        """Returns the position of the first key that the token at position `past` attends to."""
        return max(0, past - self.window + 1)

    def slots(self, start: int, stop: int, device: torch.device) -> Tensor:
        """Returns the slot of each position.

        Returns:
            (N,) long, N = stop - start.
        """
        return torch.arange(start, stop, device=device) % self.size

    def key_positions(self, past: int, time: int, device: torch.device) -> Tensor:
        """Returns the position of each key; those of a single token are in the order of the slots.

        Returns:
            (S,) long.
        """
        if time > 1:
            return torch.arange(self.first(past), past + time, device=device)
        slots = torch.arange(self.key_length(past, 1), device=device)
        return past - (past - slots) % self.size  # the last position up to `past` in this slot

    def key_length(self, past: int, time: int) -> int:
        """Returns S."""
        return min(past + 1, self.size) if time == 1 else past + time - self.first(past)

    def check_crop(self, length: int, high_water_mark: int) -> None:
        """Checks that the token after `length` ones still has all keys of its window.

        Raises:
            ValueError: some have been overwritten.
        """
        end = high_water_mark
        if length and end > self.size and self.first(length) < end - self.size:
            more = end - self.window - self.first(length)
            raise ValueError(
                f"cannot go back from {end} tokens to {length}: layers with a window of {self.window} keep "
                f"the last {self.size} tokens; make the cache with spare={more} or more."
            )

    def shift(self, steps: Sequence[int], length: int, high_water_mark: int) -> None:
        """Rotates the slots of each row. Slots that were never filled are not read: they may hold NaN."""
        if self.key is None or self.value is None:
            return
        slots = torch.arange(self.size, device=self.key.device)
        moved = torch.tensor(steps, device=self.key.device)[:, None]
        source = ((slots + moved) % self.size).clamp(max=high_water_mark - 1)[
            :, None, :, None
        ]  # (B, 1, size, 1)
        self.key, self.value = (x.gather(2, source.expand_as(x)) for x in (self.key, self.value))
