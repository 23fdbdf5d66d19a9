"""Records as the data of a recipe: JSON lines and tables to the examples of an objective."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from minitx.training.data.labels import Kind, Labels
from minitx.training.data.records import read_records
from minitx.training.data.split import place, split
from minitx.training.objectives.labelled import answer_characters
from minitx.training.recipe.tables import DataTable
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_integer, check_strings

SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv")
_WHERE = "where:"  # before the columns that a filter reads
Row = Mapping[str, Any]


class Rows(Sequence[Row]):
    """Records of several files.

    Args:
        rows: the records.
        places: file and line of each.
    """

    def __init__(self, rows: Sequence[Row], places: Sequence[str]) -> None:
        self.rows, self.places = rows, places

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        """Returns a record, or the rows of a slice."""
        if isinstance(index, slice):
            return Rows(self.rows[index], self.places[index])
        return self.rows[index]

    def where(self, index: int) -> str:
        """Returns file and line of a record."""
        return self.places[index]


def read_rows(
    data: DataTable, files: Sequence[Path], evaluation: Sequence[Path], seed: int
) -> tuple[Sequence[Row], Sequence[Row] | None]:
    """Returns the records of training and evaluation.

    Args:
        data: how they are read.
        files: of the training, and of the evaluation with a share held out.
        evaluation: files of the evaluation alone.
        seed: of the records that are held out.

    Raises:
        ArgumentValueError: options of text, or filters that leave no record.
        ValueError: as `read_records`.
    """
    for name, usual in (("documents", "paragraphs"), ("min_characters", 0), ("max_characters", None)):
        if getattr(data, name) != usual:
            raise ArgumentValueError(f"data.{name}", getattr(data, name), f"left out with {files[0].suffix}")
    if data.block_length is not None:
        hint = "blocks are cut from text files"
        raise ArgumentValueError(
            "data.block_length", data.block_length, f"left out with {files[0].suffix}", hint
        )
    training = _kept(data, files)
    if data.held_out:
        rows, other = split(training, data.held_out, seed)
        return rows[: data.limit], other[: data.limit]
    return training[: data.limit], _kept(data, evaluation)[: data.limit] if evaluation else None


def _kept(data: DataTable, files: Iterable[Path]) -> Rows:
    """Returns the records of files that the filter keeps."""
    rows, places = [], []
    columns = data.columns | {f"{_WHERE}{name}": name for name in data.where}
    for path in files:
        records = read_records(path, **columns) if data.columns else read_records(path)
        for index, row in enumerate(records):
            prefix = _WHERE if data.columns else ""
            if all(_matches(row, f"{prefix}{name}", value) for name, value in data.where.items()):
                rows.append({key: value for key, value in row.items() if not key.startswith(_WHERE)})
                places.append(records.where(index))
    if not rows:
        raise ArgumentValueError("data.where", data.where, "a filter that some record passes")
    return Rows(rows, places)


def _matches(row: Row, key: str, expected: Any) -> bool:
    values = expected if isinstance(expected, list) else [expected]
    if key not in row:
        name = key.removeprefix(_WHERE)
        raise ArgumentValueError("data.where", name, f"a column: one of {', '.join(map(repr, row))}")
    return any(row[key] in (value, *_as_cells(value)) for value in values)


def _as_cells(value: Any) -> list[str]:
    """Returns a value as cells of a table, which are texts, may have it; a time with T or a space."""
    return [str(value), *([value.isoformat()] if isinstance(value, datetime) else [])]


def texts_of(rows: Iterable[Row]) -> Iterator[str]:
    """Yields all texts of records, to train a tokenizer on."""
    for row in rows:
        for key, value in row.items():
            if key not in ("label", "labels"):
                yield from _texts(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(value.get("content", value.get("text")))
    elif isinstance(value, list) and all(isinstance(word, str) for word in value):
        yield " ".join(value)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


# --- examples of objectives --------------------------------------------------------------------------


def with_words(row: Row, where: str) -> Row:
    """Returns a record whose words and labels are lists; in a table, spaces separate them."""
    fields = {name: row[name] for name in ("words", "label", "labels") if isinstance(row.get(name), str)}
    return {**row, **{name: text.split() for name, text in fields.items()}}


def with_label_list(row: Row, where: str) -> Row:
    """Returns a record with a list of labels; in a table, commas separate them."""
    fields = {name: row[name] for name in ("label", "labels") if isinstance(row.get(name), str)}
    return {**row, **{name: [x.strip() for x in text.split(",")] for name, text in fields.items()}}


def with_number(row: Row, where: str) -> Row:
    """Returns a record with `labels`, the number to predict."""
    name = label_field([row])
    try:
        number = math.nan if isinstance(row[name], bool) else float(row[name])
    except (KeyError, TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ArgumentTypeError(f"{where}: {name}", row.get(name), "a number", "num_labels=1 is regression")
    return {key: value for key, value in row.items() if key != name} | {"labels": number}


def with_answers(row: Row, where: str) -> Row:
    """Returns a record with `answers` as in SQuAD, from `answer` and its first character `start`.

    Without `start` the answer is found in the context.
    """
    if "answers" in row:
        answer_characters(row["context"], row["answers"], f"{where}: answers")
        return row
    answer, context, start = row["answer"], row["context"], row.get("start")
    check_strings(**{f"{where}: answer": answer})
    if start is None or start == "":
        start = context.find(answer)
    elif isinstance(start, str):  # a cell of a table
        try:
            start = int(start)
        except ValueError:
            raise ArgumentTypeError(f"{where}: start", start, "the number of a character") from None
    else:
        check_integer(f"{where}: start", start, hint="it is the number of a character")
    if not answer or start < 0 or context[start : start + len(answer)] != answer:
        hint = "start counts characters from 0; leave it out to find the answer"
        raise ArgumentValueError(f"{where}: answer", answer, "a part of the context, where it starts", hint)
    rest = {key: value for key, value in row.items() if key not in ("answer", "start")}
    return rest | {"answers": {"text": [answer], "answer_start": [start]}}


def converted(rows: Sequence[Row], convert: Callable[[Row, str], Row]) -> Rows:
    """Returns records after a conversion, which gets file and line of each for its messages."""
    places = [place(rows, index) for index in range(len(rows))]
    return Rows([convert(row, where) for row, where in zip(rows, places, strict=True)], places)


def label_field(rows: Sequence[Row]) -> str:
    """Returns the field of the labels: "label", or "labels"."""
    return "labels" if "label" not in rows[0] and "labels" in rows[0] else "label"


def encode_labels(
    rows: Sequence[Row], other: Sequence[Row] | None, names: Sequence[str] | None, kind: Kind
) -> tuple[Labels, Callable[[Labels], tuple[Sequence[Row], Sequence[Row] | None]]]:
    """Returns the labels of records, and a function that encodes the records with them, or with a model's.

    Args:
        rows: of the training.
        other: of the evaluation.
        names: of the labels in their order; None: those that occur.
        kind: of `Labels.encode`.

    Raises:
        ValueError: a record without a label, or one that `names` lack.
    """
    parts = [rows] if other is None else [rows, other]
    name = label_field(rows)
    labels = Labels.of(*parts, field=name) if names is None else Labels(tuple(names))

    def _encode(labels: Labels) -> tuple[Sequence[Row], Sequence[Row] | None]:
        encoded = [labels.encode(part, field=name, kind=kind) for part in parts]
        return encoded[0], encoded[1] if other is not None else None

    _encode(labels)
    return labels, _encode
