"""The inputs of a workload, and the call of an engine that it times."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from minitx.bench.alone import import_seconds, start_seconds
from minitx.bench.engine import Engine, Setup
from minitx.bench.remote import RemoteEngine
from minitx.bench.workloads import TEXTS, Workload

WORDS = "the small river keeps its old name while every town along it found a new one after the war"
SHORTEST, LONGEST = 4, 24  # words of a sentence


def inputs_of(workload: Workload, vocab_size: int) -> list[Any]:
    """Returns the rows of a workload, or its texts: those of `embed` are sentences of 4 to 24 words."""
    if workload.call not in TEXTS:
        return workload.rows(vocab_size)
    words, texts = WORDS.split(), []
    generator = torch.Generator().manual_seed(0)
    for length in workload.lengths():
        count = length
        if workload.call == "embed":
            count = int(torch.randint(SHORTEST, LONGEST + 1, (1,), generator=generator))
        drawn = torch.randint(len(words), (count,), generator=generator).tolist()
        texts.append(" ".join(words[i] for i in drawn).capitalize() + ".")
    return texts


def timed(
    engine: Engine, setup: Setup, workload: Workload, inputs: list[Any], calls: int = 1
) -> tuple[float, Any]:
    """Runs a workload; returns the mean seconds of a call, and the answer of the last one.

    The time is taken in the process of the engine.

    Args:
        engine: that has loaded the setup; of an import, a start or a load it need not have.
        setup: the model.
        workload: the workload.
        inputs: of `inputs_of`.
        calls: one after the other; an import or a start is one.
    """
    if workload.call == "import":
        return import_seconds(engine, setup), None
    if workload.call == "start":
        seconds, token = start_seconds(engine, setup, inputs[0])
        return seconds, [[token]]
    if isinstance(engine, RemoteEngine):
        return engine.timed(workload, inputs, calls)
    total, answer = _timed(engine, setup, workload, inputs)
    for _ in range(calls - 1):
        seconds, answer = _timed(engine, setup, workload, inputs)
        total += seconds
    return total / calls, answer


def _timed(engine: Engine, setup: Setup, workload: Workload, inputs: list[Any]) -> tuple[float, Any]:
    if workload.call == "load":
        return _load(engine, setup, inputs)
    start = time.perf_counter()
    answer = _call(engine, workload, inputs)
    if setup.device.startswith("cuda"):
        torch.cuda.synchronize(setup.device)
    return time.perf_counter() - start, answer


def _call(engine: Engine, workload: Workload, inputs: list[Any]) -> Any:
    if workload.call == "generate":
        return engine.generate(inputs, workload.new_lengths(), workload.num_beams)
    if workload.call == "sample":
        return engine.sample(inputs, workload.new_tokens)
    return getattr(engine, workload.call)(inputs)


def _load(engine: Engine, setup: Setup, inputs: list[Any]) -> tuple[float, Any]:
    """Loads the checkpoint into another engine of the same kind; returns the seconds until it has answered.

    Mapped weights are read by the first answer.
    """
    fresh = type(engine)()
    start = time.perf_counter()
    fresh.load(setup)
    answer = first_answer(fresh, setup, inputs)
    seconds = time.perf_counter() - start
    fresh.close()
    return seconds, answer


def first_answer(engine: Engine, setup: Setup, inputs: list[Any]) -> Tensor:
    """Returns the first answer after `load`: vectors of an encoder, (R, E), else logits, (R, V)."""
    return engine.encode(inputs) if setup.family == "encoder" else engine.prefill(inputs)
