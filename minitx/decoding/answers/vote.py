"""Self-consistency: the answer that most samples agree on.

Wang et al. 2022, "Self-Consistency Improves Chain of Thought Reasoning in Language Models", arXiv:2203.11171.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from minitx.decoding.answers.extract import Extract, check_extract, find_answer, texts_of
from minitx.decoding.output import Result
from minitx.decoding.parameters import NON_NEGATIVE, to_plain
from minitx.validation import ArgumentValueError, check_choice, check_number

Weighting = Literal["equal", "mean", "total"]


@dataclass(frozen=True, eq=False)
class Vote:
    """The answers of several samples. It prints a line for each, best first.

    Attributes:
        answers: the different answers, with the most weight first; of equal ones the earlier.
        weights: of each, the sum of its samples' weights.
        rows: of each, the numbers of its samples.
        unanswered: the numbers of the samples without an answer.
    """

    answers: list[Hashable]
    weights: list[float]
    rows: list[list[int]]
    unanswered: list[int]

    @property
    def answer(self) -> Hashable:
        """The answer with the most weight; None if no sample has one."""
        return self.answers[0] if self.answers else None

    @property
    def share(self) -> float:
        """Its part of the weight of all answers, a measure of confidence; 0 without an answer."""
        return self.weights[0] / sum(self.weights) if self.answers and sum(self.weights) else 0.0

    def __repr__(self) -> str:
        """A line per answer: its share of the weight, its samples, and itself."""
        total = sum(self.weights) or 1.0
        lines = [
            f"{weight / total:6.1%}  {_samples(rows)}  {answer!r:.60}"
            for answer, weight, rows in zip(self.answers, self.weights, self.rows, strict=True)
        ]
        hint = "" if self.answers else ": pass extract=, a regular expression or a function"
        missing = [f"        {_samples(self.unanswered)}  without an answer{hint}"] if self.unanswered else []
        return "\n".join([*lines, *missing])


def self_consistency(
    texts: Result | Sequence[str],
    extract: Extract = None,
    *,
    weights: Weighting | Sequence[float] = "equal",
) -> Vote:
    """Extracts the answer of each sample and counts them: a majority vote, or a weighted one.

    Args:
        texts: the samples of one question: a result of `generate` with a tokenizer, or texts.
        extract: how to find the answer: a function from a text to a hashable answer, or None for none; a
            regular expression, whose last match, or its first group, is the answer; None for the last number.
        weights: "equal"; "mean", each sample's probability to the power 1 / T, the paper's normalized
            weighted sum; "total", its probability; or one number per text.

    Raises:
        ArgumentTypeError, ArgumentValueError: no texts; weights by log-probabilities without a result that
            has them; not one weight per text.
    """
    extract = check_extract(extract)
    strings = texts_of(texts)
    numbers = _weights(texts, strings, weights)
    rows: dict[Hashable, list[int]] = {}
    unanswered = []
    for row, text in enumerate(strings):
        found = find_answer(text, extract)
        if found is None:
            unanswered.append(row)
        else:
            rows.setdefault(found.value, []).append(row)
    sums = {answer: math.fsum(numbers[row] for row in members) for answer, members in rows.items()}
    answers = sorted(rows, key=lambda answer: -sums[answer])  # stable: of equal ones the earlier
    return Vote(answers, [sums[a] for a in answers], [rows[a] for a in answers], unanswered)


def _samples(rows: list[int]) -> str:
    return f"{len(rows):>4} {'sample ' if len(rows) == 1 else 'samples'}"


def _weights(texts: Any, strings: list[str], weights: Any) -> list[float]:
    """Returns the weight of each text."""
    if not isinstance(weights, str):
        plain = to_plain(weights)
        if not isinstance(plain, list | tuple) or len(plain) != len(strings):
            raise ArgumentValueError("weights", weights, f"a number for each of the {len(strings)} texts")
        hint = "a weight"
        return [check_number(f"weights[{i}]", to_plain(w), NON_NEGATIVE, hint) for i, w in enumerate(plain)]
    check_choice("weights", weights, ("equal", "mean", "total"), "or one number per text")
    if weights == "equal":
        return [1.0] * len(strings)
    if not isinstance(texts, Result) or texts.logprobs is None:
        hint = 'generate(..., logprobs="raw") gives the log-probabilities for it'
        raise ArgumentValueError("weights", weights, '"equal" for texts without log-probabilities', hint)
    totals = [float(row.double().sum()) for row in texts.logprobs]
    lengths = [max(len(row), 1) if weights == "mean" else 1 for row in texts.logprobs]
    return [math.exp(total / length) for total, length in zip(totals, lengths, strict=True)]
