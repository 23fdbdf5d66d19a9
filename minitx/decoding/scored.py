"""What the searches that look for the best texts share: how these are scored, and when a search is done.

P prompts, K candidates, M places in the pool, V vocabulary.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from minitx.decoding.checks import number, settle
from minitx.decoding.loop import Call
from minitx.decoding.rows import Pool
from minitx.decoding.search import Run, Search
from minitx.decoding.tree import Link

EarlyStopping = bool | Literal["never", "exact"]

_LARGEST_PENALTY = 40
_LARGEST_NORM = 30 * math.log(10)  # its logarithm; scores are float32, and must not vanish or overflow
_LONGEST = 2**16  # who asks for more tokens mostly means "until it ends"


@dataclass(frozen=True, kw_only=True, repr=False)
class ScoredSearch(Search):
    """A search whose hypotheses are compared by sum / length ** length_penalty.

    Attributes:
        length_penalty: since sums are negative, above 0 favours long texts and below 0 short ones; 0 compares
            sums, 1 averages over the tokens.
        early_stopping: when a prompt that has as many hypotheses as it keeps is done, besides when none of
            its beams goes on.
            True: at once.
            False: when the best beam, were it to end now, would be no better than the worst of them. A guess:
                with length_penalty above 0 a beam may yet become better.
            "never": the same, but with length_penalty above 0 the beam is judged by the most tokens that it
                can come to.
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

    def attainable(self, sums: Tensor, length: int, call: Call) -> Tensor:
        """The score that a beam is still believed to be able to come to.

        Args:
            sums: any shape, of log-probabilities.
            length: how many tokens these are of.
            call: of the search.
        """
        longest = self.early_stopping == "never" and self.length_penalty > 0
        return sums / self.norm(call.max_new_tokens if longest else length)

    def satisfied(self, pool: Pool, best: Tensor, length: int, call: Call) -> Tensor:
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
        return full if self.early_stopping is True else full & (worst >= self.attainable(best, length, call))

    def short_of(self, found: int, wanted: int) -> str:
        """What an error says of too few hypotheses."""
        return (
            f"{found} of the num_samples={wanted} hypotheses were found: the model's vocabulary, "
            "max_new_tokens and the processors leave no other texts."
        )

    def _check(self) -> None:
        super()._check()
        limits = f"[-{_LARGEST_PENALTY}, {_LARGEST_PENALTY}]"
        self._settle_number("length_penalty", limits, "0 compares sums, above 0 favours longer texts")
        if not isinstance(self.early_stopping, bool) and self.early_stopping not in self._ways_to_stop:
            *ways, last = "True", "False", *(f'"{way}"' for way in self._ways_to_stop)
            raise ValueError(f"early_stopping={self.early_stopping!r} must be {', '.join(ways)} or {last}.")

    def _settle_number(self, name: str, interval: str, meaning: str) -> None:
        value = number(name, getattr(self, name), interval, meaning)
        if isinstance(value, tuple):
            raise TypeError(f"{name}={getattr(self, name)!r} must be one number.")
        settle(self, **{name: value})


class ScoredRun(Run):
    """A search on its way that keeps the best of what has ended."""

    def __init__(self, strategy: ScoredSearch, call: Call, width: int, *, watch: bool = False) -> None:
        super().__init__(strategy, call, width, watch=watch)
        self._short_of = strategy.short_of

    @abstractmethod
    def hypotheses(self, prompt: int) -> list[tuple[float, int]]:
        """Score and last candidate's code of all that a prompt keeps, the best first."""

    def found(self) -> list[list[tuple[float, Link]]]:
        wanted, found = self.call.num_samples, []
        for prompt in range(len(self.call.prompts)):
            best = self.hypotheses(prompt)[:wanted]
            if len(best) < wanted:
                raise ValueError(f"Prompt {prompt}: {self._short_of(len(best), wanted)}")
            found.append([(score, self.trace.link(code)) for score, code in best])
        return found
