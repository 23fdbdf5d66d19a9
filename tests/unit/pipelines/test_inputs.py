"""Files of requests: columns, keys, kept values, and errors that name the line."""

from __future__ import annotations

import csv
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import minitx
from minitx.pipelines.inputs import read_rows, run_file
from minitx.pipelines.outputs import write_results
from tests.unit.pipelines.folders import bert_folder

PAIR = ("text", "text_pair")


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> minitx.Pipeline:
    folder = bert_folder(tmp_path_factory.mktemp("inputs") / "model", "sequence-classification", num_labels=2)
    return minitx.pipeline(model=folder)


def write(folder: Path, kind: str, content: str) -> Path:
    path = folder / f"in.{kind}"
    path.write_text(content, encoding="utf-8")
    return path


def rows(path: Path, columns: Any = None, **more: Any) -> Iterator[Any]:
    return read_rows(path, PAIR, columns, optional=("text_pair",), **more)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("csv", "id,review\n7,the cat\n8,a dog\n"),
        ("TSV", "id\treview\n7\tthe cat\n8\ta dog\n"),
        ("jsonl", '{"id": 7, "review": "the cat"}\n\n{"id": 8, "review": "a dog"}\n'),
    ],
)
def test_a_call_names_the_columns(pipe: minitx.Pipeline, tmp_path: Path, kind: str, content: str) -> None:
    path = write(tmp_path, kind, content)
    assert list(pipe(path, columns=["review"])) == pipe(["the cat", "a dog"])
    results = list(run_file(pipe, path, ["review"], keep=["id"]))
    assert [str(kept["id"]) for _, kept in results] == ["7", "8"]
    assert [result for result, _ in results] == pipe(["the cat", "a dog"])


def test_columns_are_those_of_a_file(pipe: minitx.Pipeline) -> None:
    with pytest.raises(ValueError, match=r"columns=\['text'\] must be None; it names columns of a file"):
        pipe("the cat", columns=["text"])


def test_lines_without_names(tmp_path: Path) -> None:
    assert list(rows(write(tmp_path, "txt", "one\n\ntwo\n"), keep=["text"])) == [
        (text, {"text": text}, number) for number, text in enumerate(("one", "", "two"), start=1)
    ]
    lines = '"one"\n[{"role": "user", "content": "two"}]\n{"text": "three", "more": 3}\n'
    requests = [row.request for row in rows(write(tmp_path, "jsonl", lines))]
    assert requests == ["one", [{"role": "user", "content": "two"}], {"text": "three"}]


def test_optional_fields_may_be_missing_unless_they_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl", '{"text": "a", "text_pair": "b"}\n{"text": "c", "text_pair": null}\n')
    expected = [{"text": "a", "text_pair": "b"}, {"text": "c"}]
    assert [row.request for row in rows(path)] == expected
    assert [row.request for row in rows(path, PAIR)] == expected
    path = write(tmp_path, "jsonl", '{"text": "a"}\n')
    assert [row.request for row in rows(path)] == [{"text": "a"}]
    with pytest.raises(ValueError, match="line 1 has no 'text_pair', but 'text'"):
        list(rows(path, PAIR))


def test_a_long_cell(tmp_path: Path) -> None:
    limit, long = csv.field_size_limit(), "a" * 200_000
    assert [row.request for row in rows(write(tmp_path, "csv", f'text\n{long}\n"{long}"\n'))] == [
        {"text": long},
        {"text": long},
    ]
    assert csv.field_size_limit() == limit  # it is that of the whole program
    with pytest.raises(ValueError, match=r"in\.csv:2: not readable .*and quotes in a cell doubled\?"):
        list(rows(write(tmp_path, "csv", 'text\n"a"b\n')))


