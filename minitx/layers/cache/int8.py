"""Keys and values of self-attention in 8 bits, with one scale per token and head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from minitx.layers.cache.kv import DynamicCache, writable


def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the nearest multiples of a scale, from -127 to 127, and the scale.

    Args:
        x: (B, K, T, D), keys or values.

    Returns:
        (B, K, T, D) int8 and (B, K, T, 1) float32: the largest feature of each token and head is 127.
    """
    wide = x.float()
    scale = wide.abs().amax(dim=-1, keepdim=True) / 127
    safe = torch.where(scale > 0, scale, 1.0)
    return (wide / safe).round_().clamp_(-127, 127).to(torch.int8), scale


class Int8Cache(DynamicCache):
    """Keys and values in 8 bits: a quarter of float32's memory and 4 bytes per token and head.

    What is stored is what every query attends to, the one of the same token too, so that a sequence may be
    run in any parts. An error of at most half a scale is made once per key and value. Each step converts all
    stored tokens to the dtype of the model, one layer at a time. Gradients are refused.

    Args:
        max_length: number of tokens to allocate; None: the tensors grow at every step.
    """

    tensors: ClassVar[tuple[str, ...]] = ("key", "value", "key_scale", "value_scale")

    def __init__(self, max_length: int | None = None) -> None:
        super().__init__()
        self.max_length = max_length
        self.key_scale: Tensor | None = None  # (B, K, slots, 1)
        self.value_scale: Tensor | None = None

    def append(self, key: Tensor, value: Tensor, past: int) -> tuple[Tensor, Tensor]:
        """Twice (B, K, T, D) -> twice (B, K, S, D)

        Raises:
            ValueError: no room for them, or gradients are recorded.
        """
        end = past + key.shape[2]
        if self.max_length is not None and end > self.max_length:
            raise ValueError(
                f"the cache has room for {self.max_length} tokens, but this is token {end}; "
                "make it with a larger max_length."
            )
        if torch.is_grad_enabled() and (key.requires_grad or value.requires_grad):
            raise ValueError("an int8 cache rounds, and has no gradients; use another, or torch.no_grad().")
        self._check_layout(key, past)
        self.key, self.key_scale = self._stored(self.key, self.key_scale, key, past)
        self.value, self.value_scale = self._stored(self.value, self.value_scale, value, past)
        return (
            self._read(self.key, self.key_scale, end, key),
            self._read(self.value, self.value_scale, end, value),
        )

    def shift(self, steps: Sequence[int], length: int, high_water_mark: int) -> None:
        """Copies the tokens of each row that moves."""
        scales = DynamicCache()
        scales.key, scales.value = self.key_scale, self.value_scale
        super().shift(steps, length, high_water_mark)
        scales.shift(steps, length, high_water_mark)
        self.key_scale, self.value_scale = scales.key, scales.value

    def _stored(
        self, stored: Tensor | None, scales: Tensor | None, new: Tensor, past: int
    ) -> tuple[Tensor, Tensor]:
        """Returns numbers and scales with those of new tokens (B, K, T, D) after `past` ones."""
        numbers, scale = quantize(new)
        if self.max_length is None:
            if past == 0 or stored is None or scales is None:
                return numbers, scale
            pairs = ((stored, numbers), (scales, scale))
            longer, longer_scales = (torch.cat((old[:, :, :past], x), dim=2) for old, x in pairs)
            return longer, longer_scales
        if stored is None or scales is None:
            stored, scales = (
                x.new_empty((*x.shape[:2], self.max_length, x.shape[3])) for x in (numbers, scale)
            )
        stored, scales = writable(stored), writable(scales)
        stored[:, :, past : past + new.shape[2]] = numbers
        scales[:, :, past : past + new.shape[2]] = scale
        return stored, scales

    def _read(self, stored: Tensor, scales: Tensor, end: int, like: Tensor) -> Tensor:
        """Returns the first `end` tokens in the dtype of `like`, (B, K, T, D): (B, K, S, D)."""
        return (stored[:, :, :end] * scales[:, :, :end]).to(like.dtype)

    def _check_layout(self, new: Tensor, past: int) -> None:
        """Checks that new keys (B, K, T, D) continue the stored ones, or replaces the room of other ones."""
        if self.key is None:
            return
        stored, shape = self.key, (*new.shape[:2], new.shape[3])
        same = (*stored.shape[:2], stored.shape[3]) == shape and stored.device == new.device
        if past and not same:
            raise ValueError(
                f"the cache holds {stored.shape[1]} heads of {stored.shape[3]} features on {stored.device}, "
                f"this model has {new.shape[1]} of {new.shape[3]} on {new.device}: a cache serves the model "
                "that filled it; make another with make_cache()."
            )
        if not same:
            self.key = self.value = self.key_scale = self.value_scale = None
