"""Requests from files: one per line of text, JSON lines, or rows of CSV; read as they are needed."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from minitx.validation import ArgumentError, ArgumentValueError, check_type


class Row(NamedTuple):
    """A request of a file, further values of its line, such as an id, and the number of the line."""

    request: Any
    kept: dict[str, Any]
    line: int


def read_rows(
    path: Path,
    fields: Sequence[str],
    columns: Sequence[str] | None = None,
    *,
    optional: Sequence[str] = (),
    keep: Sequence[str] = (),
) -> Iterator[Row]:
    """Yields the requests of a file, line by line.

    Args:
        path: .csv has a header and a column for each field, .jsonl or .ndjson an object or a string per line,
            any other file, or a pipe, a text per line.
        fields: names of the inputs of a request.
        columns: names of the columns or keys of these fields in the file; None: those of the fields.
        optional: fields that the file may lack, unless `columns` names them.
        keep: names of columns or keys that are kept beside the request.

    Raises:
        FileNotFoundError: no such file.
        TypeError: `columns` is not a list of strings.
        ValueError: more columns than fields, not UTF-8, no requests, a line that is not JSON or CSV, a row
            with more or fewer cells than the header, a column or key that is missing or there twice; the
            message names the line.
    """
    if path.suffix.lower() in (".json", ".tsv"):
        raise ArgumentValueError("inputs", str(path), "a .csv, .jsonl or text file")
    if not path.exists() or path.is_dir():
        raise FileNotFoundError(f"{path}: there is no such file.")
    if columns is not None:
        check_type("columns", columns, list | tuple, "a list of names of columns")
        for index, name in enumerate(columns):
            check_type(f"columns[{index}]", name, str, "a string")
        if not 0 < len(columns) <= len(fields):
            expected = f"a name for each of {', '.join(map(repr, fields))}, or for the first of them"
            raise ArgumentValueError("columns", list(columns), expected)
    names = dict(zip(fields, columns or fields, strict=False))
    needed = [name for field, name in names.items() if columns is not None or field not in optional]
    return _read(_File(path, names, needed, keep, list(columns) if columns else None))


def run_rows(
    rows: Iterable[Row], path: Path, field: str, run: Callable[[Iterator[Any]], Iterable[Any]]
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yields the result of each row, with its values that are kept; an error about a request names its line.

    Args:
        rows: of a file.
        path: of this file.
        field: the field that a request without names is.
        run: yields the results of requests, and reads none after a bad one.
    """
    kept: deque[dict[str, Any]] = deque()
    line = 0

    def _requests() -> Iterator[Any]:
        nonlocal line
        for row in rows:
            line = row.line
            kept.append(row.kept)
            yield row.request

    try:
        for result in run(_requests()):
            yield result, kept.popleft()
    except ArgumentError as error:
        if name := re.match(r"inputs\[\d+\](?:\['(\w+)'\])?", error.parameter):
            place = f"{path}: line {line}, {name[1] or field!r}"
            error.parameter = place + error.parameter[name.end() :]
        raise


