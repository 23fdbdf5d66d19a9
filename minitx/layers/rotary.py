"""Rotary position embeddings, RoPE (arXiv:2104.09864): pairs of features are rotated by position * frequency.

The frequencies of the training are theta^(-2d/D). For contexts longer than those of the training the rotation
is slowed down, in one of these ways:

    linear     every frequency divided by `factor` (arXiv:2306.15595)
    dynamic    a base that grows with the sequence, beyond the context of the training ("NTK-aware")
    yarn       slow pairs divided, fast ones unchanged, a ramp between (arXiv:2309.00071, section 3.2)
    llama3     the same idea with the bands defined by wavelengths (arXiv:2407.21783, section 3.4)
    longrope   one divisor per pair, found by search; one set for short sequences and one for long ones
               (arXiv:2402.13753)

dynamic and longrope depend on the length of the sequence, which is the highest position of its own row: a row
of a batch is rotated as it is alone. Cached keys keep the rotation of the length at which they were computed.
With dynamic that is common practice, and differs slightly from one forward over the whole sequence; with
longrope the two halves would not fit together, so `check_same_rotation` refuses it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from minitx.config import AttentionPositions, RopeConfig, Rotary
from minitx.device import constant
from minitx.validation import values_unavailable


class RotaryTables(NamedTuple):
    """cos and sin of every angle, each (1 or B, 1, T, rotary_dim), and which features form a pair."""

    cos: Tensor
    sin: Tensor
    interleaved: bool = False


# --- frequencies: (config, positions (1 or B, T)) -> (rotary_dim / 2,), or (1 or B, rotary_dim / 2) --


def exponents(rope: RopeConfig, device: torch.device) -> Tensor:
    """Returns 2d / D for each pair d, in float32 as in training.

    Returns:
        (rotary_dim / 2,)
    """
    return torch.arange(0, rope.rotary_dim, 2, dtype=torch.float32, device=device) / rope.rotary_dim


def default(rope: RopeConfig, positions: Tensor) -> Tensor:
    """Returns theta^(-2d/D) (arXiv:2104.09864, equation 15).

    (1 or B, T) -> (rotary_dim / 2,)
    """
    frequency: Tensor = 1.0 / (rope.rope_theta ** exponents(rope, positions.device))
    return frequency


def sequence_length(positions: Tensor) -> Tensor:
    """Returns the length of each row up to its last token: (1 or B, T) -> (1 or B, 1)."""
    return positions.amax(dim=-1, keepdim=True) + 1


def linear(rope: RopeConfig, positions: Tensor) -> Tensor:
    """Returns the default frequencies divided by `factor`: (1 or B, T) -> (rotary_dim / 2,)."""
    return default(rope, positions) / rope.factor


def dynamic(rope: RopeConfig, positions: Tensor) -> Tensor:
    """Returns frequencies whose slowest pair rotates as far over the sequence as it did in training.

    (1 or B, T) -> (1 or B, rotary_dim / 2)
    """
    length, context = sequence_length(positions).float(), rope.original_max_position_embeddings
    stretch = rope.factor * length / context - (rope.factor - 1)
    stretch = torch.where(length > context, stretch, 1.0)  # exactly 1 within the context, not nearly
    theta = rope.rope_theta * stretch ** (rope.rotary_dim / (rope.rotary_dim - 2))
    frequency: Tensor = 1.0 / (theta ** exponents(rope, positions.device))
    return frequency


def yarn(rope: RopeConfig, positions: Tensor) -> Tensor:
    """Returns frequencies interpolated by equation 23 of arXiv:2309.00071.

    (1 or B, T) -> (rotary_dim / 2,)

    Pairs with more than beta_fast rotations in the training's context are unchanged, those with less than
    beta_slow are divided by `factor`.
    """
    device, pairs = positions.device, rope.rotary_dim // 2

    def _pair_with(rotations: float) -> float:
        context = rope.original_max_position_embeddings
        wavelengths = math.log(context / (rotations * 2 * math.pi))
        return rope.rotary_dim * wavelengths / (2 * math.log(rope.rope_theta))

    low, high = _pair_with(rope.beta_fast), _pair_with(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.rotary_dim - 1)
    width = high - low or 0.001  # an empty ramp would divide by zero
    divided = ((torch.arange(pairs, dtype=torch.float32, device=device) - low) / width).clamp(0, 1)
    period: Tensor = rope.rope_theta ** exponents(rope, device)
    unchanged = 1 - divided
    return 1.0 / (rope.factor * period) * (1 - unchanged) + 1.0 / period * unchanged


def llama3(rope: RopeConfig, positions: Tensor) -> Tensor:
    """Returns frequencies with long waves divided by `factor`, and a blend between long and short ones.

    (1 or B, T) -> (rotary_dim / 2,)
    """
    frequency, context = default(rope, positions), rope.original_max_position_embeddings
    waves = context / (2 * math.pi / frequency)  # number of each wave in the context of the training
    blend = (waves - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    blended = (1 - blend) * frequency / rope.factor + blend * frequency
    wavelength = 2 * math.pi / frequency
    long = wavelength > context / rope.low_freq_factor
    short = wavelength < context / rope.high_freq_factor
    return torch.where(long, frequency / rope.factor, torch.where(short, frequency, blended))


def longrope(rope: RopeConfig, positions: Tensor) -> Tensor:
    """Returns frequencies divided by the factors of short or of long sequences.

    (1 or B, T) -> (1 or B, rotary_dim / 2)
    """
    short, long = (
        constant(tuple(factor or ()), torch.float32, positions.device)
        for factor in (rope.short_factor, rope.long_factor)
    )
    factor = torch.where(sequence_length(positions) > rope.original_max_position_embeddings, long, short)
    frequency: Tensor = 1.0 / (factor * rope.rope_theta ** exponents(rope, positions.device))
    return frequency


FREQUENCIES: dict[str, Callable[[RopeConfig, Tensor], Tensor]] = {
    "default": default,
    "linear": linear,
    "dynamic": dynamic,
    "yarn": yarn,
    "llama3": llama3,
    "longrope": longrope,
}


# --- tables, and their use -------------------------------------------------------------------------


def rotary_tables(rope: RopeConfig, position_ids: Tensor, dtype: torch.dtype) -> RotaryTables:
    """Returns cos and sin of every angle (arXiv:2104.09864, equation 34).

    The angles are float32, as in training: at position 8,000 the rounding of float32 is part of the model.

    Args:
        rope: the config.
        position_ids: (1 or B, T)
        dtype: of the tables.
    """
    frequency = FREQUENCIES[rope.rope_type](rope, position_ids)
    frequency = frequency.view(-1, 1, 1, frequency.shape[-1])  # (1 or B, 1, 1, D / 2)
    angle = position_ids[:, None, :, None].float() * frequency  # (1 or B, 1, T, D / 2)
    angle = angle.repeat_interleave(2, dim=-1) if rope.interleaved else torch.cat((angle, angle), dim=-1)
    cos, sin = angle.cos(), angle.sin()
    if rope.attention_factor != 1.0:
        cos, sin = cos * rope.attention_factor, sin * rope.attention_factor
    return RotaryTables(cos.to(dtype), sin.to(dtype), rope.interleaved)


def rotate_half(x: Tensor) -> Tensor:
    """Rotates features of the first half with those of the second by 90 degrees: x1, x2 to -x2, x1.

    (..., D) -> (..., D)
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def rotate_every_two(x: Tensor) -> Tensor:
    """Rotates neighbouring features by 90 degrees: x1, x2 to -x2, x1.

    (..., D) -> (..., D)
    """
    return torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)


