"""The best of several samples, by the model's probability or by a scorer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from minitx.decoding.generate import generate
from minitx.decoding.output import Result, Row
from minitx.decoding.parameters import POSITIVE, check_size, to_plain
from minitx.decoding.prompts import Prompts
from minitx.decoding.request import GenerationOptions
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.strategy import Strategy
from minitx.models import CausalModel
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_number, check_type

Scorer = Callable[[Row], float]


@dataclass(frozen=True, eq=False)
class Candidate:
    """One sample with its score.

    Attributes:
        row: its number in the result.
        tokens: (T,) long.
        text: None without a tokenizer.
        score: the higher the better.
    """

    row: int
    tokens: Tensor
    text: str | None
    score: float


@dataclass(frozen=True, eq=False)
class Ranking:
    """The samples of each prompt, best first. It prints a line for each.

    Attributes:
        candidates: per prompt its candidates.
        num_samples: N, the samples per prompt that were compared.
    """

    candidates: list[list[Candidate]]
    num_samples: int

    @property
    def best(self) -> list[Candidate]:
        """The first candidate of each prompt."""
        return [ranked[0] for ranked in self.candidates]

    @property
    def kl_bound(self) -> float:
        """The most that the law of the best of N can differ from the model's: ln N - (N - 1) / N nats.

        It is the Kullback-Leibler divergence if no two samples have the same score, and a bound in general
        (Beirami et al., arXiv:2401.01879).
        """
        return math.log(self.num_samples) - (self.num_samples - 1) / self.num_samples

    def __repr__(self) -> str:
        """A line per candidate: its prompt, rank, score, and text or ids."""
        lines = []
        for prompt, ranked in enumerate(self.candidates):
            for rank, candidate in enumerate(ranked):
                start = f"{prompt:>4} {rank:>3}  {candidate.score:9.3f}  "
                shown = repr(candidate.tokens.tolist() if candidate.text is None else candidate.text)
                fits = len(start + shown) <= 80
                lines.append(start + (shown if fits else f"{shown[: 79 - len(start)]}…"))
        return "\n".join(lines)


def best_of(
    model: CausalModel,
    prompts: Prompts,
    strategy: Strategy = Sample(),  # noqa: B008 - frozen
    *,
    best_of: int = 20,
    n: int = 1,
    **options: Unpack[GenerationOptions],
) -> Ranking:
    """Draws several samples per prompt and returns those with the highest mean log-probability of a token.

    That is OpenAI's `best_of`. The mean favours neither short nor long samples as such, but repetitive ones.

    Args:
        model, prompts: as for `generate`.
        strategy: one that gives a row per sample: sampling, or `Alternatives`.
        best_of: N, the samples per prompt that are drawn.
        n: the samples per prompt that are returned, at most N.
        options: of `generate`, without `num_samples`. logprobs="processed" ranks by the probabilities after
            the processors; by default they are the model's.

    Raises:
        TypeError, ValueError: as `generate`; n above N.
    """
    drawn = check_size("best_of", best_of, 1, "samples that are drawn")
    kept = check_size("n", n, 1, "samples that are returned")
    if kept > drawn:
        raise ArgumentValueError("n", n, f"at most best_of={drawn}")
    if "num_samples" in options:
        raise ArgumentValueError("num_samples", options["num_samples"], "left out", "best_of= is the number")
    settings: GenerationOptions = {"logprobs": "raw", **options, "num_samples": drawn}
    if settings["logprobs"] is None:
        raise ArgumentValueError("logprobs", None, '"raw" or "processed"', "they are what is compared")
    return rerank(generate(model, prompts, strategy, **settings), _mean_log_prob, num_samples=drawn, n=kept)


def rerank(
    result: Result,
    scorer: Scorer | Sequence[float] | Tensor,
    *,
    num_samples: int | None = None,
    n: int | None = None,
    temperature: float | None = None,
    seed: int | None = None,
) -> Ranking:
    """Sorts the samples of each prompt by a score: best-of-N.

    With a temperature t the order is drawn instead: the first is sample i with probability proportional to
    exp(score_i / t), the next follows the same law among the rest (soft best-of-N, arXiv:2505.03156).

    Args:
        result: of `generate`.
        scorer: a function from a `Row`, with its text, tokens and log-probabilities, to a number, such as a
            reward model or a test; or one number per row.
        num_samples: N, the rows of each prompt; None if all are of one.
        n: the candidates per prompt that are returned; None for all.
        temperature: t, above 0, of a soft ranking; None for the exact one.
        seed: of a soft ranking; None for a random one.

    Raises:
        ArgumentTypeError, ArgumentValueError: scores that are not numbers, or not one per row; rows that are
            no multiple of num_samples.
    """
    check_type("result", result, Result, "a Result of generate")
    number = len(result) if num_samples is None else check_size("num_samples", num_samples, 1)
    n = None if n is None else check_size("n", n, 1, "candidates per prompt")
    if number == 0 or len(result) % number:
        raise ArgumentValueError("num_samples", num_samples, f"a divisor of the {len(result)} rows")
    scores = _scores(result, scorer)
    keys = scores
    if temperature is not None:
        t = check_number("temperature", to_plain(temperature), POSITIVE, "None is the exact ranking")
        generator = torch.Generator()
        generator.seed() if seed is None else generator.manual_seed(check_size("seed", seed))
        noise = torch.empty(len(scores), dtype=torch.float64).exponential_(generator=generator)
        keys = scores / t - noise.log()
    elif seed is not None:
        raise ArgumentValueError("seed", seed, "left out", "without a temperature nothing is drawn")
    ranked = []
    for first in range(0, len(result), number):
        order = keys[first : first + number].argsort(descending=True, stable=True) + first
        chosen = [(row, result[row]) for row in order.tolist()[:n]]
        ranked.append([Candidate(row, r.tokens, r.text, float(scores[row])) for row, r in chosen])
    return Ranking(ranked, number)


def _scores(result: Result, scorer: Scorer | Sequence[float] | Tensor) -> Tensor:
    """Returns the checked score of each row, (rows,) float64."""
    values = [scorer(row) for row in result] if callable(scorer) else to_plain(scorer)
    if not isinstance(values, list | tuple):
        raise ArgumentTypeError("scorer", scorer, "a function of a Row, or a list of one number per row")
    if len(values) != len(result):
        raise ArgumentValueError("scorer", values, f"one number for each of the {len(result)} rows")
    numbers = []
    for row, value in enumerate(values):
        number = to_plain(value)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ArgumentTypeError(f"scorer: score of row {row}", number, "a number")
        if isinstance(number, int) and abs(number) > 2**1023:
            raise ArgumentValueError(f"scorer: score of row {row}", number, "a number that a float can hold")
        if math.isnan(number):
            raise ArgumentValueError(f"scorer: score of row {row}", number, "a number, not NaN")
        numbers.append(float(number))
    return torch.tensor(numbers, dtype=torch.float64)


def _mean_log_prob(row: Row) -> float:
    assert row.logprobs is not None  # `best_of` requests them
    return float(row.logprobs.double().mean()) if len(row.logprobs) else 0.0
