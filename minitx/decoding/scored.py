"""What the searches of transformers 4.53 share: how hypotheses are scored, and when a search is done.

P prompts, K candidates, V vocabulary.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from minitx.decoding.checks import number, settle
from minitx.decoding.loop import Call
from minitx.decoding.result import Result
from minitx.decoding.search import Pool, Search, nothing, result_of
from minitx.decoding.tree import Link, Trace

_LARGEST_PENALTY = 40  # n ** length_penalty stays what a float can hold


class Run(Protocol):
    """A search on its way."""

    trace: Trace

    @property
    def done(self) -> bool:
        """Whether no prompt is searched any more."""
        ...

    def step(self) -> None:
        """Every beam gets a token, or ends."""
        ...

    def pool(self, prompt: int) -> list[tuple[float, int]]:
        """Scores and codes of what a prompt has found."""
        ...


@dataclass(frozen=True, kw_only=True, repr=False)
class ScoredSearch(Search):
    """A search whose hypotheses are compared by sum / length ** length_penalty.

    Attributes:
        length_penalty: since sums are negative, above 0 favours long texts and below 0 short ones.
        early_stopping: when a search is done that has as many hypotheses as it keeps. True: at once. False:
            when the best candidate of a step, were it to end there, would be no better than the worst of
            them. "never": the same, but with length_penalty above 0 it is judged by max_new_tokens.
    """

    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False

    @torch.inference_mode()
    def search(self, call: Call) -> Result:
        """Runs the call; raises as `Search.search`."""
        self.check_call(call)
        if call.max_new_tokens == 0:
            return nothing(call)
        run = self.begin(call)
        while not run.done:
            run.step()
        found = [self._best(run, prompt, call.num_samples) for prompt in range(len(call.prompts))]
        return result_of(call, run.trace, found, self.norm)

    @abstractmethod
    def begin(self, call: Call) -> Run:
        """The search before its first step."""

    def check_call(self, call: Call) -> None:
        super().check_call(call)
        if call.stop.strings:
            raise ValueError(
                f"{type(self).__name__}(...) cannot stop at strings; give Stop(tokens=...), or use Beam(...)."
            )

    def norm(self, length: int) -> float:
        """What the sum of the log-probabilities of so many tokens is divided by."""
        return float(length**self.length_penalty)

    def satisfied(self, pool: Pool, best: Tensor, length: int, most: int) -> Tensor:
        """Whether prompts are done.

        Args:
            pool: of their hypotheses.
            best: (P,), the largest sum among the candidates of this step.
            length: how many tokens these have.
            most: how many they can come to.

        Returns:
            (P,) bool
        """
        worst = pool.scores[:, -1]
        full = worst > -torch.inf
        if self.early_stopping is True:
            return full
        longest = self.early_stopping == "never" and self.length_penalty > 0
        return full & (worst >= best / self.norm(most if longest else length))

    def _best(self, run: Run, prompt: int, wanted: int) -> Sequence[tuple[float, Link]]:
        found = sorted(run.pool(prompt), reverse=True)[:wanted]
        if len(found) < wanted:
            raise ValueError(f"Prompt {prompt}: {self._short_of(len(found), wanted)}")
        return [(score, run.trace.link(code)) for score, code in found]

    def _short_of(self, found: int, wanted: int) -> str:
        return (
            f"only {found} hypotheses were found, fewer than num_samples={wanted}: the processors ban all "
            "other texts."
        )

    def _check(self) -> None:
        super()._check()
        limits = f"[-{_LARGEST_PENALTY}, {_LARGEST_PENALTY}]"
        self._settle_number("length_penalty", limits, "0 compares sums, above 0 favours longer texts")
        if not isinstance(self.early_stopping, bool) and self.early_stopping != "never":
            raise ValueError(f'early_stopping={self.early_stopping!r} must be True, False or "never".')

    def _settle_number(self, name: str, interval: str, meaning: str) -> None:
        value = number(name, getattr(self, name), interval, meaning)
        if isinstance(value, tuple):
            raise TypeError(f"{name}={getattr(self, name)!r} must be one number.")
        settle(self, **{name: value})


def ends(call: Call, tokens: Tensor, length: int) -> Tensor:
    """(P, K) tokens, each the length-th of its text -> (P, K) bool: which end their text."""
    found = torch.zeros_like(tokens, dtype=torch.bool)
    for token in call.stop.eos:
        found |= tokens == token
    if call.stop.tokens:
        may_stop = length >= torch.tensor(call.min_new_tokens, device=tokens.device)[:, None]
        for token in call.stop.tokens:
            found |= (tokens == token) & may_stop
    return found


def candidates_of(call: Call, beams: int, vocab_size: int) -> int:
    """So many candidates that as many as there are beams go on, however many end."""
    return min(max(2, 1 + len({*call.stop.eos, *call.stop.tokens})), vocab_size) * beams
