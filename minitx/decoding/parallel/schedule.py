"""Schedules: which masked positions of a row are filled at which step.

A schedule is a frozen dataclass with two methods. `most_steps` bounds the number of steps for a row; `step`
gets a `FillStep`, the row's masked positions with the tokens and distributions that the model proposes for
them, and returns an `FillUpdate`, the tokens with which the next step begins. It sees one row at a time and
holds no state, so that a row does not depend on its batch. `mask_predict.py`, `remasking.py` and
`entropy_bound.py` have one each.

M positions of a row that were masked at the start, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from minitx.decoding.samplers.greedy import Greedy
from minitx.decoding.strategy import Strategy
from minitx.validation import check_choice, check_type

Random = Callable[[str], Tensor]


@dataclass(frozen=True, eq=False)
class FillStep:
    """One row at one step. All tensors describe its M open positions, from left to right.

    Attributes:
        number: of the step, from 1.
        ids: (M,) long, the tokens that the model has just seen there.
        masked: (M,) bool, where that was the mask token.
        tokens: (M,) long, the proposed tokens, chosen by the schedule's `draw`. Positions that are filled
            keep theirs, unless the schedule `revises`.
        log_probs: (M, V) float32, by which confidence is measured; of positions without a proposal undefined.
        mask_token_id: of the mask token.
        state: the state in the row's last `FillUpdate`; None at the first step.
        random: (name) -> (M,) float64 uniform in [0, 1), different for each name and step.
    """

    number: int
    ids: Tensor
    masked: Tensor
    tokens: Tensor
    log_probs: Tensor
    mask_token_id: int
    state: Any
    random: Random

    @cached_property
    def confidence(self) -> Tensor:
        """(M,): the probability of each proposed token."""
        return self.log_probs.gather(1, self.tokens[:, None]).squeeze(1).exp()

    @cached_property
    def margin(self) -> Tensor:
        """(M,): by how much the most probable token is more probable than the next."""
        best = self.log_probs.topk(2, dim=-1).values.exp()
        return best[:, 0] - best[:, 1]

    @cached_property
    def entropy(self) -> Tensor:
        """(M,), in nats."""
        return -(self.log_probs.exp() * self.log_probs).nan_to_num(nan=0.0).sum(dim=-1)

    def filled(self, chosen: Tensor) -> Tensor:
        """Returns the row's tokens with the proposed ones at the chosen positions: (M,) bool -> (M,)."""
        return torch.where(chosen, self.tokens, self.ids)


class FillUpdate(NamedTuple):
    """The result of a step for one row.

    Attributes:
        ids: (M,) long, the tokens of the open positions; the mask token where they are still to be filled.
        done: whether the row ends here. A schedule that does not revise ends with the last mask in any case.
        state: for the row's next step.
    """

    ids: Tensor
    done: bool = False
    state: Any = None


@dataclass(frozen=True, kw_only=True)
class FillStrategy(ABC):
    """The base class of the schedules of `fill`.

    Attributes:
        draw: how a position's token is chosen: `Greedy()` takes the most probable one, `Sample(...)` draws.
            Each position is a distribution of its own: processors that depend on the tokens before it are
            refused, and penalties count the given and the filled tokens of the row.
        probabilities: by which confidence is measured: "raw" for the model's, as in LLaDA, "processed" for
            those after the processors of `draw`, as in Dream. The mask token has none of it.

    Raises:
        ArgumentTypeError, ArgumentValueError: values of the wrong type or out of range.
    """

    draw: Strategy = Greedy()  # noqa: RUF009 - frozen
    probabilities: Literal["raw", "processed"] = "raw"

    # Whether positions that are filled get proposals too.
    revises: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_type("draw", self.draw, Strategy, "a Greedy(...) or Sample(...)")
        check_choice("probabilities", self.probabilities, ("raw", "processed"))

    @property
    def is_random(self) -> bool:
        """Whether the schedule itself calls `FillStep.random`, so that it needs a seed."""
        return False

    def start(self, ids: Tensor, vocab_size: int, random: Random) -> Tensor:
        """Returns the tokens of a row's open positions with which the first step begins.

        Args:
            ids: (M,) long, all the mask token.
            vocab_size: V.
            random: as `FillStep.random`.
        """
        return ids

    def temperature(self, number: int) -> float:
        """Returns the divisor of the logits at a step, counted from 1, before the processors of `draw`."""
        return 1.0

    @abstractmethod
    def most_steps(self, size: int) -> int:
        """Returns the most steps that a row with `size` open positions takes."""

    @abstractmethod
    def step(self, row: FillStep) -> FillUpdate:
        """Returns a row's tokens after a step."""


def best_of(scores: Tensor, among: Tensor, count: int) -> Tensor:
    """Returns the `count` positions with the highest scores among some; of equal ones the leftmost.

    Args:
        scores: (M,).
        among: (M,) bool.
        count: at most the number of positions among which it chooses.

    Returns:
        (M,) bool.
    """
    ranked = scores.masked_fill(~among, -torch.inf).sort(descending=True, stable=True).indices
    return torch.zeros_like(among).index_fill(0, ranked[:count], True) & among
