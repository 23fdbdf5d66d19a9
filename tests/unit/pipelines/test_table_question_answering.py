"""`TableQuestionAnswering`: requests, long tables, conversations, drawings and the command line."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest

import minitx
from minitx.cli import app as cli
from minitx.pipelines.tables.cell_selection import CellAnswering
from minitx.pipelines.text.table_question_answering import TableQuestionAnswering
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.parity.pipeline_fixtures import FOLDER

TASK = "table-question-answering"
PEOPLE = {"name": ["Ann", "Bob", "Clara"], "age": ["34", "27", "45"]}
FORMS = [
    PEOPLE,
    {"name": ["Ann", "Bob", "Clara"], "age": [34, 27, 45]},
    [{"name": "Ann", "age": 34}, {"name": "Bob", "age": 27}, {"name": "Clara", "age": 45}],
    [["name", "age"], ["Ann", "34"], ["Bob", "27"], ["Clara", "45"]],
    pandas.DataFrame({"name": ["Ann", "Bob", "Clara"], "age": [34, 27, 45]}),
]
QUERIES = ["How old is Ann?", "Who?", "the greatest age", "name of 27", "How many are there?"]


@pytest.fixture(scope="module", params=["tapas-wtq", "tapas-sqa", "tapex"])
def pipe(request: pytest.FixtureRequest) -> Iterator[minitx.Pipeline]:
    with minitx.pipeline(TASK, FOLDER / request.param) as made:
        yield made


@pytest.fixture(scope="module")
def cells() -> Any:
    return minitx.pipeline(TASK, FOLDER / "tapas-wtq")


@pytest.fixture(scope="module")
def text() -> Any:
    return minitx.pipeline(TASK, FOLDER / "tapex")


def test_the_head_chooses_the_class(cells: Any, text: Any) -> None:
    assert type(cells.task) is CellAnswering
    assert type(text.task) is TableQuestionAnswering
    assert minitx.pipeline(model=FOLDER / "tapas-wtq").task.spec.name == TASK


def test_every_form_of_a_table(pipe: Any, tmp_path: Path) -> None:
    rows = tmp_path / "people.csv"
    rows.write_text("name,age\nAnn,34\nBob,27\nClara,45\n")
    columns = tmp_path / "people.json"
    columns.write_text(json.dumps(FORMS[1]))
    expected = pipe(PEOPLE, QUERIES)
    for table in (*FORMS, rows, columns):
        assert pipe(table, QUERIES) == expected
        assert pipe(table=table, query=QUERIES) == expected


def test_nesting(pipe: Any) -> None:
    one, several = pipe(PEOPLE, QUERIES[0]), pipe(PEOPLE, QUERIES)
    assert isinstance(one, dict)
    assert several[0] == one
    assert pipe(PEOPLE, QUERIES[:1]) == one  # as in transformers
    request = {"table": PEOPLE, "query": QUERIES[0]}
    assert pipe(request) == pipe([request]) == pipe(table=[request]) == pipe(QUERIES[0], table=PEOPLE) == one
    assert pipe([request, {"table": PEOPLE, "query": QUERIES}]) == [one, several]
    assert list(pipe(iter([request, request]))) == [one, one]


def test_results_do_not_depend_on_the_others(pipe: Any) -> None:
    tables = [PEOPLE, {"a": ["1"] * 9}, {"x": ["y"], "z": [""]}]
    requests = [{"table": table, "query": query} for table in tables for query in (*QUERIES, QUERIES)]
    expected = [pipe(request) for request in requests]
    assert pipe(requests) == expected
    order = random.Random(0).sample(range(len(requests)), len(requests))
    assert pipe([requests[index] for index in order]) == [expected[index] for index in order]


@pytest.mark.parametrize("size", [1, 2, None])
def test_conversations_share_batches(size: int | None) -> None:
    pipe = minitx.pipeline(TASK, FOLDER / "tapas-wtq", batch_size=size, sequential=True)
    requests = [{"table": PEOPLE, "query": QUERIES[first:]} for first in range(4)]
    calls: list[int] = []
    model = pipe.task.model
    pipe.task.model.register_forward_hook(lambda *_: calls.append(1))
    together = pipe(requests)
    count = len(calls)
    assert together == [pipe(request) for request in requests]
    if size is None:
        assert count == 5  # one batch for each turn
    assert model is pipe.task.model


def test_a_conversation_marks_the_cells_of_the_answer_before(cells: Any) -> None:
    answers = cells(PEOPLE, QUERIES, sequential=True)
    inputs = answers.details.inputs
    marked = [{(t[2] - 1, t[1] - 1) for t in item.ids["token_type_ids"] if t[3]} for item in inputs]
    assert marked == [set(), *({tuple(cell) for cell in answer.coordinates} for answer in answers[:-1])]
    assert any(marked)
    alone = [cells(PEOPLE, query) for query in QUERIES]
    assert cells(PEOPLE, QUERIES) == alone
    assert answers[0] == alone[0]


def test_threads_do_not_disturb_one_another(cells: Any) -> None:
    expected = [cells(PEOPLE, QUERIES[first:], sequential=True) for first in range(4)]
    results: list[Any] = [None] * 4

    def run(first: int) -> None:
        results[first] = cells(PEOPLE, QUERIES[first:], sequential=True)

    threads = [threading.Thread(target=run, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == expected


BAD: list[tuple[Any, Any, type[Exception], str]] = [
    (None, "a", ArgumentTypeError, r"inputs\['table'\]"),
    ("text", "a", ArgumentTypeError, "table='text' must be a dict of columns"),
    ({}, "a", ArgumentValueError, "at least one row and one column"),
    ({"a": []}, "a", ArgumentValueError, "at least one row and one column"),
    ([], "a", ArgumentValueError, "at least one row and one column"),
    ({"a": ["1"], "b": ["1", "2"]}, "a", ArgumentValueError, r"table\['a'\]=\['1'\] must be of 2 cells"),
    ([["a", "b"], ["1"]], "a", ArgumentValueError, "row 0=.* must be of 2 cells"),
    ([{"a": 1}, {"b": 1}], "a", ArgumentValueError, "a dict with the keys"),
    ({"a": [["1"]]}, "a", ArgumentTypeError, "a string or a number"),
    (Path("people.txt"), "a", ArgumentValueError, "a .csv, .tsv or .json file"),
    (Path("people.csv"), "a", FileNotFoundError, "people.csv: there is no such file"),
    (PEOPLE, None, ArgumentTypeError, r"inputs\['query'\]"),
    (PEOPLE, "", ArgumentValueError, "a question that is not empty"),
    (PEOPLE, [], ArgumentValueError, "a question that is not empty"),
    (PEOPLE, 3, ArgumentTypeError, "a question or a list of questions"),
    (PEOPLE, ["a", 3], ArgumentTypeError, "a question or a list of questions"),
]


@pytest.mark.parametrize(("table", "query", "kind", "message"), BAD)
def test_bad_requests(
    table: Any, query: Any, kind: type[Exception], message: str, cells: Any, text: Any
) -> None:
    for pipe in (cells, text):
        with pytest.raises(kind, match=message):
            pipe(table, query)


def test_messages_about_tables(cells: Any, text: Any, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name,age\nAnn,34\n\nBob\n")
    large = {"name": [str(row) for row in range(300)]}
    for pipe in (cells, text):
        with pytest.raises(ValueError, match=r"a\.csv:4: 1 cell, and the header has 2"):
            pipe(tmp_path / "a.csv", "Who?")
        for options in ({"overflow": "error"}, {"truncation": False}):
            ((name, value),) = options.items()
            with pytest.raises(ValueError, match=f"^table=.*; without {name}={value!r} it is shortened"):
                pipe(large, "Who?", **options)


def test_bad_questions_are_named(cells: Any, text: Any) -> None:
    for pipe in (cells, text):
        for query, error, place in (("\ud800", ValueError, ""), (["a", "\ud800"], ValueError, r"\[1\]")):
            with pytest.raises(error, match=rf"^query{place}='\\ud800' must be valid Unicode"):
                pipe(PEOPLE, query)
        with pytest.raises(TypeError, match=r"^inputs\[1\]\['query'\]=3 must be a question"):
            pipe([{"table": PEOPLE, "query": "a"}, {"table": PEOPLE, "query": 3}])


def test_other_bad_calls(cells: Any, text: Any, tmp_path: Path) -> None:
    for call in (lambda: cells(), lambda: cells(PEOPLE, "a", "b"), lambda: cells(table=PEOPLE)):
        with pytest.raises(ArgumentTypeError):
            call()
    with pytest.raises(ArgumentValueError, match="'name'"):
        cells(PEOPLE)
    for options in ({"overflow": "window"}, {"truncation": "longest_first"}, {"num_beams": 2}):
        with pytest.raises(ArgumentValueError, match=next(iter(options))):
            cells(PEOPLE, "a", **options)
    for options in ({"sequential": True}, {"return_tensors": True}, {"overflow": "window"}):
        with pytest.raises(ArgumentValueError, match=next(iter(options))):
            text(PEOPLE, "a", **options)
    with pytest.raises(ArgumentValueError, match="one question for a stream"):
        text.stream({"table": PEOPLE, "query": ["a", "b"]})
    with pytest.raises(ArgumentValueError, match=r"tokenizer=.* must be that of the model"):
        minitx.pipeline(TASK, FOLDER / "tapas-wtq", FOLDER / "tapex")
    for name, content in (("a.json", "{"), ("a.csv", "\ud800"), ("b.csv", 'name\n"Ann')):
        (tmp_path / name).write_bytes(content.encode("utf-8", "surrogatepass"))
        with pytest.raises(ValueError, match=name):
            cells(tmp_path / name, "a")


def test_a_question_that_leaves_no_room_for_rows_is_an_error() -> None:
    pipe = minitx.pipeline(TASK, FOLDER / "tapas-wtq")
    with pytest.raises(ArgumentValueError, match=r"query=.*leaves none for a row"):
        pipe(PEOPLE, "Who? " * 100)


LONG = {"year": [str(number) for number in range(3000)], "name": ["Ann", "Bob", "Clara"] * 1000}


@pytest.mark.parametrize("model", ["tapas-wtq", "tapas-sqa", "tapex"])
def test_a_long_table_is_shortened_with_one_note(model: str) -> None:
    pipe = minitx.pipeline(TASK, FOLDER / model)
    with pytest.warns(UserWarning, match="1 of 2 inputs .* rows were dropped") as notes:
        results = pipe([{"table": LONG, "query": "Who?"}, {"table": PEOPLE, "query": "Who?"}])
    assert len(notes) == 1
    assert [result.details.inputs[0].truncated for result in results] == [True, False]
    assert results[1] == pipe(PEOPLE, "Who?")
    for options in ({"truncation": False}, {"truncation": "do_not_truncate"}, {"overflow": "error"}):
        with pytest.raises(ArgumentValueError, match="table"):
            pipe(LONG, "Who?", **options)
        assert pipe(PEOPLE, "Who?", **options) == results[1]
    with pytest.raises(ArgumentValueError, match="table"):
        pipe(PEOPLE, "Who? " * 300, truncation=False)


def test_text_of_a_long_table_can_be_cut_off(text: Any) -> None:
    with pytest.warns(UserWarning, match="truncated"):
        rows, cut = text(LONG, "Who?"), text(LONG, "Who?", truncation=True)
    assert len(rows.details.inputs[0]) <= len(cut.details.inputs[0]) == 200


def test_too_many_columns(cells: Any) -> None:
    with pytest.raises(ArgumentValueError, match="columns"):
        cells({str(number): ["1"] for number in range(300)}, "Who?")


def test_show(cells: Any, text: Any) -> None:
    answer = cells(PEOPLE, QUERIES, sequential=True)
    drawing = answer.show()
    assert {tuple(cell) for part in answer for cell in part.coordinates} == set(drawing.chosen)
    assert "name" in drawing.text()
    assert "Clara" in text(FORMS[2], "Who?").show().text()
    assert cells(PEOPLE, "Who?").details.request["table"].columns == ("name", "age")


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "people.csv"
    table.write_text("name,age\nAnn,34\nBob,27\n")
    place = [TASK, str(FOLDER / "tapas-wtq")]
    rows = [["name", "age"], ["Ann", "34"], ["Bob", "27"]]
    pipe = minitx.pipeline(TASK, FOLDER / "tapas-wtq")

    def run(*arguments: str) -> tuple[int, str, str]:
        return cli.main(["run", *place, *arguments]), *capsys.readouterr()

    code, out, _ = run("How old is Ann?", "--table", str(table))
    assert code == 0
    assert out.rstrip() == pipe(rows, "How old is Ann?").show().text().rstrip()
    code, out, _ = run("How old is Ann?", "Who?", "--table", str(table), "--sequential", "--json")
    expected = pipe(rows, ["How old is Ann?", "Who?"], sequential=True)
    assert json.loads(out) == json.loads(json.dumps(expected))
    for arguments, message in (
        (["--table", "nowhere.csv"], "nowhere.csv: there is no such file"),
        ([], "table"),
        (["--table", str(table), "--num-beams", "2"], "--num-beams"),
    ):
        code, _, err = run("Who?", *arguments)
        assert code != 0
        assert message in err
