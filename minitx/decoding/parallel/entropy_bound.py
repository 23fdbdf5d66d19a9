"""Entropy-bounded decoding: all positions are proposed anew at each step, and the certain ones accepted.

Ben-Hamu et al. 2025, "Accelerated Sampling from Masked Diffusion Models via Entropy Bounded Unmasking",
arXiv:2505.24857, bound the entropies of the positions that are accepted together, which bounds how much these
depend on one another. DiffusionGemma (in transformers) adds the temperature, the revision of accepted tokens
and the early end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from minitx.decoding.parallel.schedule import FillStep, FillStrategy, FillUpdate, Random
from minitx.decoding.parameters import NON_NEGATIVE, POSITIVE, check_size, set_frozen
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.strategy import Strategy
from minitx.validation import ArgumentValueError, check_choice, check_number


@dataclass(frozen=True, kw_only=True)
class EntropyBound(FillStrategy):
    """Accepts, at each step, as many positions of low entropy as a bound allows; masks the others again.

    Sorted by entropy, position k is accepted if the entropies of those before it sum to at most `bound`, so
    the first one always is. Accepted tokens are seen by the next step but proposed again, and can be
    replaced. The result has the most probable tokens of the last step.

    Attributes:
        steps: the most steps, N.
        bound: of the sum of entropies, in nats.
        t_max, t_min: the temperature of step s is t_min + (t_max - t_min) (N - s + 1) / N; equal for a
            constant one.
        stable_steps: a row ends when its most probable tokens are those of so many steps before...
        confident_below: ... and the mean entropy of its positions is below this, in nats. 0: it never ends
            before N steps.
        noise: of the positions that are not accepted: "mask", or "random" for uniformly drawn tokens, as
            models need that were trained without a mask token.
    """

    draw: Strategy = Sample()  # noqa: RUF009 - frozen
    steps: int = 48
    bound: float = 0.1
    t_max: float = 0.8
    t_min: float = 0.4
    stable_steps: int = 1
    confident_below: float = 0.005
    noise: Literal["mask", "random"] = "mask"

    revises: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        hint = "in nats"
        set_frozen(
            self,
            steps=check_size("steps", self.steps, 1, "the most forward passes"),
            bound=check_number("bound", self.bound, NON_NEGATIVE, hint),
            t_max=check_number("t_max", self.t_max, POSITIVE, "the temperature of the first step"),
            t_min=check_number("t_min", self.t_min, POSITIVE, "the temperature towards the end"),
            stable_steps=check_size("stable_steps", self.stable_steps, 0, "the number of equal steps"),
            confident_below=check_number("confident_below", self.confident_below, NON_NEGATIVE, hint),
        )
        check_choice("noise", self.noise, ("mask", "random"))
        if self.t_min > self.t_max:
            raise ArgumentValueError("t_min", self.t_min, f"at most t_max={self.t_max:g}")

    @property
    def is_random(self) -> bool:
        """Whether the schedule needs a seed."""
        return self.noise == "random"

    def start(self, ids: Tensor, vocab_size: int, random: Random) -> Tensor:
        """Returns masks, or the noise with which the first step begins."""
        return ids if self.noise == "mask" else (random("noise") * vocab_size).long()

    def temperature(self, number: int) -> float:
        """Returns the temperature of a step: linear from `t_max` towards `t_min`."""
        return self.t_min + (self.t_max - self.t_min) * (self.steps - number + 1) / self.steps

    def most_steps(self, size: int) -> int:
        """Returns the most steps that a row with `size` open positions takes."""
        return self.steps

    def step(self, row: FillStep) -> FillUpdate:
        """Accepts some positions; the state has the most probable tokens of the last steps, newest last."""
        best = row.log_probs.argmax(dim=-1)
        history = (*(row.state or ()), best)[-self.stable_steps - 1 :]
        stable = len(history) > self.stable_steps and all(bool((old == best).all()) for old in history)
        if (stable and float(row.entropy.mean()) < self.confident_below) or row.number == self.steps:
            return FillUpdate(best, done=True)
        entropy, order = row.entropy.sort(stable=True)
        accepted = torch.empty_like(row.masked)
        accepted[order] = entropy.cumsum(0) - entropy <= self.bound
        size, masks = row.log_probs.shape[1], torch.full_like(row.ids, row.mask_token_id)
        return FillUpdate(
            torch.where(accepted, row.tokens, self.start(masks, size, row.random)), state=history
        )
