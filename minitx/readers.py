"""Lines, JSON lines and tables of UTF-8 files, read as they are needed; an error names file and line."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cache
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any

from minitx.io import parse_value

JSON_LINES = (".jsonl", ".ndjson")
SEPARATORS = {".csv": ",", ".tsv": "\t"}  # of the cells of tables

_LONGEST_LINE = 16 * 2**20  # bytes; a longer one is most likely no text
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BOM = b"\xef\xbb\xbf"


def check_exists(path: Path) -> None:
    """Checks that a path is a file or a pipe, else raises FileNotFoundError or IsADirectoryError."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; pass the files in it.")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the number, from 1, and the text of each line, without the line's end.

    Raises:
        FileNotFoundError, IsADirectoryError: no such file, or a folder.
        ValueError: an empty file, bytes that are not UTF-8, a null character, or a line of more than 16 MiB.
    """
    for number, line in _complete_lines(path):
        yield number, line.removesuffix("\n").removesuffix("\r")


def read_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the number of the first line and the cells of each row of a table, the header first.

    Args:
        path: a .csv or .tsv file. Its empty lines are left out.

    Raises:
        ValueError: as `read_lines`, quotes that are not closed, or a row with more or fewer cells than the
            header.
    """
    csv = _csv()
    separator = SEPARATORS[path.suffix.lower()]
    rows = csv.reader((line for _, line in _complete_lines(path)), delimiter=separator, strict=True)
    width = 0
    while True:
        number = rows.line_num + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            hint = "are all quotes closed, and quotes in a cell doubled?"
            raise ValueError(f"{path}:{number}: not readable as a table ({error}); {hint}") from None
        if row is None:
            return
        width = width or len(row)
        if row and len(row) != width:
            hint = "put a cell that holds the separator in quotes"
            hint = hint if len(row) > width else "an empty cell needs its separator too"
            cells = f"{len(row)} cell{'s' * (len(row) > 1)}, and the header has {width}"
            raise ValueError(f"{path}:{number}: {cells}; {hint}.")
        if row:
            yield number, row


def read_values(path: Path, columns: Collection[str] | None = None) -> Iterator[tuple[int, Any]]:
    """Yields the number of the first line and the value of each row of a table, or of each line of JSON.

    Args:
        path: .csv and .tsv have a header, and a row becomes a dict; .jsonl and .ndjson have a value per line,
            and blank lines are left out.
        columns: columns that are used, and must be in the header at most once; None: all of it.

    Raises:
        ValueError: as `read_lines` or `read_cells`, a line that is not JSON, or a column that is there twice.
    """
    if path.suffix.lower() in JSON_LINES:
        for number, line in read_lines(path):
            if line.strip():
                yield number, parse_value(line.encode(), f"{path}:{number}")
        return
    header: list[str] | None = None
    for number, row in read_cells(path):
        if header:
            yield number, dict(zip(header, row, strict=True))
            continue
        header = [name.strip() for name in row]
        for name in header if columns is None else columns:
            if header.count(name) > 1:
                raise ValueError(
                    f"{path}:{number}: the header has the column {name!r} more than once; rename one."
                )


def _complete_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the lines with their ends, which belong to the text of a cell in quotes."""
    number = 0
    with path.open("rb") as file:
        while block := file.readline(_LONGEST_LINE + 1):
            where = f"{path}:{number + 1}"
            if number == 0 and block.startswith(_UTF16):
                raise ValueError(f"{where}: the file is in UTF-16; convert it to UTF-8.")
            if len(block) > _LONGEST_LINE:
                limit = f"{_LONGEST_LINE:,} bytes"
                raise ValueError(f"{where}: the line has more than {limit}; is it text, with ends of lines?")
            if number == 0:
                block = block.removeprefix(_BOM)
            for line in block.splitlines(keepends=True):  # "\r" alone ends a line too
                number += 1
                yield number, _decode(line, f"{path}:{number}")
    if number == 0:
        raise ValueError(f"{path} is empty; it must hold texts or records.")


def _decode(line: bytes, where: str) -> str:
    """Returns the text of a line; `where` is its place, for errors."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{line[error.start]:02x} in column {error.start + 1}"
        raise ValueError(f"{where}: {byte} is not UTF-8; convert the file, e.g. from Latin-1.") from None
    if "\0" in text:
        raise ValueError(f"{where}: the line holds a null character; is it a text file?")
    return text


@cache
def _csv() -> Any:
    """Returns the module `csv`, for cells as long as a line may be.

    It is a private instance of `_csv`: each has one limit for all its readers, and that of the shared one
    belongs to the program.
    """
    spec = find_spec("_csv")
    assert spec, "csv needs it"
    assert spec.loader, "it is not a folder"
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.field_size_limit(_LONGEST_LINE)
    return module
