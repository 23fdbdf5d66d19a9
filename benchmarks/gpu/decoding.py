"""Every strategy on the device: no wait for it between two reads of the tokens, and the tokens of the CPU.

Between a step and the next read, `torch.cuda.set_sync_debug_mode("error")` makes every wait an error.
Strategies that read at every step, as docs/gpu.md lists them, run without it. Tokens can part from those of
the CPU where two are almost equally probable; at least three quarters of the rows must be equal.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import minitx
from benchmarks.gpu.models import model_of
from benchmarks.gpu.run import Section
from minitx import Beam, BeamSample, DiverseBeam, Greedy, Sample, Stop
from minitx.decoding import KGW, Alternatives, ArithmeticSample, StochasticBeam, SynthID
from minitx.decoding.session import DecodingSession
from minitx.optimize import cuda_graphs
from minitx.optimize.graphs.model import static_steps

PROMPTS = [[5, 6, 7, 8], [9, 10], [11, 12, 13, 14, 15, 16]]
EVERYTHING: dict[str, Any] = {
    "temperature": 0.9,
    "top_k": 20,
    "top_p": 0.95,
    "min_p": 0.01,
    "typical_p": 0.95,
    "epsilon_cutoff": 1e-4,
    "eta_cutoff": 1e-4,
    "top_n_sigma": 3.0,
    "top_a": 0.01,
    "tfs": 0.95,
    "xtc": (0.5, 0.2),
    "mirostat": (5.0, 0.1),
    "repetition_penalty": 1.1,
    "frequency_penalty": 0.1,
    "no_repeat_ngram_size": 3,
    "bad_words_ids": [[5], [6, 7]],
    "logit_bias": {8: 1.0},
}
# name: model, strategy, options, whether it reads at every step
CALLS: dict[str, tuple[str, Any, dict[str, Any], bool]] = {
    "greedy": ("llama", Greedy(), {}, False),
    "sample": ("llama", Sample(), {"seed": 1, "num_samples": 2}, False),
    "sample, all filters": ("llama", Sample(**EVERYTHING), {"seed": 1}, False),
    "alternatives": ("llama", Alternatives(), {"num_samples": 3}, False),
    "arithmetic": ("llama", ArithmeticSample(), {"seed": 1, "num_samples": 3}, False),
    "beam": ("llama", Beam(num_beams=3), {}, False),
    "beam, exact": ("gpt2", Beam(num_beams=3, early_stopping="exact"), {}, False),
    "beam sample": ("llama", BeamSample(num_beams=3), {"seed": 1}, False),
    "diverse beam": ("llama", DiverseBeam(num_beams=4), {}, False),
    "stochastic beam": ("llama", StochasticBeam(num_beams=3), {"seed": 1, "num_samples": 2}, False),
    "green list": ("llama", Greedy(watermark=KGW()), {}, False),
    "SynthID": ("llama", Sample(watermark=SynthID(keys=[1, 2, 3])), {"seed": 1}, False),
    "ALiBi": ("bloom", Greedy(), {}, False),
    "window": ("gemma2", Greedy(), {}, False),
    "experts": ("mixtral", Greedy(), {}, False),
    "encoder-decoder": ("t5", Greedy(), {}, False),
    "encoder-decoder, beam": ("bart", Beam(num_beams=3), {}, False),
    "repetition ends": ("llama", Greedy(), {"stop": Stop(eos=(), repetition=(3, 3))}, False),
    "time": ("llama", Greedy(), {"stop": Stop(eos=(), seconds=60)}, True),
    "log-probabilities": ("llama", Greedy(), {"logprobs": "raw", "top_logprobs": 2}, True),
    "DRY": ("llama", Greedy(dry=(0.8, 1.75, 2)), {}, True),
}
QUICK = ("greedy", "sample, all filters", "beam", "experts", "encoder-decoder")
NEW, LEAST_EQUAL = 24, 0.75


def run(section: Section) -> None:
    """Generates with every strategy."""
    models: dict[str, Any] = {}
    for name in section.within_budget(QUICK if section.quick else CALLS):
        kind = CALLS[name][0]
        if kind not in models:
            models[kind] = model_of(kind, torch.float32)[0]
        section.attempt(name, partial(generate, models[kind], CALLS[name], section))


def generate(model: Any, call: tuple[str, Any, dict[str, Any], bool], section: Section) -> dict[str, Any]:
    """Returns how many rows are equal to those of the CPU."""
    _, strategy, options, reads = call
    options = {"stop": Stop(eos=()), "max_new_tokens": NEW, **options}
    expected = minitx.generate(model, PROMPTS, strategy, **options).sequences
    ours = copy.deepcopy(model).to(section.device)
    minitx.generate(ours, PROMPTS, strategy, **options)  # kernels are loaded, tables copied
    with without_waits(section.device if not reads else torch.device("cpu")) as steps:
        rows = minitx.generate(ours, PROMPTS, strategy, **options).sequences
    equal = share_of_equal(rows, expected)
    found = {"ok": equal >= LEAST_EQUAL, "equal rows": equal, "steps": steps[0], "waits allowed": reads}
    return found | with_graphs(ours, strategy, options, expected, section.device)


def with_graphs(
    model: Any, strategy: Any, options: dict[str, Any], expected: list[Tensor], device: torch.device
) -> dict[str, Any]:
    """Returns how many rows are equal with CUDA graphs (on a CPU: with the step that they record)."""
    if model.families != ("decoder",):
        return {}
    graphed = cuda_graphs(model) if device.type == "cuda" else static_steps(model)
    for _ in range(2):  # recorded, and replayed
        rows = minitx.generate(graphed, PROMPTS, strategy, **options).sequences
    equal = share_of_equal(rows, expected)
    return {"with graphs": equal} | ({} if equal >= LEAST_EQUAL else {"ok": False})


def share_of_equal(rows: list[Tensor], expected: list[Tensor]) -> float:
    """Returns how many of the rows are equal, as a share."""
    return sum(a.tolist() == b.tolist() for a, b in zip(rows, expected, strict=True)) / len(rows)


@contextmanager
def without_waits(device: torch.device) -> Iterator[list[int]]:
    """Makes waits for a CUDA device errors from each step of a session to the next read of its tokens."""
    counted, mode, step = [0], torch.cuda.set_sync_debug_mode, DecodingSession.step
    watches = device.type == "cuda"

    def _step(session: Any, *args: Any, **kwargs: Any) -> None:
        counted[0] += 1
        if watches:
            mode("error")
        step(session, *args, **kwargs)

    def _reading(read: Any) -> Any:
        def _read(tensors: list[Tensor]) -> Any:
            if watches:
                mode("default")
            return read(tensors)

        return _read

    loop, search = (import_module(f"minitx.decoding.{name}") for name in ("loop", "search.state"))
    with (
        mock.patch.object(DecodingSession, "step", _step),
        mock.patch.object(loop, "read", _reading(loop.read)),
        mock.patch.object(search, "read", _reading(search.read)),
    ):
        try:
            yield counted
        finally:
            if watches:
                mode("default")
