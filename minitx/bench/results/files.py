"""Files of results: JSON, JSON lines, Markdown and CSV; both kinds of JSON can be read again."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from minitx.bench.results.plot import draw
from minitx.bench.results.report import markdown
from minitx.bench.results.row import Row, Run
from minitx.io import write_atomically

FORMATS = (".json", ".jsonl", ".md", ".csv", ".png", ".svg")
COLUMNS: tuple[str, ...] = (
    "workload",
    "model",
    "engine",
    "version",
    "dtype",
    "device",
    "threads",
    "batch",
    "length",
)
COLUMNS += ("new_tokens", "num_beams", "unit", "figure", "low", "high", "ratio", "bound", "share")
COLUMNS += ("compile_seconds", "skipped")


def records(run: Run) -> list[dict[str, Any]]:
    """Returns a run as records: the machine with the peaks, then the rows."""
    first = {"kind": "run", "machine": run.machine, "peaks": run.peaks}
    return [first, *({"kind": "row", **row.to_json()} for row in run.rows)]


def json_lines(run: Run) -> str:
    """Returns a run as JSON lines: the machine with the peaks, then the rows with all samples."""
    return "".join(f"{json.dumps(record, allow_nan=False)}\n" for record in records(run))


def json_array(run: Run) -> str:
    """Returns a run as one JSON array: the records of `json_lines`."""
    return f"{json.dumps(records(run), allow_nan=False, indent=1)}\n"


def comma_separated(run: Run) -> str:
    """Returns the rows as CSV with a header, a column for the verdict, and the peak memory in bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, "verdict", "agreement", "distance", "peak_bytes"])
    for row in run.rows:
        verdict = [row.verdict.get(name, "") for name in ("kind", "agreement", "distance")]
        values = [getattr(row, name) for name in COLUMNS]
        writer.writerow(["" if value is None else value for value in (*values, *verdict)] + [_peak(row)])
    return text.getvalue()


def _peak(row: Row) -> int | str:
    return row.memory.get("peak", "")


def write(run: Run, path: Path) -> None:
    """Writes a run in the format of the file's name: .jsonl, .json, .md, .csv, .png or .svg."""
    kind = path.suffix.lower()
    if kind in (".png", ".svg"):
        draw(run, path)
        return
    writers = {".md": markdown, ".csv": comma_separated, ".json": json_array}
    text = writers.get(kind, json_lines)(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_all(run: Run, paths: Iterable[Path]) -> dict[Path, Exception]:
    """Writes a run into several files; returns the errors of those that could not be written."""
    failures: dict[Path, Exception] = {}
    for path in paths:
        try:
            write(run, path)
        except (ImportError, OSError, ValueError) as error:
            failures[path] = error
    return failures


def read(path: str | Path) -> Run:
    """Reads a run that `write` wrote as JSON lines, or as a JSON array.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file; the message names it, the line and the value.
    """
    run = None
    for place, record in _parsed(Path(path)):
        try:
            kind = record["kind"]
            if kind == "run":
                run = _run_of(record)
            elif kind == "row" and run is not None:
                run.rows.append(Row.from_json(record))
            else:
                raise ValueError("a row before the machine" if kind == "row" else f"kind {kind!r}")
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path, place, error) from None
    if run is None:
        raise ValueError(f"{path} holds no results of minitx bench.")
    return run


def _parsed(path: Path) -> Iterator[tuple[str, Any]]:
    """Yields the records of a file, each with its place."""
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise _damaged(path, f"line {line}", error) from None
    if path.suffix.lower() == ".json" and text.lstrip()[:1] == "[":
        try:
            records = json.loads(text)
        except ValueError as error:
            raise _damaged(path, "the array", error) from None
        yield from ((f"record {number}", record) for number, record in enumerate(records, start=1))
        return
    for number, part in enumerate(text.split("\n"), start=1):
        if part.strip():
            try:
                record = json.loads(part)
            except ValueError as error:
                raise _damaged(path, f"line {number}", error) from None
            yield f"line {number}", record


def _run_of(record: dict[str, Any]) -> Run:
    for name in ("machine", "peaks"):
        if not isinstance(record[name], dict):
            raise ValueError(f"{name} is {record[name]!r}")
    return Run(record["machine"], peaks=record["peaks"])


def _damaged(path: str | Path, place: str, error: Exception) -> ValueError:
    reason = f"{type(error).__name__}: {error}"
    return ValueError(f"{path}: {place} is no result of minitx bench ({reason})")
