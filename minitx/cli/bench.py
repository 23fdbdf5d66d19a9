"""`minitx bench`: engines side by side on the same work; and `minitx bench compare`: two results."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click

from minitx.cli.options import Argument, command
from minitx.cli.render import GREEN, RED, colored, emit, note, show
from minitx.cli.source import Source
from minitx.terminal import progress_bar

COLORS = {"same": GREEN, "reference": GREEN, "wrong": RED}


@command(
    *(Argument("before", "A.jsonl", "a result of minitx bench"), Argument("after", "B.jsonl", "a later one")),
)
def bench_compare(source: Source, before: str, after: str, json: bool, **values: Any) -> int:
    """Prints which rows of two results differ; returns 1 with --fail if one is slower."""
    from minitx.bench.results.compare import changes, table
    from minitx.bench.results.files import read

    runs = read(before), read(after)
    found = changes(*runs, relative=bool(values["relative"]))
    emit(json, [change.to_json() for change in found], table(found, *runs))
    return int(bool(values["fail"]) and any(change.outcome == "slower" for change in found))


def _context(info_name: str, args: list[str], parent: Any = None, **extra: Any) -> click.Context:
    """Returns the context of `minitx bench`, or of `minitx bench compare`."""
    if args[:1] == ["compare"]:
        return bench_compare.make_context(f"{info_name} compare", args[1:], parent, **extra)
    return type(bench).make_context(bench, info_name, args, parent, **extra)


@command(
    Argument("workloads", "[WORKLOAD ...]", "such as decode; or all (default: a quick set)"),
    make_context=_context,
)
def bench(source: Source, workloads: tuple[str, ...], json: bool, **values: Any) -> int:
    """Prints the speed of engines; returns 1 for a wrong answer, 2 for a file that cannot be written."""
    from minitx.bench.results.files import FORMATS, records, write_all
    from minitx.bench.results.machine import machine
    from minitx.bench.results.row import Run
    from minitx.bench.session import Session, listed
    from minitx.validation import check_output

    if values["list"]:
        emit(json, *listed())
        return 0
    paths = [check_output("output", path, FORMATS) for path in values["outputs"]]
    source.check_device()
    numbers = {name: values[name] for name in ("batch", "length", "new_tokens", "threads", "rounds")}
    session = Session(
        workloads=workloads,
        engines=values["engines"] or (),
        model=source.name or None,
        dtype=source.dtype or "float32",
        device=source.device,
        memory=not values["no_memory"],
        roofline=not values["no_roofline"],
        **numbers,
    )
    session.check()
    run = Run(machine(session.threads, session.device))
    try:
        with progress_bar(session.steps(), "measuring", "run", quiet=source.quiet) as progress:
            for rows in session.run(run, lambda: progress(1)):
                _show(run, rows, quiet=json)
    finally:  # what was measured is kept where the rest is interrupted
        failures = write_all(run, paths) if run.rows else {}
        for path, error in failures.items():
            note(f"error: {path} was not written: {error}")
        if json:
            for record in records(run) if run.rows else ():
                emit(True, record, "", indent=None)
        elif run.rows:
            _show_end(run, [path for path in paths if path not in failures])
    return 2 if failures else int(any(row.verdict.get("kind") == "wrong" for row in run.rows))


def _show(run: Any, rows: Any, *, quiet: bool) -> None:
    """Prints the rows of a workload, the machine before the first ones."""
    from minitx.bench.results.report import machine_lines, table

    if quiet:
        return
    text = table(rows, lambda text, kind: colored(text, COLORS[kind]) if kind in COLORS else text)
    first = [*machine_lines(run.machine), ""] if len(rows) == len(run.rows) else [""]
    with _beside_the_bar():
        show("\n".join([*first, text]))


def _beside_the_bar() -> AbstractContextManager[Any]:
    """Clears the progress bar while something is printed."""
    if not sys.stderr.isatty():
        return nullcontext()
    from tqdm import tqdm

    cleared: AbstractContextManager[Any] = tqdm.external_write_mode(file=sys.stdout)
    return cleared


def _show_end(run: Any, paths: list[Path]) -> None:
    """Prints the peaks of the machine, and the files."""
    from minitx.bench.results.report import peaks_line

    peaks = [f"{peaks_line(values)} ({name})" for name, values in run.peaks.items()]
    show("\n".join(["", *peaks]) if peaks else "", end="\n" if peaks else "")
    if paths:
        note(f"written: {', '.join(map(str, paths))}")
