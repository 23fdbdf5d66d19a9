"""Requests from files: one per line of text, JSON lines, or rows of CSV; read as they are needed."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from minitx.validation import ArgumentValueError


def read_file(path: Path, fields: Sequence[str], columns: Sequence[str] | None = None) -> Iterator[Any]:
    """Yields the requests of a file, line by line.

    Args:
        path: .csv has a header and a column for each field, .jsonl or .ndjson an object or a string per line,
            any other file a text per line.
        fields: names of the inputs of a request.
        columns: names of the columns or keys of these fields in the file; None: those of the fields.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not UTF-8, a line that is not JSON or CSV, a row with more cells than the header, a column
            that the file lacks or has twice; the message names the line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    kind = path.suffix.lower()
    reader = {".csv": _csv_rows, ".jsonl": _json_lines, ".ndjson": _json_lines}.get(kind, _lines)
    names = dict(zip(columns or fields, fields, strict=False))
    return _read(path, reader, names)


def read_table(path: Path) -> Any:
    """Returns the table of a file: of a .csv its rows, the first of which has the names of the columns.

    Args:
        path: .csv, or .json with a dict of columns, a list of dicts, or a list of rows.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, not UTF-8, or not JSON.
    """
    kind = path.suffix.lower()
    if kind not in (".csv", ".json"):
        raise ArgumentValueError("table", str(path), "a .csv or .json file")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if kind == ".csv":
                return _table_rows(file, path)
            return _load_json(file, path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error}).") from None


def _load_json(file: TextIO, path: Path) -> Any:
    try:
        return json.load(file)
    except UnicodeDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a table ({error}).") from None


def _read(
    path: Path, reader: Callable[[TextIO, dict[str, str], Path], Iterator[Any]], names: dict[str, str]
) -> Iterator[Any]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from reader(file, names, path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error}).") from None


def _lines(file: TextIO, names: dict[str, str], path: Path) -> Iterator[str]:
    for line in file:
        yield line.rstrip("\r\n")


def _json_lines(file: TextIO, names: dict[str, str], path: Path) -> Iterator[Any]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: line {number} is not JSON ({error}).") from None
        yield _select(value, names) if isinstance(value, dict) else value


def _csv_rows(file: TextIO, names: dict[str, str], path: Path) -> Iterator[dict[str, str]]:
    rows = csv.reader(file, strict=True)
    try:
        header = next(rows, [])
        _check_header(header, names, path)
        for row in rows:
            if len(row) > len(header):
                raise ValueError(
                    f"{path}: line {rows.line_num} has {len(row)} cells, more than the header, which has "
                    f"{len(header)}; quote a text that holds commas."
                )
            if row:
                yield _select(dict(zip(header, row, strict=False)), names)
    except csv.Error as error:
        raise _not_csv(path, rows.line_num, error) from None


def _table_rows(file: TextIO, path: Path) -> list[list[str]]:
    rows = csv.reader(file, strict=True)
    try:
        return [row for row in rows if row]
    except csv.Error as error:
        raise _not_csv(path, rows.line_num, error) from None


def _not_csv(path: Path, line: int, error: csv.Error) -> ValueError:
    return ValueError(f"{path}: line {line} is not CSV ({error}); a quote within quotes is doubled.")


def _check_header(header: Sequence[str], names: dict[str, str], path: Path) -> None:
    if not any(name in header for name in names):
        expected = f"a column of the file: {', '.join(header)}"
        raise ArgumentValueError("column", ", ".join(names), expected, f"{path} has no other")
    for name in header:
        if name in names and header.count(name) > 1:
            raise ValueError(f"{path}: the header has the column {name!r} more than once; rename one.")


def _select(row: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Returns the fields of a request; other columns of the file are not its inputs."""
    return {field: row[name] for name, field in names.items() if row.get(name) is not None}
