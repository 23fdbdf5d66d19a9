"""The results of a benchmark: a row for each engine and workload, and the run with its machine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

KEY = ("workload", "model", "engine", "dtype", "device", "threads", "batch", "length", "new_tokens")

_KINDS: dict[str, Any] = {  # of values in a file, by the annotation of the attribute
    "str": str,
    "int": int,
    "float": int | float,
    "float | None": int | float | None,
    "Sequence[float]": list,
    "Mapping[str, Any]": dict,
    "Mapping[str, int]": dict,
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One engine on one workload.

    Attributes:
        workload, summary, unit: of the workload.
        batch, length, new_tokens, num_beams: its sizes; lengths are the largest.
        model: name of the checkpoint.
        checkpoint: digest of a folder's config and sizes, by which folders of one name differ; "" for others.
        engine: name of the engine.
        version: of its library.
        dtype, device, threads: of the setup.
        skipped: why it did not run; "" if it did.
        verdict: of the referee, as `Verdict.to_json` returns it; empty where it was skipped.
        samples: seconds of one call, in the order of the rounds.
        calls: that each sample is the mean of.
        figure: of the median, in `unit`; None without samples.
        low, high: the figures of the quartiles.
        ratio: times as good as the reference, by the medians; None for rows without a figure.
        bound: the figure that the measured peaks of the machine allow; None without a bound.
        share: of the figure in the bound.
        compile_seconds: of work done once.
        memory: "loaded" and "peak" bytes of a fresh process; empty where it was not measured.
    """

    workload: str
    summary: str
    unit: str
    batch: int
    length: int
    new_tokens: int
    num_beams: int
    model: str
    engine: str
    version: str
    dtype: str
    device: str
    threads: int
    skipped: str = ""
    verdict: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str = ""
    samples: Sequence[float] = ()
    calls: int = 1
    figure: float | None = None
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    bound: float | None = None
    share: float | None = None
    compile_seconds: float = 0.0
    memory: Mapping[str, int] = field(default_factory=dict)

    @property
    def key(self) -> tuple[Any, ...]:
        """The values that two rows of a comparison have in common."""
        return tuple(getattr(self, name) for name in KEY)

    def to_json(self) -> dict[str, Any]:
        """Returns the attributes by name."""
        return asdict(self) | {"verdict": dict(self.verdict), "samples": list(self.samples)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Row:
        """Returns the row of a record; names of later versions are left out.

        Raises:
            TypeError: a value is missing.
            ValueError: a value is not of its kind, or a sample not a time; the message has its name.
        """
        values = {f.name: record[f.name] for f in fields(cls) if f.name in record}
        for f in fields(cls):
            value = values.get(f.name, f.default)
            if f.name in values and (not isinstance(value, _KINDS[str(f.type)]) or isinstance(value, bool)):
                raise ValueError(f"{f.name} is {value!r}")
        for name in ("figure", "low", "high", "ratio", "bound", "share", "compile_seconds"):
            if not math.isfinite(values.get(name) or 0.0):
                raise ValueError(f"{name} is {values[name]!r}")
        for sample in values.get("samples", ()):
            if not isinstance(sample, int | float) or isinstance(sample, bool) or not 0 < sample < math.inf:
                raise ValueError(f"samples have {sample!r}, which is no time")
        return cls(**values)


@dataclass
class Run:
    """Rows, and the machine that they were measured on.

    Attributes:
        machine: as `machine` returns it.
        rows: in the order of workloads and engines.
        peaks: of the machine by dtype and device, the median of the run.
    """

    machine: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    peaks: dict[str, dict[str, float]] = field(default_factory=dict)
