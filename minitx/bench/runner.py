"""The runner: loads the engines of a workload, lets the referee compare their answers, and times them.

Every round runs each engine once, and every round begins with another one, so that a machine that slows down
affects all of them alike. The others follow in a drawn order: none always runs after the same one, whose
threads may still spin. Each engine has a process of its own, and one runs at a time. The first call of an
engine, which may compile, is the one that the referee compares; it is not timed.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from minitx.bench.alone import memory_of
from minitx.bench.calls import inputs_of, timed
from minitx.bench.engine import Engine, Setup, UnsuitableError
from minitx.bench.referee import Referee, Verdict
from minitx.bench.remote import EndedError, RemoteEngine
from minitx.bench.results.row import Row
from minitx.bench.roofline import Meter, Peaks, work_of
from minitx.bench.workloads import Workload
from minitx.models import Model
from minitx.validation import warn

SHORTEST = 0.05  # seconds of a sample; shorter calls are repeated in it
SEED = 0  # of the order within a round
PROCESSES = ("import", "start")  # calls that need no loaded engine
Step = Callable[[], Any]


@dataclass(frozen=True)
class Plan:
    """How a workload is measured.

    Attributes:
        rounds: samples of each engine.
        memory: whether fresh processes measure the peak memory.
        meter: measures the machine in each round; None: no roofline.
        isolated: whether each engine runs in a process of its own.
    """

    rounds: int = 7
    memory: bool = True
    meter: Meter | None = None
    isolated: bool = True

    def steps(self, engines: int) -> int:
        """Returns how often `measure` reports progress for a workload."""
        return engines * (self.rounds + 1 + self.memory)


class Runner:
    """Measures workloads on one model.

    Attributes:
        setup: what all engines load.
        name: of the model, for the rows.
        model: the model without weights, for its sizes and operations.
        plan: how it is measured.
        checkpoint: digest of the model's folder, for the rows.
    """

    def __init__(self, setup: Setup, name: str, model: Model, plan: Plan, checkpoint: str = "") -> None:
        self.setup, self.name, self.model, self.plan = setup, name, model, plan
        self.checkpoint = checkpoint
        self.samples: list[Peaks] = []
        self._loaded: dict[str, Engine] = {}

    def measure(self, workload: Workload, engines: Sequence[Engine], step: Step = lambda: None) -> list[Row]:
        """Measures one workload. Returns a row for each engine, in their order.

        Engines stay loaded for the next workload; `close` releases them.

        Args:
            workload: the workload.
            engines: the first that can run is the reference of the referee, and of the ratios.
            step: called as the measurement proceeds.
        """
        torch.set_num_threads(self.setup.threads)
        inputs = inputs_of(workload, self.vocab_size)
        lanes = [_Lane(engine, self._refusal(engine, workload)) for engine in engines]
        self._compare(workload, lanes, inputs, step)
        running = [lane for lane in lanes if lane.runs]
        peaks = self._rounds(workload, running, inputs, step)
        for lane in running if self.plan.memory and workload.call not in PROCESSES else ():
            if lane.runs:
                self._measure_memory(workload, lane)
            step()
        rows = [self._row(workload, lane) for lane in lanes]
        if workload.call == "train_step":  # the weights are others now
            self.close()
        return self._with_ratios(self._with_bounds(rows, lanes, workload, peaks))

    def close(self) -> None:
        """Releases the engines."""
        for engine in self._loaded.values():
            engine.close()
        self._loaded.clear()

    @property
    def vocab_size(self) -> int:
        """The number of tokens of the model's inputs."""
        size: int = self.model.config.inputs.vocab_size  # type: ignore[union-attr]
        return size

    def _refusal(self, engine: Engine, workload: Workload) -> str:
        """Returns why an engine cannot run; "" if it can."""
        embedder: Any = self.model.embedder
        limit = embedder.max_tokens if embedder.has_position_table else None
        needed = workload.positions if self.setup.family == "decoder" else workload.length
        if limit is not None and needed > limit:
            return f"it needs {needed} positions, and the model has {limit}"
        return engine.reason(self.setup, workload) or ""

    def _compare(self, workload: Workload, lanes: list[_Lane], inputs: list[Any], step: Step) -> None:
        """Runs each engine once and lets the referee compare the answers."""
        referee = None
        for lane in lanes:
            step()
            if lane.refusal:
                continue
            try:
                if workload.call not in PROCESSES:
                    self._load(lane)
                lane.first, answer = timed(lane.engine, self.setup, workload, inputs)
                if referee is None:
                    referee = Referee(workload, inputs, lane.engine, answer, self.setup.dtype)
                    lane.verdict = Verdict("reference")
                else:
                    lane.verdict = referee.verdict(lane.engine, answer)
            except Exception as error:  # of any library; the others can still be measured
                self._refuse(lane, error)

    def _refuse(self, lane: _Lane, error: Exception) -> None:
        """Records an error as the reason why a lane has no figure; forgets an engine whose process ended."""
        lane.verdict = None
        lane.samples.clear()
        if isinstance(error, EndedError):
            whose = "" if error.name == lane.engine.name else f"{error.name}, the reference: "
            lane.refusal = f"{whose}{error}"
            if error.name in self._loaded:
                self._loaded.pop(error.name).close()
        elif isinstance(error, UnsuitableError):
            lane.refusal = str(error)
        else:
            lane.refusal = f"it failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"

    def _load(self, lane: _Lane) -> None:
        """Loads an engine, unless an earlier workload did."""
        name = lane.engine.name
        if name in self._loaded:
            lane.engine = self._loaded[name]
            lane.compiled = lane.engine.compile_seconds
            return
        engine = RemoteEngine(lane.engine) if self.plan.isolated else lane.engine
        engine.load(self.setup)
        self._loaded[name] = lane.engine = engine

    def _measure_memory(self, workload: Workload, lane: _Lane) -> None:
        try:
            lane.memory = memory_of(lane.local, self.setup, workload, self.vocab_size)
        except RuntimeError as error:
            warn(f"the memory of {lane.engine.name} was not measured: {error}.")

    def _rounds(self, workload: Workload, lanes: list[_Lane], inputs: list[Any], step: Step) -> Peaks | None:
        """Times the engines alternately; returns the median of the machine's peaks."""
        for lane in lanes if workload.call not in PROCESSES else ():
            try:
                seconds = self._warm(workload, lane, inputs)
                lane.calls = max(1, math.ceil(SHORTEST / max(seconds, 1e-6)))
            except Exception as error:  # such as a process that ended
                self._refuse(lane, error)
        bounded = self.plan.meter is not None and work_of(workload, self.model) is not None
        measured = []
        for lane in in_turn(lanes, self.plan.rounds):
            if lane is None:
                if bounded and self.plan.meter is not None:
                    measured.append(self.plan.meter.sample())
                continue
            try:
                if not lane.refusal:
                    lane.samples.append(timed(lane.engine, self.setup, workload, inputs, lane.calls)[0])
            except Exception as error:
                self._refuse(lane, error)
            step()
        self.samples += measured
        return Peaks.median(measured) if measured else None

    def _warm(self, workload: Workload, lane: _Lane, inputs: list[Any]) -> float:
        """Returns the seconds of a second call, unless the first took long without having compiled."""
        settled = lane.first > 1 and not lane.engine.compile_seconds
        return lane.first if settled else timed(lane.engine, self.setup, workload, inputs)[0]

    # --- rows --------------------------------------------------------------------------------------

    def _row(self, workload: Workload, lane: _Lane) -> Row:
        sizes = {name: getattr(workload, name) for name in ("batch", "length", "new_tokens", "num_beams")}
        place = {name: getattr(self.setup, name) for name in ("dtype", "device", "threads")}
        row = Row(
            workload=workload.name,
            summary=workload.summary,
            unit=workload.unit,
            model=self.name,
            checkpoint=self.checkpoint,
            engine=lane.engine.name,
            version="" if lane.refusal else lane.engine.version(),
            skipped=lane.refusal,
            verdict={} if lane.verdict is None else lane.verdict.to_json(),
            compile_seconds=lane.engine.compile_seconds - lane.compiled,
            memory=lane.memory,
            **sizes,
            **place,
        )
        if not lane.samples:
            return row
        figure, low, high = figures(workload, lane.samples)
        samples = tuple(lane.samples)
        return replace(row, figure=figure, low=low, high=high, samples=samples, calls=lane.calls)

    def _with_bounds(
        self, rows: list[Row], lanes: list[_Lane], workload: Workload, peaks: Peaks | None
    ) -> list[Row]:
        """Returns the rows with the bound by the machine's peaks."""
        work = None if peaks is None else work_of(workload, self.model)
        if work is None or peaks is None:
            return rows
        size = getattr(torch, self.setup.dtype).itemsize
        bounded = []
        for row, lane in zip(rows, lanes, strict=True):
            bound = workload.figure(work.seconds(peaks, size, lane.engine.weight_bytes))
            share = None
            if row.figure is not None:
                share = row.figure / bound if workload.higher_is_better else bound / row.figure
            bounded.append(replace(row, bound=bound, share=share))
        return bounded

    @staticmethod
    def _with_ratios(rows: list[Row]) -> list[Row]:
        """Returns the rows with their ratios to the first that has a figure."""
        first = next((row for row in rows if row.figure is not None), None)
        if first is None:
            return rows
        reference = statistics.median(first.samples)
        return [
            replace(row, ratio=reference / statistics.median(row.samples)) if row.samples else row
            for row in rows
        ]


