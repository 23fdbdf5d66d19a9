"""Rotary position embeddings (arXiv:2104.09864): pairs of features are turned by position * frequency.

A model is trained with frequencies theta^(-2d/D). Reaching longer texts than those of the training means
turning more slowly, and the functions here are the ways to do that:

    linear     every frequency divided by `factor` (arXiv:2306.15595)
    dynamic    a base that grows with the text, once it is longer than the training's ("NTK-aware")
    yarn       slow pairs divided, fast ones left, a ramp between (arXiv:2309.00071, section 3.2)
    llama3     the same idea with the bands given as wavelengths (arXiv:2407.21783, section 3.4)
    longrope   a divisor for each pair, found by search; one set for short texts and one for long ones
               (arXiv:2402.13753)

How long a text is, which dynamic and longrope ask, the highest position of its own row says: a row of a
batch turns as it does alone. Keys in a cache keep the turn of the length at which they came. With dynamic
that is the usual reading, and what one forward over the whole text gives differs a little; with longrope
it would be two texts in one, which `DecoderModel.forward` refuses.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from minitx.config import RopeConfig

Rotary = tuple[Tensor, Tensor]  # cos and sin, each (1 or B, 1, T, rotary_dim)


def exponents(rope: RopeConfig, device: torch.device) -> Tensor:
    """2d / D for each pair d -> (rotary_dim / 2,), float32 as in training."""
    return torch.arange(0, rope.rotary_dim, 2, dtype=torch.float32, device=device) / rope.rotary_dim


def default(rope: RopeConfig, positions: Tensor) -> Tensor:
    """theta^(-2d/D) (arXiv:2104.09864, equation 15)."""
    frequency: Tensor = 1.0 / (rope.rope_theta ** exponents(rope, positions.device))
    return frequency


def text_length(positions: Tensor) -> Tensor:
    """(1 or B, T) -> (1 or B, 1): how many tokens each row has come to."""
    return positions.amax(dim=-1, keepdim=True) + 1


def linear(rope: RopeConfig, positions: Tensor) -> Tensor:
    return default(rope, positions) / rope.factor


def dynamic(rope: RopeConfig, positions: Tensor) -> Tensor:
    """The base for which the slowest pair turns as far over the text as it did over the training's."""
    length, context = text_length(positions), rope.original_max_position_embeddings
    stretch = rope.factor * length / context - (rope.factor - 1)
    stretch = torch.where(length > context, stretch, 1.0)  # and not nearly 1 within the context
    theta = rope.rope_theta * stretch ** (rope.rotary_dim / (rope.rotary_dim - 2))
    frequency: Tensor = 1.0 / (theta ** exponents(rope, positions.device))
    return frequency


def yarn(rope: RopeConfig, positions: Tensor) -> Tensor:
    """Equation 23: pairs that turn more than beta_fast times in the training's context stay as they are,
    those that turn less than beta_slow times are divided by `factor`.
    """
    device, pairs = positions.device, rope.rotary_dim // 2

    def pair_that_turns(times: float) -> float:
        context = rope.original_max_position_embeddings
        turns = math.log(context / (times * 2 * math.pi))
        return rope.rotary_dim * turns / (2 * math.log(rope.rope_theta))

    low, high = pair_that_turns(rope.beta_fast), pair_that_turns(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.rotary_dim - 1)
    width = high - low or 0.001  # a band without width would divide by zero
    divided = ((torch.arange(pairs, dtype=torch.float32, device=device) - low) / width).clamp(0, 1)
    turn: Tensor = rope.rope_theta ** exponents(rope, device)
    kept = 1 - divided
    return 1.0 / (rope.factor * turn) * (1 - kept) + 1.0 / turn * kept


def llama3(rope: RopeConfig, positions: Tensor) -> Tensor:
    """Long waves are divided by `factor`, short ones stay, and those between are blended."""
    frequency, context = default(rope, positions), rope.original_max_position_embeddings
    waves = context / (2 * math.pi / frequency)  # how many of each wave fit into the training's context
    blend = (waves - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    blended = (1 - blend) * frequency / rope.factor + blend * frequency
    wavelength = 2 * math.pi / frequency
    long = wavelength > context / rope.low_freq_factor
    short = wavelength < context / rope.high_freq_factor
    return torch.where(long, frequency / rope.factor, torch.where(short, frequency, blended))


def longrope(rope: RopeConfig, positions: Tensor) -> Tensor:
    short, long = (
        torch.tensor(factor, dtype=torch.float32, device=positions.device)
        for factor in (rope.short_factor, rope.long_factor)
    )
    factor = torch.where(text_length(positions) > rope.original_max_position_embeddings, long, short)
    frequency: Tensor = 1.0 / (factor * rope.rope_theta ** exponents(rope, positions.device))
    return frequency


# (config, positions (1 or B, T)) -> (rotary_dim / 2,) angle per position of each pair, or a row of them,
# (1 or B, rotary_dim / 2), for each text
FREQUENCIES: dict[str, Callable[[RopeConfig, Tensor], Tensor]] = {
    "default": default,
    "linear": linear,
    "dynamic": dynamic,
    "yarn": yarn,
    "llama3": llama3,
    "longrope": longrope,
}


def rotary_table(rope: RopeConfig, position_ids: Tensor, dtype: torch.dtype) -> Rotary:
    """cos and sin of every angle (arXiv:2104.09864, equation 34): (1 or B, T) -> twice (1 or B, 1, T, D).

    The angles are always float32: that is what checkpoints were trained with, and at position 8,000 the
    rounding of float32 is part of the model.
    """
    frequency = FREQUENCIES[rope.rope_type](rope, position_ids)
    frequency = frequency.view(-1, 1, 1, frequency.shape[-1])  # (1 or B, 1, 1, D / 2)
    angle = position_ids[:, None, :, None].float() * frequency  # (1 or B, 1, T, D / 2)
    angle = angle.repeat_interleave(2, dim=-1) if rope.interleaved else torch.cat((angle, angle), dim=-1)
    cos, sin = angle.cos(), angle.sin()
    if rope.attention_factor != 1.0:
        cos, sin = cos * rope.attention_factor, sin * rope.attention_factor
    return cos.to(dtype), sin.to(dtype)


# --- turning: (B, H, T, D) and the tables -> (B, H, T, D), in float32 or better ---------------------


def rotate_half(x: Tensor) -> Tensor:
    """Pairs (d, d + D/2): (x1, x2) -> (-x2, x1)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def rotate_every_two(x: Tensor) -> Tensor:
    """Pairs (2d, 2d + 1): (x1, x2) -> (-x2, x1)."""
    return torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)


def rotate(x: Tensor, rotary: Rotary, rotate_pairs: Callable[[Tensor], Tensor] = rotate_half) -> Tensor:
    """Turns the first features of every head, as many as the tables have; the others stay."""
    cos, sin = rotary
    turning, still = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    wide = turning.to(torch.promote_types(x.dtype, torch.float32))
    turned = (wide * cos + rotate_pairs(wide) * sin).to(x.dtype)
    return torch.cat((turned, still), dim=-1) if still.shape[-1] else turned
