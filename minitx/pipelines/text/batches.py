"""Generation for many prompts: batch by batch, with results that do not depend on the batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any

from minitx.decoding import Strategy
from minitx.decoding.arguments import check_model, decoder_prompts_of
from minitx.decoding.generate import generate
from minitx.decoding.output import Result
from minitx.decoding.prompts import Prompts, read_prompts
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.special_tokens import begin_token
from minitx.models import CausalModel
from minitx.validation import ArgumentTypeError, check_integer


def generate_batches(
    model: CausalModel,
    prompts: Prompts,
    strategy: Strategy = Sample(),  # noqa: B008 - frozen
    *,
    batch_size: int = 8,
    seed: int | None = None,
    **options: Any,
) -> Iterator[Result]:
    """Yields the results of `generate` for any number of prompts, batch by batch.

    All prompts are checked before the first batch.

    Args:
        model, prompts, strategy: as for `minitx.generate`.
        batch_size: prompts per batch; it limits memory and does not change the results.
        seed: one integer, with which a row depends on its prompt alone; equal prompts still differ.
        **options: other options of `minitx.generate`.

    Raises:
        TypeError, ValueError: as `minitx.generate`.
    """
    model, tokenizer = check_model(model), options.get("tokenizer")
    batch_size = check_integer("batch_size", batch_size, 1, hint="prompts per batch")
    size, encodes = model.config.text_inputs.vocab_size, model.task == "seq2seq-lm"
    bos = None if encodes else begin_token(model, tokenizer)
    rows = read_prompts(prompts, vocab_size=size, tokenizer=tokenizer, bos=bos)
    starts = options.pop("decoder_prompts", None)
    if encodes:
        starts = decoder_prompts_of(model, starts, len(rows), tokenizer)
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, Integral)):
        raise ArgumentTypeError("seed", seed, "an integer", "it is used for all prompts")
    seeds = None if seed is None else _seeds(rows, int(seed))
    for first in range(0, len(rows), batch_size):
        batch = slice(first, first + batch_size)
        options |= {"seed": seeds and seeds[batch], "decoder_prompts": starts[batch] if encodes else starts}
        yield generate(model, rows[batch], strategy, **options)


def _seeds(rows: Sequence[Sequence[int]], seed: int) -> list[int]:
    """Returns a seed for each row; equal rows get different ones, also in different batches."""
    seeds, times = [], Counter[tuple[int, ...]]()
    for row in map(tuple, rows):
        seeds.append(seed + (times[row] << 64))  # above all seeds that are passed
        times[row] += 1
    return seeds