class _Lane:
    """An engine in the measurement of one workload.

    Attributes:
        engine: that runs, perhaps in another process.
        local: the same in this process, for its class.
    """

    def __init__(self, engine: Engine, refusal: str) -> None:
        self.engine, self.local, self.refusal = engine, engine, refusal
        self.verdict: Verdict | None = None
        self.first, self.compiled, self.calls = 0.0, 0.0, 1
        self.samples: list[float] = []
        self.memory: dict[str, int] = {}

    @property
    def runs(self) -> bool:
        """Whether its answer was accepted."""
        return self.verdict is not None and self.verdict.accepted and not self.refusal


def in_turn(items: Sequence[Any], rounds: int) -> Iterator[Any]:
    """Yields each item once per round, and None at the end of a round.

    Each round begins one item later; the order of the others is drawn, the same at every call.
    """
    generator = random.Random(SEED)
    for number in range(rounds):
        start = number % len(items) if items else 0
        others = [*items[:start], *items[start + 1 :]]
        generator.shuffle(others)
        yield from (*items[start : start + 1], *others)
        yield None


def figures(workload: Workload, samples: Sequence[float]) -> tuple[float, float, float]:
    """Returns the figures of the median and of the quartiles, the lower one first."""
    ordered = sorted(samples)
    quartiles = statistics.quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else ordered * 3
    middle, *ends = (workload.figure(seconds) for seconds in (quartiles[1], quartiles[0], quartiles[2]))
    return middle, min(ends), max(ends)
