"""`generate_many` and `generate_as_completed`: a long list of prompts, a fixed number of rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch

from minitx.decoding.arguments import check_names, resolve
from minitx.decoding.continuous.per_row import has_values_per_row
from minitx.decoding.continuous.running import Job, RunningRows
from minitx.decoding.output import Event, Result, Row, collect
from minitx.decoding.parameters import check_size, to_plain
from minitx.decoding.prompts import Prompts
from minitx.decoding.request import GenerationOptions, GenerationRequest
from minitx.decoding.samplers.base import Argmax
from minitx.decoding.samplers.counter_rng import CounterGumbel
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.strategy import Strategy
from minitx.models import CausalModel
from minitx.validation import ArgumentValueError, check_type

# Prompts are prefilled together up to so many tokens, of which at most this share is padding.
TOGETHER, PADDING = 256, 0.25
_REFUSED = {
    "guidance": "its other prompts or models have no rows here; generate(...) takes it",
    "heal": "it knows prompts by their place in the batch; generate(...) takes it",
    "inputs_embeds": "generate(...) takes them",
    "generator": "all rows would share it; seed= gives each row its own numbers",
}


def generate_many(
    model: CausalModel,
    prompts: Prompts,
    strategy: Strategy | Literal["checkpoint"] = Sample(),  # noqa: B008 - frozen
    *,
    rows: int = 32,
    progress: bool | None = None,
    **options: Any,
) -> Result:
    """Continues many prompts of different lengths by continuous batching.

    A fixed number of rows runs at a time. When a row ends, the next prompt takes its place, so that no row
    waits for the longest one of a batch. Prompts with the most new tokens begin first. The rows of the result
    are in the order of the prompts, and are those of `generate` up to the last bits of the logits.

    Args:
        model, prompts, strategy: as for `generate`; the strategy is `Greedy`, `Sample` or another that draws
            one token at a time from numbers of the row's own, which searches and speculation do not.
        rows: the most rows at a time. More are faster until a step is slowed down by its arithmetic, and
            their keys and values need memory.
        progress: a progress bar on stderr: True at once, False never, None after a second at a terminal.
        **options: as for `generate`, without guidance, heal, inputs_embeds and generator. `max_new_tokens`
            may be one number per prompt.

    Raises:
        TypeError: an unknown option, or an argument of the wrong type.
        ValueError: arguments that do not fit together, before any work; what this function refuses; or a row
            without a token that can be drawn.

    Custom processors see the rows that run at the time, in no stated order. The seconds of a `Stop` are those
    of the whole call: prompts that begin after them get one token.
    """
    check_names(generate_many, options, GenerationOptions.__annotations__)
    request, jobs = _resolve(model, prompts, strategy, options)
    events: list[Event] = []
    with _progress_bar(len(jobs), progress) as bar:
        for step in _run(model, request, jobs, _check_rows(rows)):
            events += step
            bar.update(sum(event.finish_reason is not None for event in step))
    return collect(events, request)


def generate_as_completed(
    model: CausalModel,
    prompts: Prompts,
    strategy: Strategy | Literal["checkpoint"] = Sample(),  # noqa: B008 - frozen
    *,
    rows: int = 32,
    **options: Any,
) -> Iterator[tuple[int, Row]]:
    """Generates as `generate_many` does, and yields each row as soon as it has ended.

    Arguments are checked at the call. Iteration may stop at any row.

    Args:
        model, prompts, strategy, rows: as for `generate_many`.
        **options: as for `generate_many`.

    Returns:
        An iterator over the number of a row and the row: the samples of prompt i begin at i * num_samples.

    Raises:
        TypeError, ValueError: as `generate_many`.
    """
    check_names(generate_as_completed, options, GenerationOptions.__annotations__)
    request, jobs = _resolve(model, prompts, strategy, options)
    return _completed(_run(model, request, jobs, _check_rows(rows)), request, jobs)


def _completed(
    steps: Iterator[list[Event]], request: GenerationRequest, jobs: Sequence[Job]
) -> Iterator[tuple[int, Row]]:
    """Yields the rows whose last event has come, after those that get no tokens."""
    events: dict[int, list[Event]] = {job.row: [] for job in jobs}
    one = replace(request, prompts=request.prompts[:1], num_samples=1)
    for job in jobs:
        if not job.max_new_tokens:
            yield job.row, collect([], one)[0]
    for step in steps:
        for event in step:
            events[event.row].append(event._replace(row=0))
            if event.finish_reason is not None:
                yield event.row, collect(events.pop(event.row), one)[0]


@torch.inference_mode()
def _run(
    model: CausalModel, request: GenerationRequest, jobs: Sequence[Job], rows: int
) -> Iterator[list[Event]]:
    """Generates the rows of all jobs; yields the events of each step."""
    waiting = deque(sorted((j for j in jobs if j.max_new_tokens), key=lambda j: (-j.max_new_tokens, -j.cost)))
    if not waiting:
        return
    running = RunningRows(model, request, waiting, min(rows, len(waiting)))
    while waiting or running:
        free = min(len(waiting), rows - len(running))
        for group in in_groups([waiting.popleft() for _ in range(free)]):
            running.join(group)
        yield running.choose()
        running.leave()
        if running:
            running.step()


def in_groups(jobs: Sequence[Job]) -> list[list[Job]]:
    """Returns jobs in groups of similar length, whose prompts are prefilled together."""
    groups: list[list[Job]] = []
    for job in sorted(jobs, key=lambda job: (-job.cost, job.prompt)):
        group = groups[-1] if groups else []
        size = group[0].cost * (len(group) + 1) if group else 0
        padding = size - job.cost - sum(other.cost for other in group)
        if group and (job.prompt == group[-1].prompt or (size <= TOGETHER and padding <= PADDING * size)):
            group.append(job)
        else:
            groups.append([job])
    return groups


def _resolve(
    model: Any, prompts: Prompts, strategy: Any, options: dict[str, Any]
) -> tuple[GenerationRequest, list[Job]]:
    """Checks the arguments; returns the request, and the rows of the call."""
    for name, hint in _REFUSED.items():
        if options.get(name) not in (None, False):
            raise ArgumentValueError(name, options[name], "left out with many prompts", hint)
    limits = _limits(options)
    if isinstance(limits, list):
        least: Any = to_plain(options.get("min_new_tokens") or 0)
        stated = max([min(limits), *(least if isinstance(least, Sequence) else [least])])
        options = options | {"max_new_tokens": stated}
    if isinstance(strategy, Strategy):
        _check_strategy(strategy)
    strategy, request = resolve(model, prompts, strategy, options)  # type: ignore[arg-type]
    _check_strategy(strategy)
    if request.guidance is not None:
        guidance = request.guidance.guidance
        raise ArgumentValueError("guidance", guidance, "left out with many prompts", _REFUSED["guidance"])
    if type(request.sampler) not in (Argmax, CounterGumbel):
        hint = "the numbers of a row depend on its place in the batch; generate(...) takes it"
        raise ArgumentValueError("strategy", strategy, "one that draws from the seed of each row", hint)
    has_values_per_row(request.chain)
    return _with_limits(model, request, limits)


def _limits(options: dict[str, Any]) -> list[int] | None:
    """Returns the limits of the prompts if there is one for each."""
    stated = to_plain(options.get("max_new_tokens"))
    if not isinstance(stated, Sequence) or isinstance(stated, str):
        return None
    hint = "the most tokens of each row"
    return [check_size(f"max_new_tokens[{i}]", each, hint=hint) for i, each in enumerate(stated)] or None


def _with_limits(
    model: CausalModel, request: GenerationRequest, limits: list[int] | None
) -> tuple[GenerationRequest, list[Job]]:
    """Returns the request with the largest limit, and the rows with their own."""
    count, samples = len(request.prompts), request.num_samples
    own = [request.max_new_tokens] * count if limits is None else limits
    if len(own) != count:
        raise ArgumentValueError("max_new_tokens", limits, f"one number, or {count}, one per prompt")
    embedder, jobs = model.decoder_embedder, []
    for prompt, (ids, most) in enumerate(zip(request.prompts, own, strict=True)):
        room = embedder.max_tokens - len(ids) + 1  # the last token is not run
        if embedder.has_position_table and max(most, 1) > room:
            expected = f"at most {max(room, 0)} after a prompt of {len(ids)} tokens"
            hint = f"the model has {embedder.max_tokens} positions"
            raise ArgumentValueError(f"max_new_tokens[{prompt}]", most, expected, hint)
        source = None if request.sources is None else request.sources[prompt]
        for row in range(prompt * samples, (prompt + 1) * samples):
            if request.min_new_tokens[row] > most:
                least = request.min_new_tokens[row]
                raise ArgumentValueError("min_new_tokens", least, f"at most max_new_tokens[{prompt}]={most}")
            jobs.append(Job(row, prompt, ids, source, most))
    return replace(request, max_new_tokens=max(own)), jobs


def _check_strategy(strategy: Strategy) -> None:
    """Checks that a strategy chooses one token at a time."""
    if strategy.searches or type(strategy).run is not Strategy.run:
        hint = "minitx.pipelines.generate_batches runs searches and speculation batch by batch"
        expected = "one that chooses a token at a time, such as Greedy() or Sample()"
        raise ArgumentValueError("strategy", strategy, expected, hint)


def _check_rows(rows: int) -> int:
    return check_size("rows", rows, 1, "the most rows at a time")


def _progress_bar(total: int, shown: bool | None) -> Any:
    """Returns a bar of tqdm, as the pipelines' are."""
    check_type("progress", shown, bool | None, "True, False or None")
    from tqdm import tqdm

    off = None if shown is None else not shown
    delay = 1.0 if shown is None else 0.0
    return tqdm(total=total, desc="Generating", unit="row", disable=off, delay=delay, leave=False)
