"""The base class of watermarks, and the checks that they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from minitx.decoding.parameters import LARGEST_INTEGER, check_ids, check_size
from minitx.decoding.samplers.base import Sampler, SamplerArguments
from minitx.validation import ArgumentTypeError, ArgumentValueError, Interval, check_integer

TokenIds = Sequence[int] | Tensor
FINITE = Interval(-torch.inf, torch.inf, open_low=True, open_high=True)


class Watermark:
    """A watermark: the `watermark` field of a strategy takes it. It is a value.

    Its method `detect` tells whether a text has it. Most are processors, which a `Chain` takes too.
    """

    # Whether it takes the place of the draw, so that it needs a strategy that draws a token per row.
    draws: ClassVar[bool] = False

    def sampler(self, call: SamplerArguments) -> Sampler | None:
        """Returns the sampler of a call for a watermark that takes the place of the draw, else None."""


def watermark_step(watermark: Any) -> Any:
    """Returns the processor of the `watermark` field; none, (), for one that takes the place of the draw.

    Raises:
        ArgumentTypeError: not a watermark.
    """
    if not isinstance(watermark, Watermark):
        raise ArgumentTypeError("watermark", watermark, "a watermark such as KGW() or SynthID(keys=...)")
    return () if watermark.draws else watermark


def check_key(parameter: str, key: Any) -> int:
    """Returns an integer that fits 63 bits, else raises ArgumentTypeError or ArgumentValueError."""
    return check_integer(parameter, key, 0, LARGEST_INTEGER, "the secret of the watermark")


def windows_of(tokens: Any, size: int, prompt_length: Any) -> Tensor:
    """Returns the windows of tokens whose last one is scored: ids -> (N, size) long, in order.

    Args:
        tokens: ids of a text, with or without its prompt.
        size: of a window, the scored token and those before it.
        prompt_length: the first so many tokens are not scored, but they precede those that are.

    Raises:
        ArgumentTypeError: not ids.
        ArgumentValueError: too few of them.
    """
    ids = check_ids("tokens", tokens, empty=True)
    first = max(check_size("prompt_length", prompt_length, hint="tokens that are not scored"), size - 1)
    if len(ids) <= first:
        expected = f"at least {first + 1} tokens, not {len(ids)}"
        raise ArgumentValueError("tokens", ids, expected, "there is no token to score")
    return torch.tensor(ids).unfold(0, size, 1)[first - size + 1 :]


def distinct(windows: Tensor) -> Tensor:
    """Returns each window or random number once: (N, ...) -> (M, ...). Repeated ones are no new evidence."""
    unique: Tensor = torch.unique(windows, dim=0)
    return unique


def normal_tail(z: float) -> float:
    """Returns the probability that a standard normal number is above z."""
    return float(0.5 * torch.special.erfc(torch.tensor(z / 2**0.5, dtype=torch.float64)))
