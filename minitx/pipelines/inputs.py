"""Requests from files: one per line of text, JSON lines, or rows of CSV; read as they are needed."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from minitx.io import parse_value
from minitx.readers import JSON_LINES, SEPARATORS, check_exists, read_cells, read_lines, read_values
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
        path: .csv or .tsv has a header and a column for each field, .jsonl or .ndjson an object or a string
            per line, any other file, or a pipe, a text per line.
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
    if path.suffix.lower() == ".json":
        raise ArgumentValueError("inputs", str(path), "a .csv, .tsv, .jsonl or text file")
    check_exists(path)
    if columns is not None:
        check_type("columns", columns, list | tuple, "a list of names of columns")
        for index, name in enumerate(columns):
            check_type(f"columns[{index}]", name, str, "a string")
        if not 0 < len(columns) <= len(fields):
            expected = f"a name for each of {', '.join(map(repr, fields))}, or for the first of them"
            raise ArgumentValueError("columns", list(columns), expected)
    names = dict(zip(fields, columns or fields, strict=False))
    needed = [name for field, name in names.items() if columns is not None or field not in optional]
    return _File(path, names, needed, keep, list(columns) if columns else None).read()


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
            error.parameter = f"{path}:{line}: {name[1] or field}" + error.parameter[name.end() :]
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
                expected = f"left out; {path}:{row.line} states it too"
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

    def read(self) -> Iterator[Row]:
        """Yields the rows of the file."""
        kind = self.path.suffix.lower()
        if kind in (*SEPARATORS, *JSON_LINES):
            values = read_values(self.path, {*self.names.values(), *self.keep})
        else:
            values = read_lines(self.path)
        number = None
        for number, value in values:
            yield self._row(value, number, "its header" if kind in SEPARATORS else f"line {number}")
        if number is None:
            raise ValueError(f"{self.path} holds no requests.")

    def _row(self, value: Any, number: int, place: str) -> Row:
        """Returns a request; columns of the file that are not its inputs are left out."""
        if not isinstance(value, dict | str | list):
            raise ValueError(f"{self.path}:{number}: neither an object nor a string.")
        # a text or a conversation is the first field alone
        named = value if isinstance(value, dict) else {next(iter(self.names)): value}
        self._check(named, place)
        kept = {name: named[name] for name in self.keep}
        if named is not value:
            return Row(value, kept, number)
        return Row({x: value[y] for x, y in self.names.items() if value.get(y) is not None}, kept, number)

    def _check(self, present: Mapping[str, Any], place: str) -> None:
        """Checks that all columns or keys are present; `place` is where, such as "line 3"."""
        lists = (("columns", self.stated, self.needed), ("keep", list(self.keep), self.keep))
        for parameter, value, needed in lists:
            for name in needed:
                if name not in present:
                    others = f", but {', '.join(map(repr, present))}" if present else ""
                    expected = f"names of columns or keys of {self.path}; {place} has no {name!r}{others}"
                    raise ArgumentValueError(parameter, value, expected)


def read_table(path: Path) -> Any:
    """Returns the table of a file: of a .csv its rows, the first of which has the names of the columns.

    Args:
        path: .csv or .tsv, or .json with a dict of columns, a list of dicts, or a list of rows.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, not UTF-8, not JSON, or a row with more or fewer cells than the
            first; the message names its line.
    """
    kind = path.suffix.lower()
    if kind not in (*SEPARATORS, ".json"):
        raise ArgumentValueError("table", str(path), "a .csv, .tsv or .json file")
    check_exists(path)
    return parse_value(path.read_bytes(), path) if kind == ".json" else [row for _, row in read_cells(path)]
