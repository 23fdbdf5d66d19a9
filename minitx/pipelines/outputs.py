"""Files of results: JSON lines, or CSV with a row per answer."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TextIO

from minitx.io import write_atomically
from minitx.validation import ArgumentValueError

FORMATS = (".jsonl", ".csv")
INPUT, PART = "input", "part"  # the columns with the index of the input, and of a list of its answers


def plain(result: Any) -> Any:
    """Returns a result as values of JSON."""
    if isinstance(result, dict):
        return {str(name): plain(value) for name, value in result.items()}
    if isinstance(result, list | tuple):
        return [plain(value) for value in result]
    return result.tolist() if hasattr(result, "tolist") else result


def check_not_input(name: str, path: str | None, sources: Iterable[str | Path]) -> None:
    """Checks that writing a file does not replace one that is read, also under another name.

    Raises:
        ArgumentValueError: it does.
    """
    if path is None or not os.path.exists(path):
        return
    for source in sources:
        if os.path.exists(source) and os.path.samefile(path, source):
            raise ArgumentValueError(name, path, "another file", f"it would replace the input {source}")


def with_kept(result: Any, kept: Mapping[str, Any]) -> Any:
    """Returns a plain result, with values of its input as {..., "result": ...} if there are any."""
    return {**kept, "result": plain(result)} if kept else plain(result)


def write_results(
    path: Path, results: Iterable[tuple[Any, Mapping[str, Any]]], *, picture: str | Path | None = None
) -> int:
    """Writes results as they come, all or nothing; returns their number.

    Args:
        path: as of `check_output`, a .jsonl or .csv file; its folder is created if it does not exist. In .csv
            the column "input" has the index of the input, and the kept values are the columns after it. An
            input without answers has a row with these columns alone. Of a result with several lists of
            answers, the column "part" has the index of the list.
        results: of a pipeline, each with the values of its input that are kept.
        picture: a file for a picture of the first result.
    """
    count = 0

    def _counted() -> Iterator[tuple[Any, Mapping[str, Any]]]:
        nonlocal count
        for count, (result, kept) in enumerate(results, start=1):
            if picture is not None and count == 1:
                result.show(picture)
            yield result, kept

    def _write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            if path.suffix.lower() == ".jsonl":
                file.writelines(
                    _dumped(with_kept(result, kept), index) + "\n"
                    for index, (result, kept) in enumerate(_counted())
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
            for answer in _answers(plain(result), _sentences(result)):
                row = start | {_renamed(name, start): value for name, value in answer.items()}
                names |= dict.fromkeys(row)
                _dumped(row, index)
                waiting.write(json.dumps({name: _cell(value) for name, value in row.items()}) + "\n")
        writer = csv.DictWriter(file, list(names))
        writer.writeheader()
        waiting.seek(0)
        writer.writerows(map(json.loads, waiting))


def _dumped(value: Any, index: int) -> str:
    """Returns a result as JSON, which has neither NaN nor infinity; `index` is its place, for the error."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        hint = "the weights may hold NaN, or dtype float32 may help"
        raise ValueError(f"result {index} (from 0) has a number that is not finite; {hint}.") from None


def _sentences(result: Any) -> list[str]:
    """Returns the sentences whose similarities a result with details is; an empty list for other tasks."""
    details = getattr(result, "details", None)
    sentences = () if details is None else details.request.get("sentences", ())
    return list(sentences)


def _answers(result: Any, sentences: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the columns of each answer of a plain result; one without columns if it has no answers.

    Args:
        result: dicts, numbers or lists.
        sentences: the texts that its numbers are about; empty for none.
    """
    parts = result if isinstance(result, list) else _ranked(result)
    if parts and all(isinstance(part, list) and all(isinstance(x, dict) for x in part) for part in parts):
        parts = [{PART: index, **answer} for index, part in enumerate(parts) for answer in part]
    if len(sentences) == len(parts) and all(isinstance(part, float) for part in parts):
        parts = [{"sentence": text, "result": score} for text, score in zip(sentences, parts, strict=True)]
    return [part if isinstance(part, dict) else {"result": part} for part in parts] or [{}]


def _ranked(result: Any) -> list[Any]:
    """Returns a dict per label of a dict with lists of labels and of their scores, or the result alone."""
    if not isinstance(result, dict) or not isinstance(result.get("scores"), list) or "labels" not in result:
        return [result]
    rest = {name: value for name, value in result.items() if name not in ("labels", "scores")}
    pairs = zip(result["labels"], result["scores"], strict=True)
    return [{**rest, "label": label, "score": score} for label, score in pairs]


def _renamed(name: str, taken: Container[str]) -> str:
    """Returns the name of a column, with "_" after it if another one has it."""
    return f"{name}_" if name in taken else name


def _cell(value: Any) -> Any:
    """Returns a value for a cell: lists and dicts as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
