"""Minimum Bayes risk: the sample that is most similar to the others.

Eikema and Aziz 2020, "Is MAP Decoding All You Need?", arXiv:2005.10283; arXiv:2108.04718. The expected
utility of a text under the model is estimated by its mean utility with samples of it as references.

C candidates, R references.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from minitx.decoding.answers import utility as similarity
from minitx.decoding.answers.extract import texts_of
from minitx.decoding.output import Result
from minitx.decoding.parameters import NON_NEGATIVE, to_plain
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    Interval,
    check_choice,
    check_flags,
    check_number,
)

Utility = Literal["chrf", "token-f1"] | Callable[[str, str], float]

_PROFILES: dict[str, Any] = {
    "chrf": (similarity.characters, similarity.BETA),
    "token-f1": (similarity.words, 1.0),
}
_FIRST_REFERENCES = 8  # of a pruned search; then twice as many, and so on
_RESAMPLES = 500
_CONFIDENCE = Interval(0.5, 1, open_low=True, open_high=True)
_SHOWN = 10


@dataclass(frozen=True, eq=False)
class Consensus:
    """Candidates by their mean utility. It prints the best ten.

    Attributes:
        texts: the candidates, as passed.
        order: their numbers, best first; of equal ones the earlier.
        utilities: of each candidate, its mean utility; of a pruned one, over the references until then.
        pruned: the numbers of candidates that were abandoned early.
        num_comparisons: the pairs of texts that were compared.
    """

    texts: list[str]
    order: list[int]
    utilities: list[float]
    pruned: list[int]
    num_comparisons: int

    @property
    def best(self) -> str:
        """The text with the highest mean utility."""
        return self.texts[self.order[0]]

    def __repr__(self) -> str:
        """The best ten candidates: number, mean utility, text."""
        lines = []
        for index in self.order[:_SHOWN]:
            start, shown = f"{index:>4}  {self.utilities[index]:6.3f}  ", repr(self.texts[index])
            lines.append(start + (shown if len(start + shown) <= 80 else f"{shown[: 79 - len(start)]}…"))
        more = len(self.order) - len(lines)
        return "\n".join([*lines, f"and {more} more"] if more else lines)


def mbr(
    texts: Result | Sequence[str],
    utility: Utility = "chrf",
    *,
    references: Result | Sequence[str] | None = None,
    weights: Sequence[float] | Tensor | None = None,
    aggregate: bool = False,
    prune: float | None = None,
) -> Consensus:
    """Ranks texts by their mean utility with references: argmax over y of the mean over r of u(y, r).

    Args:
        texts: the candidates: a result of `generate` with a tokenizer, or texts.
        utility: "chrf" (see `chrf`), "token-f1" (see `token_f1`), or a function u(candidate, reference).
        references: samples of the model; None for the candidates themselves.
        weights: of the references, such as their probabilities; None for equal ones.
        aggregate: compare with the mean counts of all references: C comparisons in place of C R, with nearly
            the same result (arXiv:2402.04251); for the two named utilities.
        prune: a confidence such as 0.99, above 0.5: candidates that are not the best, by a bootstrap over
            the references so far, are abandoned early (arXiv:2311.14919). None compares all pairs.

    Raises:
        ArgumentTypeError, ArgumentValueError: no texts; not one weight per reference; ways that exclude one
            another.
    """
    candidates = texts_of(texts)
    others = candidates if references is None else texts_of(references)
    check_flags(aggregate=aggregate)
    if not callable(utility):
        check_choice("utility", utility, _PROFILES, "or a function of two texts")
    shares = _shares(weights, len(others))
    if prune is not None:
        prune = check_number("prune", to_plain(prune), _CONFIDENCE, "a confidence such as 0.99")
        if aggregate or weights is not None:
            wrong = "aggregate" if aggregate else "weights"
            value = aggregate if aggregate else weights
            raise ArgumentValueError(wrong, value, "left out with prune=", "pruning draws references anew")
    if aggregate and callable(utility):
        raise ArgumentValueError("aggregate", aggregate, "False", "a function has no mean reference")
    table = _Table(candidates, others, utility)
    pruned: list[int] = []
    if aggregate:
        means = table.against_mean(shares)
    elif prune is not None:
        means, pruned = _prune(table, len(candidates), len(others), prune)
    else:
        columns = [table.column(range(len(candidates)), reference) for reference in range(len(others))]
        means = (torch.stack(columns, dim=1) @ torch.tensor(shares, dtype=torch.float64)).tolist()
    gone = set(pruned)
    order = sorted(range(len(candidates)), key=lambda index: (index in gone, -means[index]))
    return Consensus(candidates, order, means, pruned, table.comparisons)


class _Table:
    """The utilities of pairs of texts, computed when they are needed."""

    def __init__(self, candidates: list[str], references: list[str], utility: Any) -> None:
        self.comparisons = 0
        self._candidates: list[Any] = [*candidates]
        self._references: list[Any] = [*references]
        if callable(utility):
            self._compare = utility
        else:
            profile, beta = _PROFILES[utility]
            self._compare = lambda ours, theirs: similarity.f_score(ours, theirs, beta)
            known = {text: profile(text) for text in {*candidates, *references}}
            self._candidates = [known[text] for text in candidates]
            self._references = [known[text] for text in references]

    def column(self, candidates: Sequence[int], reference: int) -> Tensor:
        """Returns the utility of candidates with one reference, float64."""
        self.comparisons += len(candidates)
        values = [self._compare(self._candidates[c], self._references[reference]) for c in candidates]
        for value in values:
            if isinstance(value, bool) or not isinstance(to_plain(value), int | float):
                raise ArgumentTypeError("utility", value, "a function that returns numbers")
        return torch.tensor([float(value) for value in values], dtype=torch.float64)

    def against_mean(self, shares: list[float]) -> list[float]:
        """Returns the utility of each candidate with the mean of the references."""
        self.comparisons += len(self._candidates)
        mean = similarity.average(self._references, shares)
        return [self._compare(candidate, mean) for candidate in self._candidates]


def _prune(
    table: _Table, candidates: int, references: int, confidence: float
) -> tuple[list[float], list[int]]:
    """Returns the mean utilities, and the candidates that were abandoned, in this order."""
    alive, means = list(range(candidates)), [0.0] * candidates
    utilities = torch.zeros(candidates, 0, dtype=torch.float64)
    generator, pruned = torch.Generator().manual_seed(0), []
    size = 0
    while size < references:
        following = min(max(_FIRST_REFERENCES, 2 * size), references)
        columns = [table.column(alive, reference) for reference in range(size, following)]
        utilities, size = torch.cat([utilities, torch.stack(columns, dim=1)], dim=1), following
        average = utilities.mean(dim=1)
        for index, candidate in enumerate(alive):
            means[candidate] = float(average[index])
        drawn = torch.randint(size, (_RESAMPLES, size), generator=generator)
        resampled = torch.stack([row[drawn].mean(dim=1) for row in utilities])  # (alive, resamples)
        best = resampled[int(average.argmax())]
        kept = (resampled >= best).double().mean(dim=1) > 1 - confidence
        pruned += [candidate for candidate, keep in zip(alive, kept.tolist(), strict=True) if not keep]
        alive = [candidate for candidate, keep in zip(alive, kept.tolist(), strict=True) if keep]
        utilities = utilities[kept]
        if len(alive) == 1:
            break
    return means, pruned


def _shares(weights: Any, references: int) -> list[float]:
    """Returns the weights of the references, of sum 1."""
    if weights is None:
        return [1 / references] * references
    plain = to_plain(weights)
    if not isinstance(plain, list | tuple) or len(plain) != references:
        raise ArgumentValueError("weights", weights, f"a number for each of the {references} references")
    numbers = [check_number(f"weights[{i}]", to_plain(w), NON_NEGATIVE) for i, w in enumerate(plain)]
    if sum(numbers) == 0:
        raise ArgumentValueError("weights", weights, "numbers of which one is above 0")
    return [number / sum(numbers) for number in numbers]
