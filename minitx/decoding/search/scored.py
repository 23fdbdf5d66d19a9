"""What the searches that look for the best texts share: how these are scored, and when a search is done.

P prompts, M places in the pool.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from minitx.decoding.loop import Call
from minitx.decoding.parameters import set_frozen
from minitx.decoding.search.base import Search
from minitx.decoding.search.rows import BeamHypotheses
from minitx.validation import Interval, check_number

EarlyStopping = bool | Literal["never", "exact"]

_LARGEST_PENALTY = 40
_LARGEST_NORM = 30 * math.log(10)  # its logarithm; scores are float32, and must not vanish or overflow
_LONGEST = 2**16  # who asks for more tokens mostly means "until it ends"


@dataclass(frozen=True, kw_only=True, repr=False)
class ScoredSearch(Search, example="Beam"):
    """A search whose hypotheses are compared by sum / length ** length_penalty.

    Attributes:
        length_penalty, early_stopping: as `Beam` explains them.
    """

    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False

    _ways_to_stop: ClassVar[tuple[str, ...]] = ("never",)

    def norm(self, length: int) -> float:
        """What the sum of the log-probabilities of so many tokens is divided by for a hypothesis' score."""
        return float(self.size(length) ** self.length_penalty)

    def size(self, length: int) -> float:
        """What `length_penalty` is the power of, for so many tokens."""
        return length

    def check_call(self, call: Call) -> None:
        super().check_call(call)
        longest = self.size(min(max(1, call.max_new_tokens), _LONGEST))
        if abs(self.length_penalty) * math.log(longest) > _LARGEST_NORM:
            raise ValueError(
                f"length_penalty={self.length_penalty:g} with max_new_tokens={call.max_new_tokens} gives "
                "scores that float32 cannot hold; bring it nearer to 0, or ask for fewer tokens."
            )

    def is_done(self, pool: BeamHypotheses, best: Tensor, length: int, call: Call) -> Tensor:
        """Whether prompts are done, as far as their hypotheses say.

        Args:
            pool: of these.
            best: (P,), the largest sum that may go on.
            length: how many tokens it is of.
            call: of the search.

        Returns:
            (P,) bool
        """
        worst = pool.scores[:, -1]
        full = worst > -torch.inf
        if self.early_stopping is True:
            return full
        longest = self.early_stopping == "never" and self.length_penalty > 0
        return full & (worst >= best / self.norm(call.max_new_tokens if longest else length))

    def _check(self) -> None:
        super()._check()
        limits = Interval(-_LARGEST_PENALTY, _LARGEST_PENALTY)
        self._settle_number("length_penalty", limits, "0 compares sums, above 0 favours longer texts")
        if not isinstance(self.early_stopping, bool) and self.early_stopping not in self._ways_to_stop:
            *ways, last = "True", "False", *(f'"{way}"' for way in self._ways_to_stop)
            raise ValueError(f"early_stopping={self.early_stopping!r} must be {', '.join(ways)} or {last}.")

    def _settle_number(self, name: str, interval: Interval, meaning: str) -> None:
        set_frozen(self, **{name: check_number(name, getattr(self, name), interval, meaning)})
