"""The speeds that minitx is meant to reach, each against what it is measured by, through `minitx.bench`.

    python benchmarks/targets.py [NAME ...] [--list] [--rounds 7] [--threads 2] [--memory] [--output FILE]

Each row is one interleaved run with the referee; the last table has the measured ratio beside the target.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from minitx.bench.results.files import FORMATS, write
from minitx.bench.results.machine import machine
from minitx.bench.results.report import details, machine_lines, table
from minitx.bench.results.row import Row, Run
from minitx.bench.session import Session

BOUND = "bound"  # in place of an engine: the bound that the measured peaks of the machine allow
OURS = "minitx-optimized"
COMPILED, INT8 = "minitx-compiled", "minitx-compiled-int8"  # of generations on a CPU


@dataclass(frozen=True)
class Target:
    """A ratio of two engines on a workload, or a share of the bound.

    Attributes:
        name: by which it is chosen; several may share one.
        workload: of `minitx.bench`.
        against: an engine, or "bound".
        least: the ratio, or the share.
        ours: the engine of minitx.
        model: None for the workload's usual one.
        batch: None for the workload's.
        dtype: of the weights.
        device: where it runs.
    """

    name: str
    workload: str
    against: str
    least: float
    ours: str = OURS
    model: str | None = None
    batch: int | None = None
    dtype: str = "float32"
    device: str = "cpu"

    @property
    def setting(self) -> tuple[str, str | None, int | None, str, str]:
        """What one run measures; targets that share it share a run."""
        return self.workload, self.model, self.batch, self.dtype, self.device


TARGETS = (
    Target("gpt2-1", "decode", "transformers", 1.8, COMPILED),
    Target("gpt2-1", "decode", "transformers", 1.8),
    Target("gpt2-1", "decode", "transformers", 4.0, INT8),
    Target("gpt2-1", "decode", "transformers", 4.0, "minitx-int8"),
    Target("gpt2-1", "decode", "ctranslate2", 1.1, COMPILED),
    Target("gpt2-1", "decode", "ctranslate2-int8", 1.3, INT8),
    Target("gpt2-1", "decode", "llama.cpp", 1.0, COMPILED),
    Target("gpt2-1", "decode", "llama.cpp-q8", 1.0, INT8),
    Target("gpt2-1", "decode", BOUND, 0.80, COMPILED),
    Target("gpt2-8", "decode-8", "transformers", 1.9, COMPILED),
    Target("gpt2-8", "decode-8", "transformers", 1.9),
    Target("gpt2-8", "decode-8", "transformers", 1.9, "minitx-int8"),
    Target("gpt2-8", "decode-8", "ctranslate2", 1.1, COMPILED),
    Target("gpt2-8", "decode-8", "ctranslate2-int8", 1.0, INT8),
    Target("gpt2-32", "decode-32", "transformers", 1.9, COMPILED),
    Target("gpt2-8-bfloat16", "decode-8", "transformers", 1.6, COMPILED, dtype="bfloat16"),
    Target("gpt2-32-bfloat16", "decode-32", "transformers", 1.6, COMPILED, dtype="bfloat16"),
    Target("gpt2-mixed", "decode-mixed", "transformers", 3.0),
    Target("gpt2-mixed", "decode-mixed", "transformers", 3.0, COMPILED),
    Target("t5-1", "decode", "transformers", 2.0, COMPILED, model="t5-small"),
    Target("t5-8", "decode-8", "transformers", 2.0, COMPILED, model="t5-small"),
    Target("t5-beams-1", "beams", "transformers", 1.6, COMPILED, model="t5-small"),
    Target("t5-beams-8", "beams-8", "transformers", 1.6, COMPILED, model="t5-small"),
    Target("bert-mixed", "encode-mixed", "transformers", 1.3),
    Target("bert-mixed", "encode-mixed", "transformers-unsorted", 2.5),
    Target("minilm", "embed", "sentence-transformers", 1.5, model="minilm", batch=2000),
    Target("minilm", "embed", "onnxruntime", 1.1, model="minilm", batch=2000),
    Target("bert-peak", "encode", BOUND, 0.90),
    Target("import", "import", "transformers", 10.0, ours="minitx"),
    Target("start", "start", "transformers", 2.0, ours="minitx"),
    Target("llama-1b-1", "decode", BOUND, 0.75, model="llama-1b", dtype="bfloat16", device="cuda"),
    Target("llama-1b-1", "decode", "transformers-compiled", 1.2, OURS, "llama-1b", None, "bfloat16", "cuda"),
    Target("llama-1b-32", "decode-32", BOUND, 0.75, model="llama-1b", dtype="bfloat16", device="cuda"),
    Target(
        "llama-1b-32", "decode-32", "transformers-compiled", 1.2, OURS, "llama-1b", None, "bfloat16", "cuda"
    ),
)


def engines_of(targets: Sequence[Target]) -> tuple[str, ...]:
    """The engines of targets that share a run; transformers, where it takes part, is the reference."""
    names = [name for target in targets for name in (target.against, target.ours) if name != BOUND]
    return tuple(sorted(dict.fromkeys(names), key=lambda name: name != "transformers"))


def reached(target: Target, rows: Sequence[Row]) -> tuple[float | None, str]:
    """The measured ratio or share; or None and why there is none."""
    by_name = {row.engine: row for row in rows}
    ours, other = by_name[target.ours], by_name.get(target.against)
    for row in filter(None, (ours, other)):
        if row.figure is None:
            return None, f"{row.engine}: {'; '.join(details(row))}"
    if other is None:
        return ours.share, ""
    assert ours.ratio is not None
    assert other.ratio is not None
    return ours.ratio / other.ratio, ""


def lines_of(targets: Sequence[Target], rows: Sequence[Row]) -> Iterator[str]:
    for target in targets:
        value, reason = reached(target, rows)
        place = f"  {target.name:<17}{target.ours:<21}{target.against:<22}{target.least:>5.2f}"
        if value is None:
            yield f"{place}\n      {reason}"
        else:
            yield f"{place}{value:>7.2f}  {'reached' if value >= target.least else 'missed'}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = list(dict.fromkeys(target.name for target in TARGETS))
    parser.add_argument("names", nargs="*", metavar="NAME", help="rows to measure; none: all")
    parser.add_argument("--list", action="store_true", help="list the rows")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, help="in place of the workloads'")
    parser.add_argument("--memory", action="store_true", help="also the peak memory of fresh processes")
    parser.add_argument("--output", type=Path, help=f"{', '.join(FORMATS)} file")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in names]:
        parser.error(f"there is no row {unknown[0]}; there are {', '.join(names)}")
    if arguments.list:
        print("\n".join(names))
        return
    chosen = [t for t in TARGETS if t.name in (arguments.names or names)]
    run = Run(machine(arguments.threads, "cpu"))
    print("\n".join(machine_lines(run.machine)))
    summary = [f"  {'row':<17}{'engine':<21}{'against':<22}{'least':>5}{'value':>7}"]
    for setting in dict.fromkeys(target.setting for target in chosen):
        targets = [target for target in chosen if target.setting == setting]
        workload, model, batch, dtype, device = setting
        if device == "cuda" and not torch.cuda.is_available():
            summary.append(f"  {targets[0].name:<17}skipped: there is no CUDA device")
            continue
        numbers = {"batch": batch, "rounds": arguments.rounds, "threads": arguments.threads}
        session = Session(
            workloads=(workload,),
            engines=engines_of(targets),
            model=model,
            new_tokens=arguments.new_tokens,
            dtype=dtype,
            device=device,
            memory=arguments.memory,
            **numbers,
        )
        for rows in session.run(run):
            print(f"\n{table(rows)}", flush=True)
            summary += lines_of(targets, rows)
            if arguments.output:
                write(run, arguments.output)
    print("\n" + "\n".join(summary))


if __name__ == "__main__":
    main()
