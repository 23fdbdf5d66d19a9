"""JSON lines and CSV files as the data of a run; labelled data is small and read at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minitx.readers import JSON_LINES, SEPARATORS, check_exists, read_values
from minitx.validation import ArgumentValueError, check_path, check_strings


class Records(Sequence[Mapping[str, Any]]):
    """The records of a JSON lines or CSV file, from `read_records`.

    Args:
        path: the file, for errors.
        rows: the records.
        lines: number of the line on which each begins.
    """

    def __init__(self, path: Path, rows: Sequence[Mapping[str, Any]], lines: Sequence[int]) -> None:
        self.path, self.rows, self.lines = path, rows, lines

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        """Returns a record, or the list of a slice."""
        return self.rows[index]

    def __repr__(self) -> str:
        fields = ", ".join(self.rows[0])
        return f"Records({str(self.path)!r}, {len(self)} of {fields})"

    def where(self, index: int) -> str:
        """Returns file and line of a record, "reviews.csv:17"."""
        return f"{self.path}:{self.lines[index]}"


def read_records(path: str | Path, **columns: str) -> Records:
    """Reads a JSON lines file (.jsonl, .ndjson) or a table (.csv, .tsv) with a header.

    `read_records("reviews.csv", text="review", label="stars")` returns records {"text": ..., "label": ...}.
    Values of a table are strings; those of JSON lines keep their type.

    Args:
        path: the file.
        **columns: field of the records -> name of its column. Without any, all columns are read under their
            own names.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file; no record; a line that is not JSON; a row with too many or too few
            cells; a column that is missing, or empty; messages of a chat without role or content.
    """
    path = check_path("path", path)
    check_strings(**columns)
    kinds = (*JSON_LINES, *SEPARATORS)
    if path.suffix.lower() not in kinds:
        hint = "a JSON file with one list must be rewritten with one record per line"
        expected = f"a file that ends in {', '.join(kinds)}"
        raise ArgumentValueError("path", str(path), expected, hint if path.suffix == ".json" else "")
    check_exists(path)
    rows, lines = [], []
    for number, row in read_values(path, columns.values() or None):
        where = f"{path}:{number}"
        if not isinstance(row, dict):
            raise ValueError(f"{where}: holds a {type(row).__name__}; expected a JSON object.")
        rows.append({field: _cell(row, name, where) for field, name in columns.items()} if columns else row)
        lines.append(number)
        for field, value in rows[-1].items():
            _check_messages(field, value, where)
    if not rows:
        raise ValueError(f"{path} has no records; it must hold the data to train on.")
    return Records(path, rows, lines)


def _cell(row: Mapping[str, Any], name: str, where: str) -> Any:
    """Returns a value that a record must have."""
    if name not in row:
        names = ", ".join(map(repr, row))
        raise ValueError(f"{where}: no column {name!r}; the columns are {names}.")
    value = row[name]
    if value is None or value == [] or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"{where}: column {name!r} is empty.")
    return value


def _check_messages(field: str, value: Any, where: str) -> None:
    """Checks the messages of a chat; any other value is accepted."""
    is_list = isinstance(value, list)
    if field != "messages" and not (is_list and value and isinstance(value[0], Mapping)):
        return
    if not is_list or not value:
        raise ValueError(f"{where}: {field} must be a list of messages with role and content.")
    for message in value:
        keys = ("role", "content")
        if not isinstance(message, Mapping) or not all(isinstance(message.get(key), str) for key in keys):
            raise ValueError(f"{where}: {field} has {message!r:.60}, which needs texts as role and content.")