BAD = {
    "no column": (
        "csv",
        "id,review\n1,a\n",
        None,
        r"columns=None .*header has no 'text', but 'id'",
    ),
    "no stated column": ("csv", "text,b\n1,a\n", ("text", "c"), r"columns=\['text', 'c'\] .*no 'c', but"),
    "no key": ("jsonl", '{"text": "a"}\n{"txt": "b"}\n', None, r"in\.jsonl; line 2 has no 'text', but 'txt'"),
    "an empty object": ("jsonl", "{}\n", None, r"line 1 has no 'text'\."),
    "a number": ("jsonl", '"a"\n7\n', None, r"in\.jsonl:2: neither an object nor a string"),
    "columns of text": ("txt", "a\n", ("review",), "line 1 has no 'review', but 'text'"),
    "three columns": (
        "csv",
        "a,b,c\n1,2,3\n",
        ("a", "b", "c"),
        "a name for each of 'text', 'text_pair'",
    ),
    "no columns": ("csv", "text\na\n", (), r"columns=\[\] must be a name"),
    "a short row": (
        "csv",
        "id,text\n1,a\n2\n",
        None,
        r"in\.csv:3: 1 cell, and .*; an empty cell",
    ),
    "a long row": ("csv", "text,id\na,1\nb, c,2\n", None, r"in\.csv:3: 3 cells.*in quotes"),
    "empty csv": ("csv", "", None, r"in\.csv is empty"),
    "header alone": ("csv", "text\n", None, r"in\.csv holds no requests"),
    "empty jsonl": ("jsonl", "\n", None, r"in\.jsonl holds no requests"),
    "empty text": ("txt", "", None, r"in\.txt is empty"),
    "json": ("json", "[]", None, r"must be a \.csv, \.tsv, \.jsonl or text file"),
    "twice": ("csv", "text,text\na,b\n", None, "has the column 'text' more than once"),
}


@pytest.mark.parametrize(("kind", "content", "columns", "message"), BAD.values(), ids=BAD)
def test_errors_name_the_line(tmp_path: Path, kind: str, content: str, columns: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(rows(write(tmp_path, kind, content), columns))


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("jsonl", '"a"\n\n{"text": 7}\n', r"in\.jsonl:3: text=7 must be a string"),
        ("jsonl", '{"text": "a", "text_pair": 7}\n', r"in\.jsonl:1: text_pair=7 must be a string"),
    ],
)
def test_errors_about_a_request_name_its_line(
    pipe: minitx.Pipeline, tmp_path: Path, kind: str, content: str, message: str
) -> None:
    path = write(tmp_path, kind, content)
    for run in (pipe, lambda path: run_file(pipe, path)):
        with pytest.raises(TypeError, match=message):
            list(run(path))


def test_results_before_a_bad_line(pipe: minitx.Pipeline, tmp_path: Path) -> None:
    results = pipe(write(tmp_path, "jsonl", '"the cat"\n"a dog"\n7\n'))
    assert [next(results), next(results)] == pipe(["the cat", "a dog"])
    with pytest.raises(ValueError, match=r"in\.jsonl:3: neither"):
        next(results)


def test_a_field_of_all_requests_is_not_that_of_a_line(pipe: minitx.Pipeline, tmp_path: Path) -> None:
    path = write(tmp_path, "csv", "text,text_pair\nthe cat,a dog\n")
    with pytest.raises(ValueError, match=r"text_pair='a' must be left out; .*in\.csv:2 states it too"):
        list(run_file(pipe, path, fields={"text_pair": "a"}))
    results = run_file(pipe, path, ["text"], fields={"text_pair": "a"})
    assert [result for result, _ in results] == [pipe({"text": "the cat", "text_pair": "a"})]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are those of Unix")
def test_a_pipe_has_a_text_per_line(pipe: minitx.Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=("the cat\na dog\n",), daemon=True)
    writer.start()
    assert list(pipe(path)) == pipe(["the cat", "a dog"])
    writer.join()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        rows(tmp_path)


def test_what_columns_and_kept_columns_must_be(tmp_path: Path) -> None:
    path = write(tmp_path, "csv", "text\na\n")
    with pytest.raises(TypeError, match="columns='text' must be a list of names of columns"):
        rows(path, "text")
    with pytest.raises(ValueError, match=r"keep=\['id'\] must be names of columns.*no 'id', but 'text'"):
        list(rows(path, keep=["id"]))


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_results_that_are_not_finite_are_not_written(tmp_path: Path, name: str) -> None:
    results = [({"score": 0.5}, {}), ({"score": float("nan")}, {})]
    with pytest.raises(ValueError, match=r"result 1 \(from 0\) has a number that is not finite"):
        write_results(tmp_path / name, results)
    assert not [*tmp_path.iterdir()]
