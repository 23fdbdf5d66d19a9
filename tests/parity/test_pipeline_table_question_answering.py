"""Table question answering against the pipelines of transformers 4.57.6, by its fixtures, and 5."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pandas
import pytest
import transformers

import minitx
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.parity.pipeline_fixtures import FOLDER, Case, cases
from tests.parity.test_table_answers import QUERIES, TABLE, VARIANTS, made

TASK = "table-question-answering"
# Arguments that have no effect in transformers: of its runner, and of generation, which it does not pass on
IGNORED = ("padding", "batch_size", "max_new_tokens", "num_beams")


@cache
def pipe(folder: Path, options: tuple[tuple[str, Any], ...] = ()) -> Any:
    return minitx.pipeline(TASK, folder, dtype="float32", **dict(options))


def answer(case: Case, **more: Any) -> Any:
    """The result of minitx for a case, with further options of its pipeline."""
    options, arguments = (
        {name: value for name, value in values.items() if name not in IGNORED}
        for values in (case.pipeline_arguments, case.call_arguments)
    )
    return pipe(case.folder, tuple((options | more).items()))(*case.inputs, **arguments)


@pytest.mark.filterwarnings("ignore:.*were too long")
@pytest.mark.parametrize("model", ["tapas-wtq", "tapas-sqa", "tapex"])
def test_answers(model: str) -> None:
    rows = [row.values[0] for row in cases(TASK, model)]
    assert len(rows) > 60
    for case in rows:
        case.check(answer(case))


# transformers fails, and minitx answers: drop_rows_to_fit of TAPEX, a table that is too long, requests in
# batches, cells that are numbers or None, and a conversation after rows were dropped.
def answers_more(case: Case) -> bool:
    assert case.error is not None
    numbers = case.inputs and case.inputs[0] in (
        {"a": [1, 2.5]},
        {"a": [None, "2"]},
        [["a", "b"], ["1", "2"]],
    )
    return bool(
        numbers
        or case.error["class"] in ("KeyError", "IndexError")
        or "batch_size" in case.call_arguments
        or case.call_arguments.get("truncation") == "drop_rows_to_fit"
    )


@pytest.mark.filterwarnings("ignore:.*were too long")
def test_errors() -> None:
    counts = {True: 0, False: 0}
    for row in cases(TASK, errors=True):
        (case,) = row.values
        whole = case.call_arguments.get("truncation") == "do_not_truncate"  # the table is too long
        more = answers_more(case) and not whole
        counts[more] += 1
        if more:
            result = answer(case, **({"max_new_tokens": 3} if case.model == "tapex" else {}))
            for prediction in result if isinstance(result, list) else [result]:
                parts = prediction if isinstance(prediction, list) else [prediction]
                assert all(isinstance(part["answer"], str) for part in parts)
        elif case.inputs == [[]]:
            assert answer(case) == []
        else:
            with pytest.raises((ArgumentTypeError, ArgumentValueError)):
                answer(case)
    assert counts[True] > 25
    assert counts[False] > 15


@pytest.mark.parametrize("more", VARIANTS)
def test_results_equal_transformers_5(more: dict[str, Any], tmp_path: Path) -> None:
    theirs, slow, model, tokenizer = made(tmp_path, **more)
    expected = transformers.pipeline(TASK, model=theirs, tokenizer=slow, device="cpu")
    actual = minitx.pipeline(TASK, model, tokenizer)
    frame = pandas.DataFrame(TABLE)
    unusual = {
        "e\u0301 \u5317\u4eac": ["\u05e9\u05dc\u05d5\u05dd", "\U0001f355", ""],
        "n": ["1", "x" * 30, "3 May 2001"],
    }
    long = {"model": [f"text {number}" for number in range(150)]}
    for sequential in (False, True):
        for table, query in (
            (frame, list(QUERIES)),
            (TABLE, QUERIES[0]),
            (TABLE, QUERIES[:1]),
            (unusual, ["\U0001f355 ?", "e\u0301", "\u05e9"]),
            (long, ["text 7"]),
        ):
            theirs_answer = expected(table=pandas.DataFrame(table), query=query, sequential=sequential)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert actual(table, query, sequential=sequential) == theirs_answer
    requests = [{"table": TABLE, "query": query} for query in (*QUERIES, list(QUERIES))]
    theirs_answers = expected(
        [{"table": pandas.DataFrame(r["table"]), "query": r["query"]} for r in requests]
    )
    for size in (1, 8):
        assert minitx.pipeline(TASK, model, tokenizer, batch_size=size)(requests) == theirs_answers


def test_options_of_generation_have_an_effect() -> None:
    ask = pipe(FOLDER / "tapex")
    table = {"name": ["Ann"], "age": ["34"]}
    whole, short = ask(table, "who ?"), ask(table, "who ?", max_new_tokens=2)
    assert len(short["answer"]) < len(whole["answer"])
    assert len(ask(table, "who ?", num_beams=3, num_return_sequences=3)) == 3
    assert (
        "".join(ask.stream({"table": table, "query": "who ?"}, num_beams=1))
        == ask(table, "who ?", num_beams=1).answer
    )
