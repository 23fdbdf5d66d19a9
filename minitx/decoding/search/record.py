"""The record of a search: the candidates of every step, and which were kept.

Sequences of hypotheses are read from it when the search is over; `tree.py` draws it.

P prompts, N beams, C candidates, M places for finished hypotheses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor


class Link(NamedTuple):
    """A candidate's place in the record: its step, and its number among the C of its prompt."""

    step: int
    candidate: int


@dataclass
class SearchStep:
    """One step of a search. P here is the number of prompts that were still searched.

    The tensors become lists when they are first read.

    Attributes:
        prompts: their numbers.
        parents: (P, C) long, the beam that each candidate continues.
        tokens: (P, C) long.
        sums: (P, C), log-probabilities of the candidates' sequences after the chain.
        scores: (P, C), the candidates' scores as hypotheses.
        kept: (P, N) long, the candidates that are the next beams.
        exists: (P, N) bool, False for unused beams.
        finished: (P, M) long, codes of the finished hypotheses after this step; -1 for unused places.
        logprobs: (P, C), and ids and values (P, N, n), if the request asks for log-probabilities.
    """

    prompts: list[int]
    parents: Any
    tokens: Any
    sums: Any
    scores: Any
    kept: Any
    exists: Any
    finished: Any
    logprobs: tuple[Tensor, Tensor, Tensor] | None = None

    def read(self) -> SearchStep:
        """Converts the tensors to lists; returns itself."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.tolist())
        return self


@dataclass
class SearchRecord:
    """All steps of a search.

    Attributes:
        width: C. The code of a candidate is step * C + its number.
        steps: in order.
        done: the number of steps that each prompt was searched for.
    """

    width: int
    steps: list[SearchStep] = field(default_factory=list)
    done: dict[int, int] = field(default_factory=dict)

    def add(self, step: SearchStep) -> None:
        """Appends a step.

        On a CPU the previous one is read now: its small tensors would otherwise stay allocated between the
        large ones of the search and fragment the memory that those free.
        """
        if self.steps and step.tokens.device.type == "cpu":
            self.steps[-1].read()
        self.steps.append(step)

    def link(self, code: int) -> Link:
        """Returns the candidate with this code."""
        return Link(*divmod(code, self.width))

    def at(self, step: int, name: str, prompt: int) -> Any:
        """Returns a field of a step for one prompt, as a list."""
        content = self.steps[step].read()
        return getattr(content, name)[content.prompts.index(prompt)]

    def value(self, prompt: int, link: Link, name: str) -> Any:
        """Returns a field of one candidate: "tokens", "sums", "scores" or "parents"."""
        return self.at(link.step, name, prompt)[link.candidate]

    def parent(self, prompt: int, link: Link) -> Link | None:
        """Returns the candidate that this one continues; None at the first step."""
        if link.step == 0:
            return None
        before = self.at(link.step - 1, "kept", prompt)
        return Link(link.step - 1, before[self.value(prompt, link, "parents")])

    def path(self, prompt: int, link: Link) -> list[Link]:
        """Returns the candidates from the first step to this one."""
        path = [link]
        while (parent := self.parent(prompt, path[-1])) is not None:
            path.append(parent)
        return path[::-1]

    def extras(self, prompt: int, link: Link) -> tuple[Any, ...]:
        """Returns the log-probability fields of a candidate's `Event`, if they were requested."""
        step = self.steps[link.step]
        if step.logprobs is None:
            return ()
        logprobs, ids, values = (part[step.prompts.index(prompt)] for part in step.logprobs)
        beam = self.value(prompt, link, "parents")
        tops = tuple(zip(ids[beam].tolist(), values[beam].tolist(), strict=True)) or None
        return float(logprobs[link.candidate]), tops