def run_file(
    pipe: Any,
    path: Path,
    columns: Sequence[str] | None = None,
    *,
    fields: Mapping[str, Any] | None = None,
    keep: Sequence[str] = (),
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yields the result of each request of a file, with the values of its line that are kept.

    Args:
        pipe: a pipeline.
        path, columns, keep: as for `read_rows`.
        fields: of all requests.

    Raises:
        ValueError: a field of all requests that a line has too, or as `read_rows`.
    """
    stated, (first, *_) = fields or {}, pipe.task.fields
    optional = (*pipe.task.optional, *stated)
    rows = read_rows(path, pipe.task.fields, columns, optional=optional, keep=keep)

    def _with_fields() -> Iterator[Row]:
        for row in rows:
            request = row.request if isinstance(row.request, dict) else {first: row.request}
            for name in filter(request.__contains__, stated):
                expected = f"left out; line {row.line} of {path} states it too"
                raise ArgumentValueError(name, stated[name], expected)
            yield row._replace(request={**stated, **request})

    return run_rows(_with_fields(), path, first, pipe)


@dataclass(frozen=True)
class _File:
    """A file of requests.

    Attributes:
        names: field -> column or key.
        needed: columns or keys that every line has.
        keep: columns or keys that are kept beside the request.
        stated: columns as stated; None for the names of the fields.
    """

    path: Path
    names: Mapping[str, str]
    needed: Sequence[str]
    keep: Sequence[str]
    stated: list[str] | None

    def check(self, present: Sequence[str], place: str) -> None:
        """Checks that all columns or keys are there.

        Args:
            present: their names.
            place: such as "line 3".
        """
        lists = (("columns", self.stated, self.needed), ("keep", list(self.keep), self.keep))
        for parameter, value, needed in lists:
            for name in needed:
                if name not in present:
                    others = f", but {', '.join(map(repr, present))}" if present else ""
                    expected = f"names of columns or keys of {self.path}; {place} has no {name!r}{others}"
                    raise ArgumentValueError(parameter, value, expected)

    def row(self, line: Mapping[str, Any], number: int) -> Row:
        """Returns the fields of a request; other columns of the file are not its inputs."""
        request = {field: line[name] for field, name in self.names.items() if line.get(name) is not None}
        return Row(request, {name: line[name] for name in self.keep}, number)


def read_table(path: Path) -> Any:
    """Returns the table of a file: of a .csv its rows, the first of which has the names of the columns.

    Args:
        path: .csv, or .json with a dict of columns, a list of dicts, or a list of rows.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, not UTF-8, not JSON, or a row with more or fewer cells than the
            first; the message names its line.
    """
    kind = path.suffix.lower()
    if kind not in (".csv", ".json"):
        raise ArgumentValueError("table", str(path), "a .csv or .json file")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    with _opened(path) as file:
        if kind == ".json":
            return _load_json(file, path)
        rows: list[list[str]] = []
        for number, row in _csv_rows(file, path):
            rows.append(row)
            _check_width(row, rows[0], number, path)
        return rows


def _load_json(file: TextIO, path: Path) -> Any:
    try:
        return json.load(file)
    except UnicodeDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a table ({error}).") from None


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error}).") from None


def _read(source: _File) -> Iterator[Row]:
    readers: dict[str, Callable[[TextIO, _File], Iterator[Row]]]
    readers = {".csv": _csv_requests, ".jsonl": _json_lines, ".ndjson": _json_lines}
    count = 0
    with _opened(source.path) as file:
        for row in readers.get(source.path.suffix.lower(), _lines)(file, source):
            count += 1
            yield row
    if not count:
        raise ValueError(f"{source.path} holds no requests.")


def _lines(file: TextIO, source: _File) -> Iterator[Row]:
    (field, *_) = source.names
    source.check([field], "a text file")
    for number, line in enumerate(file, start=1):
        text = line.rstrip("\r\n")
        yield Row(text, dict.fromkeys(source.keep, text), number)


def _json_lines(file: TextIO, source: _File) -> Iterator[Row]:
    (field, *_) = source.names
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{source.path}: line {number} is not JSON ({error}).") from None
        if isinstance(value, dict):
            source.check(list(value), f"line {number}")
            yield source.row(value, number)
        elif isinstance(value, str | list):  # the first field alone: a text or a conversation
            source.check([field], f"line {number}, which is not an object,")
            yield Row(value, dict.fromkeys(source.keep, value), number)
        else:
            raise ValueError(f"{source.path}: line {number} is neither an object nor a string.")


def _csv_requests(file: TextIO, source: _File) -> Iterator[Row]:
    header: list[str] | None = None
    for number, row in _csv_rows(file, source.path):
        if header is None:
            header = row
            _check_header(header, source)
        else:
            _check_width(row, header, number, source.path)
            yield source.row(dict(zip(header, row, strict=True)), number)
    if header is None:
        raise ValueError(f"{source.path} is empty; its first line must have the names of its columns.")


def _csv_rows(file: TextIO, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows that are not empty, each with the number of its line."""
    csv = _unlimited_csv()
    rows = csv.reader(file, strict=True)
    try:
        for row in rows:
            if row:
                yield rows.line_num, row
    except csv.Error as error:
        hint = "a quote within quotes is doubled"
        raise ValueError(f"{path}: line {rows.line_num} is not CSV ({error}); {hint}.") from None


def _check_width(row: Sequence[str], header: Sequence[str], number: int, path: Path) -> None:
    """Checks that a row has a cell for each column; `number` is that of its line."""
    if len(row) != len(header):
        hint = "quote a text that holds commas" if len(row) > len(header) else "an empty cell has a comma"
        cells = f"{len(row)} cell{'s' * (len(row) > 1)}"
        raise ValueError(f"{path}: line {number} has {cells}, and the header has {len(header)}; {hint}.")


@cache
def _unlimited_csv() -> Any:
    """Returns the module `csv`, for cells of any length.

    It is a private instance of `_csv`: each has one limit for all its readers, and that of the shared one
    belongs to the program.
    """
    spec = find_spec("_csv")
    assert spec, "csv needs it"
    assert spec.loader, "it is not a folder"
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.field_size_limit(2**31 - 1)
    return module


def _check_header(header: Sequence[str], source: _File) -> None:
    source.check(header, "its header")
    for name in header:
        if name in (*source.names.values(), *source.keep) and header.count(name) > 1:
            raise ValueError(f"{source.path}: the header has the column {name!r} more than once; rename one.")
