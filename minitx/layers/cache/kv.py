"""Key/value caches of self-attention, one per layer.

Which kind a layer gets is decided by `Stack.make_cache`. Only `Cache.length` defines how many positions are
valid, so none of the three clears memory; later positions are simply overwritten.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class LayerCache(Protocol):
    """The part of one layer."""

    key: Tensor | None  # (B, K, slots, D)
    value: Tensor | None

    def append(self, key: Tensor, value: Tensor, past: int) -> tuple[Tensor, Tensor]:
        """Stores T tokens behind `past` earlier ones.

        Args:
            key: (B, K, T, D)
            value: (B, K, T, D)
            past: how many tokens came before them.

        Returns:
            Twice (B, K, S, D): what the T queries may attend to, at the positions of `positions`.
        """

    def positions(self, past: int, time: int, device: torch.device) -> Tensor:
        """(S,): the position in the sequence of each key that `append` returns."""

    def columns(self, past: int, time: int) -> int:
        """S, the number of keys that `append` returns."""

    def check_crop(self, length: int, seen: int) -> None:
        """
        Raises:
            ValueError: what the token behind `length` would need is gone.
        """


def like(stored: Tensor, new: Tensor) -> bool:
    """Whether (B, K, slots, D) can hold what (B, K, T, D) has, whatever slots and T are."""
    sizes = (*stored.shape[:2], stored.shape[3]) == (*new.shape[:2], new.shape[3])
    return sizes and stored.dtype == new.dtype and stored.device == new.device


def check_like(stored: Tensor, new: Tensor) -> None:
    """
    Raises:
        ValueError: stored was what another model made.
    """
    if not like(stored, new):
        held, made = (
            f"{x.shape[1]} heads of {x.shape[3]} features in {x.dtype} on {x.device}" for x in (stored, new)
        )
        raise ValueError(
            f"the cache holds keys or values with {held}, this model makes {made}: a cache serves the model "
            "that filled it; make another with make_cache()."
        )


def room(stored: Tensor | None, new: Tensor, slots: int, past: int) -> Tensor:
    """(B, K, slots, D) with the `past` tokens that are stored, to be written in place."""
    if stored is None or (past == 0 and not like(stored, new)):
        return new.new_empty((*new.shape[:2], slots, new.shape[3]))
    check_like(stored, new)
    if torch.is_grad_enabled():
        return stored.clone()
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():  # a graph cannot ask what follows
        return stored
    return stored.clone() if stored.is_inference() else stored


class DynamicCache:
    """Keys and values as long as what was seen."""

    def __init__(self) -> None:
        self.key: Tensor | None = None
        self.value: Tensor | None = None

    def append(self, key: Tensor, value: Tensor, past: int) -> tuple[Tensor, Tensor]:
        if past and self.key is not None and self.value is not None:
            check_like(self.key, key)
            key = torch.cat((self.key[:, :, :past], key), dim=2)
            value = torch.cat((self.value[:, :, :past], value), dim=2)
        self.key, self.value = key, value
        return key, value

    def positions(self, past: int, time: int, device: torch.device) -> Tensor:
        return torch.arange(past + time, device=device)

    def columns(self, past: int, time: int) -> int:
        return past + time

    def check_crop(self, length: int, seen: int) -> None:
        """Nothing is ever dropped."""


class StaticCache(DynamicCache):
    """Room for `max_length` tokens, made when the first ones come."""

    def __init__(self, max_length: int) -> None:
        super().__init__()
        self.max_length = max_length

    def append(self, key: Tensor, value: Tensor, past: int) -> tuple[Tensor, Tensor]:
        end = past + key.shape[2]
        if end > self.max_length:
            raise ValueError(
                f"the cache has room for {self.max_length} tokens, but this is token {end}; "
                "make it with a larger max_length."
            )
        self.key = room(self.key, key, self.max_length, past)
        self.value = room(self.value, value, self.max_length, past)
        self.key[:, :, past:end] = key
        self.value[:, :, past:end] = value
        return self.key[:, :, :end], self.value[:, :, :end]


class SlidingWindowCache:
    """The last `size` tokens, token p in slot p % size.

    Of several tokens that come at once each may need keys that the last one pushes out, so those are
    attended to beside the ring and stored afterwards.
    """

    def __init__(self, window: int, size: int) -> None:
        """
        Args:
            window: how many keys a query sees, itself included.
            size: at least `window`; what is beyond it is how far `crop` can go back.
        """
        self.window = window
        self.size = size
        self.key: Tensor | None = None
        self.value: Tensor | None = None

    def append(self, key: Tensor, value: Tensor, past: int) -> tuple[Tensor, Tensor]:
        self.key = room(self.key, key, self.size, past)
        self.value = room(self.value, value, self.size, past)
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
        """The first token that the one behind `past` sees."""
        return max(0, past - self.window + 1)

    def slots(self, start: int, stop: int, device: torch.device) -> Tensor:
        return torch.arange(start, stop, device=device) % self.size

    def positions(self, past: int, time: int, device: torch.device) -> Tensor:
        if time > 1:
            return torch.arange(self.first(past), past + time, device=device)
        slots = torch.arange(self.columns(past, 1), device=device)
        return past - (past - slots) % self.size  # the last token up to `past` that has this slot

    def columns(self, past: int, time: int) -> int:
        return min(past + 1, self.size) if time == 1 else past + time - self.first(past)

    def check_crop(self, length: int, seen: int) -> None:
        if length and seen > self.size and self.first(length) < seen - self.size:
            more = seen - self.window - self.first(length)
            raise ValueError(
                f"cannot go back from {seen} tokens to {length}: layers with a window of {self.window} keep "
                f"the last {self.size} tokens; make the cache with spare={more} or more."
            )
