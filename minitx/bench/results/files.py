"""Files of results: JSON lines, Markdown and CSV; JSON lines can be read again."""

from __future__ import annotations

import csv
import io
import json
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
    writers = {".md": markdown, ".csv": comma_separated}
    text = writers.get(kind, json_lines)(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read(path: str | Path) -> Run:
    """Reads a run that `write` wrote as JSON lines.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file; the message names it and the line.
    """
    run = None
    lines = Path(path).read_text("utf-8").splitlines()
    for number, line in enumerate(filter(str.strip, lines), start=1):
        try:
            record = json.loads(line)
            kind = record["kind"]
            if kind == "run":
                run = Run(record["machine"], peaks=record["peaks"])
            elif kind == "row" and run is not None:
                run.rows.append(Row.from_json(record))
            else:
                raise ValueError("a row before the machine" if kind == "row" else f"kind {kind!r}")
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"{path}: line {number} is no result of minitx bench ({reason})") from None
    if run is None:
        raise ValueError(f"{path} holds no results of minitx bench.")
    return run
