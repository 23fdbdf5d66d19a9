"""XTC ("exclude top choices"): at random steps the most probable tokens are removed. B rows, V vocabulary."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from minitx.counter import uniforms
from minitx.decoding.processors.base import label
from minitx.decoding.processors.chain import Chain
from minitx.decoding.processors.context import Context
from minitx.decoding.processors.reshape import Shape
from minitx.decoding.processors.truncation import keep_best
from minitx.validation import ArgumentValueError, Interval

_COIN = 0x58544320636F696E  # "XTC coin", the purpose of its numbers


@dataclass(frozen=True)
class XTC(Shape):
    """With a probability at each step, removes all tokens above a threshold but the least probable of them.

    Where fewer than two tokens reach the threshold nothing changes. The coin of a step depends on the key of
    the row and on the number of tokens that it has generated, and not on the batch: `explain`, and a step
    that is repeated, see the same one. `AveragedXTC` has the same law for each token, without a coin.

    text-generation-webui (pull request 6335) and llama.cpp; both may differ in which tokens they spare: here,
    as in llama.cpp, an end token is removed too.

    Args:
        probability: of the removal, in [0, 1].
        threshold: in (0, 0.5]; tokens of this probability or more are top choices.
        min_tokens_to_keep: the least number of tokens that are kept, the most probable ones.
    """

    probability: float
    threshold: float = 0.1
    min_tokens_to_keep: int = field(default=1, kw_only=True, repr=False)
    parameter = "xtc"
    draws = True

    def __post_init__(self) -> None:
        self._checked(probability=Interval(0, 1), threshold=Interval(0, 0.5, open_low=True))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V).

        Raises:
            ArgumentValueError: the context has no keys.
        """
        if context.keys is None:
            hint = "XTC draws a number at each step; generate(..., Sample(xtc=...)) has them"
            raise ArgumentValueError("Context.keys", None, "the random keys of the rows, (B,) long", hint)
        coin = uniforms(context.keys, context.generated, _COIN) < self.probability
        high = logits.softmax(dim=-1) >= self.threshold
        least = torch.where(high, logits, torch.inf).amin(dim=-1, keepdim=True)
        removed = high & (logits > least) & coin[:, None]
        filtered = logits.masked_fill(removed, -torch.inf)
        if self.min_tokens_to_keep == 1:
            return filtered
        return keep_best(logits, filtered, logits, self.min_tokens_to_keep)


def processor_keys(sampler: Any, chain: Chain, num_rows: int) -> Tensor | None:
    """Returns the random keys of the rows for the processors that draw, (rows,) long; None without them.

    They are the keys of the sampler's rows; of a sampler with a generator they are drawn from it.

    Raises:
        ArgumentValueError: the sampler has neither.
    """
    drawing = [label(p) for p in chain.processors if getattr(p, "draws", False)]
    if not drawing:
        return None
    generator = getattr(sampler, "generator", None)
    keys: Tensor | None = getattr(sampler, "keys", None)
    if generator is not None:
        return torch.randint(2**62, (num_rows,), generator=generator, device=generator.device)
    if keys is None:
        hint = f"{', '.join(drawing)} draws; Sample(...) has a source of randomness for it"
        raise ArgumentValueError("strategy", sampler, "one that draws tokens", hint)
    return keys