def apply_rotary_pos_emb(x: Tensor, tables: RotaryTables) -> Tensor:
    """Applies RoPE to the first `rotary_dim` features of each head; passes the rest through.

    Computed in float32 or better.

    (B, H, T, D) -> (B, H, T, D)
    """
    cos, sin, interleaved = tables
    rotate = rotate_every_two if interleaved else rotate_half
    rotary, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    wide = rotary.to(torch.promote_types(x.dtype, torch.float32))
    rotated = (wide * cos + rotate(wide) * sin).to(x.dtype)
    return torch.cat((rotated, rest), dim=-1) if rest.shape[-1] else rotated


# --- sequences beyond the context of the training --------------------------------------------------


def original_contexts(positions: AttentionPositions | None) -> dict[str, int]:
    """Returns the original context length of each length-dependent RoPE type, dynamic and longrope.

    In a longer sequence every position has other angles, so a sequence is not run in chunks across that
    length.
    """
    ropes = positions.ropes.values() if isinstance(positions, Rotary) else ()
    return {
        rope.rope_type: rope.original_max_position_embeddings
        for rope in ropes
        if rope.rope_type in ("dynamic", "longrope")
    }


def check_same_rotation(
    positions: AttentionPositions | None, position_ids: Tensor, past: int, high_water_mark: int
) -> None:
    """Checks that new tokens do not move a cached sequence across the LongRoPE length limit.

    Waits for the device, with this RoPE type alone.

    Args:
        positions: of the stack.
        position_ids: (1 or B, T).
        past: number of tokens in the cache.
        high_water_mark: the most tokens that the cache has held; its keys were rotated for them.

    Raises:
        ValueError: the sequence crosses that length, or the cache was filled beyond it and cropped.
    """
    short = original_contexts(positions).get("longrope")
    if short is None or past == 0 or values_unavailable(position_ids):
        return
    before, now = position_ids[:, 0], sequence_length(position_ids)[:, 0]
    rotated_for = before + high_water_mark - past
    crossing = (before > 0) & ((now > short) != (rotated_for > short))
    if bool(crossing.any()):
        row = int(crossing.nonzero()[0])
        raise ValueError(
            f"cache must hold a sequence on the same side of {short} tokens; it was filled by "
            f"{int(rotated_for[row])} tokens, now the sequence has {int(now[row])}, and above {short} "
            "LongRoPE rotates every position differently: run the whole sequence with an empty cache."
        )
