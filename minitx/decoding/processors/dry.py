"""DRY ("don't repeat yourself"): a penalty on tokens that would continue a repetition of several tokens.

The definition is that of text-generation-webui and llama.cpp. For a history and its repeat counts

    tokens   a b c c b c y a b c
    counts   0 0 3 1 0 2 0 0 0 0

where the count of a position is the length of the longest text that ends both there and at the end of the
history: "a b c" ended at the third token, so the next token "c" would continue a repetition of 3 tokens.

B rows, V vocabulary, n tokens of the window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from minitx.decoding.parameters import NON_NEGATIVE, check_ids, check_size, set_frozen, to_plain
from minitx.decoding.processors.base import LogitsProcessor
from minitx.decoding.processors.context import Context, or_spare
from minitx.validation import ArgumentTypeError, Interval, check_number

_LARGEST_POWER = 1e30  # of the base; float32 can hold its products


@dataclass(frozen=True)
class DRY(LogitsProcessor):
    """Subtracts multiplier * base^(l - allowed_length) from a token that would continue a repetition.

    l is the length of the longest text that ends at the end of the history and that was followed by the
    token before. Tokens with l below `allowed_length` keep their logits. Breakers, such as the ids of line
    ends and quotation marks, are part of no repetition and never penalised, so that lists and dialogues keep
    their form. The power is at most 1e30.

    Args:
        multiplier: at least 0; 0.0 changes nothing. Usual: 0.8.
        base: at least 1. Usual: 1.75.
        allowed_length: at least 1, the shortest repetition that is penalised when it continues. Usual: 2.
        window: only the last so many tokens of prompt and output are searched; None: all of them.
        breakers: token ids.
    """

    multiplier: float
    base: float = 1.75
    allowed_length: int = 2
    window: int | None = None
    breakers: Sequence[int] = ()
    needs: ClassVar[str] = "dry_breakers"

    def __post_init__(self) -> None:
        window = to_plain(self.window)
        set_frozen(
            self,
            multiplier=check_number("dry: multiplier", to_plain(self.multiplier), NON_NEGATIVE, "0: off"),
            base=check_number("dry: base", to_plain(self.base), Interval(1, torch.inf, open_high=True)),
            allowed_length=check_size("dry: allowed_length", to_plain(self.allowed_length), 1),
            window=None if window is None else check_size("dry: window", window, 1, "the last N tokens"),
            breakers=check_ids("dry_breakers", self.breakers, empty=True),
        )

    @classmethod
    def from_numbers(cls, values: Any, breakers: Sequence[int] = ()) -> DRY:
        """Returns the processor of (multiplier, base, allowed_length, window) or the first of these."""
        plain = to_plain(values)
        numbers: list[Any] = [*plain] if isinstance(plain, tuple | list) else [plain]
        if not 1 <= len(numbers) <= 4:
            expected = "a tuple of at most 4 numbers: multiplier, base, allowed_length, window"
            raise ArgumentTypeError("dry", values, expected)
        numbers[2:] = (int(n) if isinstance(n, float) and n.is_integer() else n for n in numbers[2:])
        names = ("multiplier", "base", "allowed_length", "window")
        return cls(breakers=breakers, **dict(zip(names, numbers, strict=False)))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        longest = int(context.length.max()) if self.multiplier and len(logits) else 0
        if longest < 2:
            return logits
        newest = context.last(min(longest, self.window or longest)).flip(1)  # (B, n), the last token first
        lengths, spare = self.repetitions(newest), logits.shape[-1]
        power = (self.base ** (lengths - self.allowed_length).double()).clamp(max=_LARGEST_POWER)
        penalties = torch.where(lengths >= self.allowed_length, self.multiplier * power, 0.0)
        # Position d of `lengths` is the text before the token at position d of `newest`.
        ids = or_spare(newest[:, :-1], newest[:, :-1] >= 0, spare)
        most = logits.new_zeros(len(logits), spare + 1)
        most.scatter_reduce_(1, ids, penalties.to(logits.dtype), "amax")
        most[:, [token for token in self.breakers if token < spare]] = 0.0
        return logits - most[:, :spare]

    def repetitions(self, newest: Tensor) -> Tensor:
        """Returns how many tokens before each token equal the end of the history: (B, n) -> (B, n - 1).

        Lengths beyond which the penalty does not grow may be too small.

        Args:
            newest: the history, the last token first; -1 for none.
        """
        breakers = newest.new_tensor([-1, *self.breakers])
        ends = torch.isin(newest, breakers).cumsum(dim=1) == 0  # may be the end of a repetition
        alive = torch.ones_like(newest[:, 1:], dtype=torch.bool)
        lengths = torch.zeros_like(newest[:, 1:])
        growth = math.log(_LARGEST_POWER) / math.log(self.base) if self.base > 1 else 0
        for step in range(int(min(newest.shape[1] - 1, self.allowed_length + growth + 1))):
            alive = alive[:, : newest.shape[1] - 1 - step]
            alive = alive & (newest[:, 1 + step :] == newest[:, step, None]) & ends[:, step, None]
            if not bool(alive.any()):
                break
            lengths[:, : alive.shape[1]] += alive
        return lengths


def check_breakers(ids: Any) -> tuple[()]:
    """Checks `dry_breakers`, which belong to `dry`; returns no processor."""
    check_ids("dry_breakers", ids, empty=True)
    return ()
