"""Files of results: JSON lines, or CSV with a row per answer."""

from __future__ import annotations

import csv
import json
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TextIO

from minitx.io import write_atomically

FORMATS = (".jsonl", ".csv")
INPUT = "input"  # the column with the index of the input


def plain(result: Any) -> Any:
    """Returns a result as values of JSON."""
    if isinstance(result, dict):
        return {str(name): plain(value) for name, value in result.items()}
    if isinstance(result, list | tuple):
        return [plain(value) for value in result]
    return result.tolist() if hasattr(result, "tolist") else result


def with_kept(result: Any, kept: Mapping[str, Any]) -> Any:
    """Returns a plain result, with values of its input as {..., "result": ...} if there are any."""
    return {**kept, "result": plain(result)} if kept else plain(result)


def write_results(
    path: Path, results: Iterable[tuple[Any, Mapping[str, Any]]], *, picture: str | Path | None = None
) -> int:
    """Writes results as they come, all or nothing; returns their number.

    Args:
        path: as of `check_output`, a .jsonl or .csv file; its folder is created if it does not exist. In .csv
            the column "input" has the index of the input, and the kept values are the columns after it.
        results: of a pipeline, each with the values of its input that are kept.
        picture: a file for a picture of the first result.
    """
    count = 0

    def _counted() -> Iterator[tuple[Any, Mapping[str, Any]]]:
        nonlocal count
        for count, (result, kept) in enumerate(results, start=1):
            if picture is not None and count == 1:
                result.show(picture)
            yield plain(result), kept

    def _write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            if path.suffix.lower() == ".jsonl":
                file.writelines(
                    json.dumps(with_kept(result, kept), ensure_ascii=False) + "\n"
                    for result, kept in _counted()
                )
            else:
                _write_rows(file, _counted())

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _write)
    return count


def _write_rows(file: TextIO, results: Iterable[tuple[Any, Mapping[str, Any]]]) -> None:
    """Writes a row per answer; the rows wait in a temporary file until all columns are known."""
    names: dict[str, None] = {INPUT: None}
    with TemporaryFile("w+", encoding="utf-8") as waiting:
        for index, (result, kept) in enumerate(results):
            start = {INPUT: index} | {_renamed(name, {INPUT}): value for name, value in kept.items()}
            for answer in result if isinstance(result, list) else [result]:
                row = answer if isinstance(answer, dict) else {"result": answer}
                row = start | {_renamed(name, start): value for name, value in row.items()}
                names |= dict.fromkeys(row)
                waiting.write(json.dumps({name: _cell(value) for name, value in row.items()}) + "\n")
        writer = csv.DictWriter(file, list(names))
        writer.writeheader()
        waiting.seek(0)
        writer.writerows(map(json.loads, waiting))


def _renamed(name: str, taken: Container[str]) -> str:
    """Returns the name of a column, with "_" after it if another one has it."""
    return f"{name}_" if name in taken else name


def _cell(value: Any) -> Any:
    """Returns a value for a cell: lists and dicts as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
