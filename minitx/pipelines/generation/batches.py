"""Generation for many prompts: batch by batch, with results that do not depend on the batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch

from minitx.decoding import Strategy
from minitx.decoding.arguments import check_names, decoder_prompts_of, remaining_tokens, resolve
from minitx.decoding.continuous.generate_many import generate_as_completed, generate_many
from minitx.decoding.generate import generate
from minitx.decoding.output import Result
from minitx.decoding.parameters import parameters_of, to_plain
from minitx.decoding.processors.base import LogitsProcessor
from minitx.decoding.prompts import Prompts, read_prompts
from minitx.decoding.request import GenerationOptions, GenerationRequest
from minitx.decoding.samplers.counter_rng import RepeatedSeed
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.special_tokens import begin_token
from minitx.decoding.text.stopping import Stop
from minitx.models import CausalModel
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentValueError, check_flags, check_integer

_JOINED = 8  # batches that share a call of `generate_many`; results come after each


def generate_batches(
    model: CausalModel,
    prompts: Prompts,
    strategy: Strategy | Literal["checkpoint"] = Sample(),  # noqa: B008 - frozen
    *,
    batch_size: int = 8,
    continuous: bool = False,
    **options: Any,
) -> Iterator[Result]:
    """Yields the results of `generate` for any number of prompts, batch by batch.

    All arguments are checked before the first batch. The rows are those of `generate`, up to the last bits of
    the logits, if a seed is passed or nothing is drawn. Custom processors see the rows of one batch, and the
    seconds of a `Stop` are those of each batch.

    Args:
        model, prompts, strategy: as for `minitx.generate`.
        batch_size: prompts per batch; it limits memory and does not change the results.
        continuous: results of 8 times as many prompts, by `minitx.generate_many` with the rows of one batch
            at a time. Not where a row depends on others, as in a search, nor with a time limit, a literal
            chain of processors or CUDA graphs; these run batch by batch.
        **options: other options of `minitx.generate`; those per prompt or per row are for all prompts.

    Raises:
        TypeError, ValueError: as `minitx.generate`; a literal chain with values per row, for several batches.
    """
    batch_size = check_integer("batch_size", batch_size, 1, hint="prompts per batch")
    check_flags(continuous=continuous)
    check_names(generate_batches, options, GenerationOptions.__annotations__)
    kind, request = _resolve(model, prompts, strategy, options)
    inputs = request.passed_prompts if request.sources is None else request.sources
    per_prompt = 1 if kind.searches else request.num_samples
    several = len(inputs) > batch_size
    if several and isinstance(strategy, Strategy) and strategy.chain is not None and _has_rows(strategy):
        hint = "use the fields of the strategy, which are divided among the batches, or a larger batch_size"
        raise ArgumentValueError("chain", strategy.chain, "without values per row", hint)
    call: Callable[..., Result] = generate
    if several and continuous and _is_independent(model, prompts, strategy, options):
        call = partial(generate_many, rows=batch_size * per_prompt, progress=False)
        batch_size *= _JOINED
    options |= {"attention_mask": None, "max_new_tokens": request.max_new_tokens}  # those of all prompts
    seeds = None if options.get("seed") is None else _seeds(request, options["seed"])
    for first in range(0, len(inputs), batch_size):
        batch = slice(first, first + batch_size)
        rows = slice(first * per_prompt, batch.stop * per_prompt)
        options["seed"] = None if seeds is None else seeds[batch]
        options["decoder_prompts"] = None if request.sources is None else request.prompts[batch]
        parts = {"inputs_embeds": _part(options.get("inputs_embeds"), batch)}
        if options.get("guidance") is not None:
            parts["guidance"] = options["guidance"].part(batch)
        parts["min_new_tokens"] = _part(options.get("min_new_tokens"), rows)
        parts |= _stop_part(options.get("stop"), rows.start)
        part = _strategy_part(strategy, rows) if isinstance(strategy, Strategy) else strategy
        yield call(model, inputs[batch], part, **options | parts)


def _is_independent(model: Any, prompts: Prompts, strategy: Any, options: dict[str, Any]) -> bool:
    """Whether `generate_many` generates the rows of `generate`, and is as fast or faster."""
    steps, stop = getattr(model, "graph_steps", None), options.get("stop")
    if steps is not None and not steps.kind.serves_views:
        return False  # these would run without their CUDA graphs
    if stop is not None and stop.seconds is not None:
        return False
    if isinstance(strategy, Strategy) and strategy.chain is not None:
        return False
    try:
        with torch.random.fork_rng(devices=[]):
            generate_as_completed(model, prompts, strategy, **options)  # which checks the arguments
    except ArgumentValueError:
        return False
    return True


def _resolve(
    model: Any, prompts: Prompts, strategy: Any, options: dict[str, Any]
) -> tuple[Strategy, GenerationRequest]:
    """Checks the call for all prompts; returns its strategy and request. Generators stay as they are."""
    generator = options.get("generator")
    if isinstance(generator, torch.Generator):
        options = options | {"generator": generator.clone_state()}
    with torch.random.fork_rng(devices=[]):
        return resolve(model, prompts, strategy, options)  # type: ignore[arg-type]


def _part(values: Any, rows: slice) -> Any:
    """Returns the values of these rows; a value for all rows as it is."""
    several = getattr(values, "ndim", 0) > 0 or isinstance(values, list | tuple)
    return values[rows] if several else values


def _strategy_part(strategy: Strategy, rows: slice) -> Strategy:
    """Returns the strategy for these rows of the call."""
    per_row = (name for name, declared in parameters_of(strategy).items() if declared.per_row)
    values = {name: _part(getattr(strategy, name), rows) for name in per_row}
    if function := strategy.prefix_allowed_tokens_fn:
        values["prefix_allowed_tokens_fn"] = lambda row, tokens: function(rows.start + row, tokens)
    return replace(strategy, **values)


def _stop_part(stop: Stop | None, first: int) -> dict[str, Stop]:
    """Returns the conditions of rows from this number on, where they depend on it."""
    if stop is None or stop.function is None:
        return {}
    function = stop.function
    return {"stop": replace(stop, function=lambda row, tokens: function(first + row, tokens))}


def _has_rows(strategy: Strategy) -> bool:
    """Whether processors of a literal chain depend on the number of the row."""
    processors = strategy.build().processors
    return any(isinstance(p, LogitsProcessor) and not p.batch_invariant for p in processors)


def _seeds(request: GenerationRequest, seed: Any) -> list[RepeatedSeed]:
    """Returns the seed of each prompt, with the number of equal prompts of equal seed before it."""
    sources = request.sources or [[] for _ in request.prompts]
    plain = to_plain(seed)
    numbers = plain if isinstance(plain, Sequence) else [plain] * len(sources)
    seeds, times = [], Counter[tuple[int, ...]]()
    for number, source, start in zip(numbers, sources, request.passed_prompts, strict=True):
        row = (int(number), *source, *start)
        seeds.append(RepeatedSeed(number))
        seeds[-1].earlier = times[row]
        times[row] += 1
    return seeds


def remaining_tokens_of(
    model: Any, prompts: Any, decoder_prompts: Any, tokenizer: Tokenizer | None, max_length: int
) -> int:
    """Returns the number of tokens that a checkpoint's `max_length` leaves after the longest of all prompts.

    Args:
        model, prompts, tokenizer: as for `minitx.generate`.
        decoder_prompts: as for `minitx.generate`; empty if there are none.
        max_length: of the checkpoint's settings.

    Raises:
        ArgumentValueError: the longest prompt already has `max_length` tokens.
    """
    if model.task == "seq2seq-lm":
        rows = decoder_prompts_of(model, decoder_prompts or None, len(prompts), tokenizer)
    else:
        size, bos = model.config.text_inputs.vocab_size, begin_token(model, tokenizer)
        rows = read_prompts(prompts, vocab_size=size, tokenizer=tokenizer, bos=bos)
    return remaining_tokens(max_length, rows)
