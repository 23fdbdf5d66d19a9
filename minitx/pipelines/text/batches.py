"""Generation for many prompts: batch by batch, with results that do not depend on the batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any

from minitx.decoding import Strategy
from minitx.decoding.arguments import check_model, decoder_prompts_of, remaining_tokens
from minitx.decoding.generate import generate
from minitx.decoding.output import Result
from minitx.decoding.prompts import Prompts, read_prompts
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.special_tokens import begin_token
from minitx.models import CausalModel
from minitx.tokenizer import Tokenizer
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


def tokens_left(
    model: Any, prompts: Any, decoder_prompts: Any, tokenizer: Tokenizer | None, max_length: int
) -> int:
    """Returns the number of tokens that a checkpoint's `max_length` leaves after the longest of all prompts.

    Args:
        model, prompts, tokenizer: as for `minitx.generate`.
        decoder_prompts: as for `minitx.generate`; empty if there are none.
        max_length: of the checkpoint's settings.

    Raises:
        ArgumentValueError: none.
    """
    if model.task == "seq2seq-lm":
        rows = decoder_prompts_of(model, decoder_prompts or None, len(prompts), tokenizer)
    else:
        size, bos = model.config.text_inputs.vocab_size, begin_token(model, tokenizer)
        rows = read_prompts(prompts, vocab_size=size, tokenizer=tokenizer, bos=bos)
    return remaining_tokens(max_length, rows)
