"""From names to measurements: which workloads run on which models and engines, one after the other."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import groupby
from pathlib import Path
from typing import Any

from minitx.bench.engine import ENGINES, USUAL, Engine, Setup, make_engine
from minitx.bench.models import CONFIGS, SUMMARIES, digest_of, empty_model, family_of, model_folder
from minitx.bench.models import USUAL as USUAL_MODELS
from minitx.bench.results.row import Row, Run
from minitx.bench.roofline import Meter, Peaks
from minitx.bench.runner import Plan, Runner
from minitx.bench.workloads import WORKLOADS, Workload
from minitx.pictures.text import WIDTH
from minitx.validation import ArgumentValueError, check_dtype, check_integer

ALL = "all"
SIZES = ("batch", "length", "new_tokens")
MOST_TOKENS = 10_000_000  # of the inputs and outputs of a call, which are Python lists
MOST_THREADS = 4  # for each core; thousands of threads end the process


@dataclass(frozen=True, kw_only=True)
class Session:
    """What a benchmark measures, and how.

    Attributes:
        workloads: names; none: the quick ones. "all" stands for every workload that suits the model.
        engines: names; none: transformers, minitx, and minitx optimized. The first is the reference.
        model: a name of `CONFIGS`, a folder or a checkpoint; None: the usual model of each workload.
        batch, length, new_tokens: replace those of the workloads; None: theirs.
        dtype: of the weights.
        threads: of the CPU.
        device: "cpu", or such as "cuda".
        rounds: samples of each engine.
        memory: whether fresh processes measure the peak memory.
        roofline: whether the machine's peaks are measured beside.
        isolated: whether each engine runs in a process of its own. False: all run in this one, where their
            threads disturb each other; for an engine whose class no other process can import.
        registry: of engines.
        cache: folder of random models; None: in the user's cache.
    """

    workloads: Sequence[str] = ()
    engines: Sequence[str] = ()
    model: str | None = None
    batch: int | None = None
    length: int | None = None
    new_tokens: int | None = None
    dtype: str = "float32"
    threads: int = 2
    device: str = "cpu"
    rounds: int = 7
    memory: bool = True
    roofline: bool = True
    isolated: bool = True
    registry: dict[str, Any] = field(default_factory=lambda: dict(ENGINES))
    cache: Path | None = None

    def check(self) -> None:
        """Checks names and numbers before any work.

        Raises:
            ArgumentValueError: an unknown workload or engine, with the most similar one; a number out of
                range.
        """
        for name in self.workloads:
            if name not in WORKLOADS and name != ALL:
                similar = get_close_matches(name, WORKLOADS, n=1)
                hint = f"did you mean {similar[0]}?" if similar else f"{ALL} is all of them"
                hint = f"{name} is an engine, which --engine names" if name in self.registry else hint
                raise ArgumentValueError("workloads", name, f"one of {', '.join(WORKLOADS)}", hint)
        self.make_engines()
        for parameter in (*SIZES, "rounds", "threads"):
            if (value := getattr(self, parameter)) is not None:
                check_integer(parameter, value, 1)
        cores = os.cpu_count() or 1
        check_integer("threads", self.threads, 1, MOST_THREADS * cores, f"this machine has {cores} cores")
        check_dtype("dtype", self.dtype)

    def make_engines(self) -> list[Engine]:
        """Returns new engines, in order, each once."""
        return [make_engine(name, self.registry) for name in dict.fromkeys(self.engines or USUAL)]

    def chosen(self) -> list[tuple[str, Workload]]:
        """Returns the model and the workload of each measurement, those of one model together.

        Raises:
            ArgumentValueError: a size that no workload takes, or that no memory holds.
            ValueError: a named workload that does not suit the model.
        """
        family = None if self.model is None else family_of(empty_model(self._folder(self.model)))
        names = [*WORKLOADS] if ALL in self.workloads else self.workloads
        named = [WORKLOADS[name] for name in dict.fromkeys(names)]
        if not named:
            named = [workload for workload in WORKLOADS.values() if workload.quick]
        if family is not None and (ALL in self.workloads or not self.workloads):
            named = [workload for workload in named if family in workload.families]
        pairs = []
        for workload in named:
            if family is not None and family not in workload.families:
                needed = " or ".join(_with_article(name) for name in workload.families)
                raise ValueError(f"{workload.name} needs {needed}; {self.model} is {_with_article(family)}.")
            model = self.model or workload.model or USUAL_MODELS[workload.families[0]]
            pairs.append((model, workload.changed(**{size: getattr(self, size) for size in SIZES})))
        self._check_sizes([workload for _, workload in pairs])
        order = list(dict.fromkeys(model for model, _ in pairs))
        return sorted(pairs, key=lambda pair: order.index(pair[0]))

    def _check_sizes(self, workloads: Sequence[Workload]) -> None:
        """Checks that each size is taken by a workload, and that its tokens fit into memory."""
        named = ", ".join(workload.name for workload in workloads)
        given = [size for size in SIZES if getattr(self, size) is not None]
        for size in given:
            if workloads and not any(workload.takes(size) for workload in workloads):
                raise ArgumentValueError(size, getattr(self, size), "left out", f"not taken by {named}")
        for workload in workloads:
            if given and (tokens := workload.batch * workload.positions) > MOST_TOKENS:
                size = max(given, key=lambda size: int(getattr(self, size)))
                hint = f"{workload.name} would have {tokens:,} tokens; the most are {MOST_TOKENS:,}"
                raise ArgumentValueError(size, getattr(self, size), "smaller", hint)

    def steps(self) -> int:
        """Returns how often `run` reports progress."""
        return len(self.chosen()) * self._plan(None).steps(len(self.make_engines()))

    def run(self, into: Run, step: Callable[[], Any] = lambda: None) -> Iterator[list[Row]]:
        """Measures, and yields the rows of each workload when they are done.

        Args:
            into: receives the rows and the peaks of the machine.
            step: called as the measurement proceeds.
        """
        self.check()
        meter = Meter(self.dtype, self.device) if self.roofline else None
        samples: list[Peaks] = []
        for model, pairs in groupby(self.chosen(), key=lambda pair: pair[0]):
            folder = self._folder(model)
            empty = empty_model(folder)
            setup = Setup(folder, family_of(empty), self.dtype, self.threads, self.device)
            name = folder.name if Path(model).is_dir() else model
            checkpoint = digest_of(folder) if Path(model).is_dir() else ""
            runner = Runner(setup, name, empty, self._plan(meter), checkpoint)
            try:
                for _, workload in pairs:
                    rows = runner.measure(workload, self.make_engines(), step)
                    samples += runner.samples
                    runner.samples.clear()
                    into.rows += rows
                    if samples:
                        into.peaks[f"{self.dtype}, {self.device}"] = Peaks.median(samples).to_json()
                    yield rows
            finally:
                runner.close()

    def _folder(self, model: str) -> Path:
        return model_folder(model, self.dtype, self.cache)

    def _plan(self, meter: Meter | None) -> Plan:
        return Plan(rounds=self.rounds, memory=self.memory, meter=meter, isolated=self.isolated)


def _with_article(family: str) -> str:
    return f"{'an' if family[0] == 'e' else 'a'} {family}"


def listed() -> tuple[dict[str, Any], str]:
    """Returns the workloads, models and engines as data, and as text."""
    workloads = {
        w.name: {"summary": w.summary, "unit": w.unit, "families": w.families} for w in WORKLOADS.values()
    }
    engines: dict[str, str] = {}
    for name in ENGINES:
        doc = (type(make_engine(name, ENGINES)).__doc__ or "").splitlines()
        engines[name] = doc[0].rstrip(".") if doc else ""
    lines = ["workloads (* the quick ones, which run where none is named):"]
    lines += [f"  {w.name:<15}{'*' if w.quick else ' '} {w.summary}" for w in WORKLOADS.values()]
    lines += ["", "models; --model also takes a folder or a checkpoint:"]
    lines += [f"  {name:<16} {SUMMARIES[name]}" for name in CONFIGS]
    lines += ["", "engines (the first that can run is the reference):"]
    for name, text in engines.items():
        summary = text.replace("`", "")
        lines += textwrap.wrap(f"  {name:<22} {summary}", WIDTH - 1, subsequent_indent=" " * 25)
    return {"workloads": workloads, "models": SUMMARIES, "engines": engines}, "\n".join(lines)
