"""Strategies side by side: the text of each for one prompt, with length, variety, probability and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from minitx.decoding import Strategy
from minitx.decoding.generate import generate
from minitx.decoding.prompts import read_prompts
from minitx.decoding.score import score
from minitx.models.decoder import CausalModel
from minitx.pictures.text import cut_columns, fill
from minitx.pipelines.generation.records import finite
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_type

WIDTH = 80


@dataclass(frozen=True)
class Compared:
    """One strategy and its text.

    Attributes:
        strategy: as it prints.
        text: None without a tokenizer.
        tokens: the new tokens.
        distinct: shares of different n-grams among all, for n = 1, 2, 3 (arXiv:1510.03055, distinct-n); None
            for fewer than n tokens.
        logprob: the mean log-probability of a token by the model itself; None without tokens.
        seconds: the time of the call.
    """

    strategy: str
    text: str | None
    tokens: list[int]
    distinct: tuple[float | None, ...]
    logprob: float | None
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`; `print` shows it as a table, with the texts below.

    Attributes:
        prompt: the text, or the ids.
        rows: one per strategy, in their order.
    """

    prompt: Any
    rows: tuple[Compared, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns the same data as plain lists and dicts."""
        return asdict(self)

    def __str__(self) -> str:
        header = f"{'':32}{'tokens':>7}{'dist-1':>8}{'dist-2':>8}{'dist-3':>8}{'logprob':>9}"
        lines = [f"{header:<70}{'time':>8}"]
        for number, row in enumerate(self.rows, 1):
            name = cut_columns(f"{number}  {row.strategy}", 31)
            shares = "".join(f"{'-' if share is None else f'{share:.0%}':>8}" for share in row.distinct)
            logprob = "-" if row.logprob is None else f"{row.logprob:.2f}"
            lines.append(f"{name:<32}{len(row.tokens):>7}{shares}{logprob:>9}{row.seconds:>6.2f} s")
        for number, row in enumerate(self.rows, 1):
            text = " ".join(map(str, row.tokens)) if row.text is None else row.text
            lines += ["", fill(f"{number}  {row.strategy}", WIDTH)]
            lines += [
                f"   {part}" for line in text.splitlines() for part in fill(line, WIDTH - 3).split("\n")
            ]
        return "\n".join(lines)


def compare(
    model: CausalModel,
    prompt: str | Sequence[int],
    strategies: Sequence[Strategy],
    *,
    seed: int = 0,
    progress: Callable[[int], Any] | None = None,
    **options: Any,
) -> Comparison:
    """Continues one prompt with each strategy.

    Args:
        model: a causal language model, or an encoder-decoder, in eval mode.
        prompt: a text, or token ids.
        strategies: one or more.
        seed: of those that draw.
        progress: called with 1 after each strategy.
        **options: of `generate`, such as `max_new_tokens`, `tokenizer` and `stop`; one row per strategy.

    Raises:
        ArgumentTypeError, ArgumentValueError: several prompts, no strategies, or as `generate`.
    """
    if not isinstance(prompt, str) and any(not isinstance(token, int) for token in prompt):
        raise ArgumentTypeError("prompt", prompt, "one text, or the ids of one prompt")
    if not strategies:
        raise ArgumentValueError("strategies", strategies, "at least one strategy")
    if options.get("heal"):
        raise ArgumentValueError(
            "heal", True, "left out", "the prompt and the new tokens are scored together"
        )
    if options.get("num_samples", 1) != 1:
        raise ArgumentValueError("num_samples", options["num_samples"], "1", "a strategy has one text")
    for index, strategy in enumerate(strategies):
        check_type(f"strategies[{index}]", strategy, Strategy, "a Strategy such as Greedy()")
    rows = []
    first = {**options, "max_new_tokens": min(1, options.get("max_new_tokens") or 1)}
    _row(model, prompt, strategies[0], seed, first)  # the first call of a process is slower
    for strategy in strategies:
        rows.append(_row(model, prompt, strategy, seed, options))
        if progress is not None:
            progress(1)
    return Comparison(prompt if isinstance(prompt, str) else list(prompt), tuple(rows))


def _row(
    model: CausalModel, prompt: str | Sequence[int], strategy: Strategy, seed: int, options: dict[str, Any]
) -> Compared:
    """Runs one strategy."""
    inputs = prompt if isinstance(prompt, str) else [list(prompt)]
    draws: dict[str, Any] = {"seed": seed} if _draws(strategy) else {}
    start = time.perf_counter()
    result = generate(model, inputs, strategy, **draws, **options)
    seconds = time.perf_counter() - start
    row = result[0]
    tokens = row.tokens.tolist()
    logprob = _mean_logprob(model, inputs, tokens, options.get("tokenizer")) if tokens else None
    distinct = tuple(_distinct(tokens, n) for n in (1, 2, 3))
    return Compared(str(strategy), row.text, tokens, distinct, logprob, seconds)


def _draws(strategy: Strategy) -> bool:
    """Whether a seed has an effect."""
    try:
        strategy.sampler([[0]], seed=0)
    except ArgumentValueError as error:
        if error.parameter == "seed":
            return False
        raise
    return True


def _distinct(tokens: Sequence[int], n: int) -> float | None:
    """Returns the number of different n-grams over the number of n-grams."""
    ngrams = [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else None


def _mean_logprob(
    model: CausalModel, inputs: Any, tokens: list[int], tokenizer: Tokenizer | None
) -> float | None:
    """Returns the mean log-probability of the new tokens by the model itself, after the prompt."""
    if model.task == "seq2seq-lm":
        logprobs = score(model, [tokens], sources=inputs, tokenizer=tokenizer).logprobs[0]
    else:
        size = model.decoder_embedder.config.vocab_size
        (prompt,) = read_prompts(inputs, vocab_size=size, tokenizer=tokenizer)
        logprobs = score(model, [[*prompt, *tokens]]).logprobs[0][len(prompt) :]
    return finite(float(logprobs.mean()))
