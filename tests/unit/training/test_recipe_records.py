"""The records of a recipe: fields of other types, or in two forms, are refused before the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minitx.training import run_recipe
from tests.unit.training.test_recipe import BERT, labelled, prepared, write

ANSWERS = {"name": "answer-spans", "stride": 4}
WORDS = {"name": "token-labels"}
NUMBER = {"name": "sequence-labels", "num_labels": 1}
NAME = {"name": "sequence-labels"}
DPO = {"name": "dpo"}
INSTRUCT = {"name": "instruct"}
IN_1990 = {"question": "when", "context": "in 1990 it", "answer": "1990"}
SQUAD = {"question": "when", "context": "in 1990 it"}
MESSAGES = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def of_records(folder: Path, objective: dict[str, Any], *rows: Any) -> Path:
    """A recipe on JSON lines."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tables: dict[str, Any] = {"objective": objective, "data": {"files": "rows.jsonl"}}
    if objective["name"] not in ("dpo", "instruct", "causal-lm"):
        tables |= {"model": {"config": BERT}, "tokenizer": {"style": "bert", "vocab_size": 120}}
    return write(folder, **tables)


@pytest.mark.parametrize(
    ("objective", "row", "message"),
    [
        (ANSWERS, IN_1990 | {"answer": 1990}, "answer=1990 must be a string"),
        (ANSWERS, IN_1990 | {"start": [3]}, r"start=\[3\] must be an integer"),
        (ANSWERS, IN_1990 | {"start": 3.9}, "start=3.9 must be an integer"),
        (ANSWERS, IN_1990 | {"start": float("inf")}, "start=inf must be an integer"),
        (ANSWERS, IN_1990 | {"start": "9" * 5000}, "start='999.* must be the number of a character"),
        (ANSWERS, IN_1990 | {"context": None}, "context=None must be a string"),
        (ANSWERS, IN_1990 | {"answers": {"text": []}}, "must be one of them, not both"),
        (ANSWERS, SQUAD | {"answers": {"text": ["1990"], "answer_start": []}}, "answers=.* for each answer"),
        (ANSWERS, SQUAD | {"answers": {"text": ["1990"], "answer_start": ["x"]}}, "answers=.* an integer"),
        (ANSWERS, SQUAD | {"answers": {"text": 5, "answer_start": [3]}}, "answers=.* with a string"),
        (ANSWERS, SQUAD | {"answers": "1990"}, "answers='1990' must be"),
        (
            ANSWERS,
            SQUAD | {"answers": {"text": ["it"], "answer_start": [-2]}},
            "='it' must be a text",
        ),
        (
            ANSWERS,
            SQUAD | {"answers": {"text": ["99"], "answer_start": [-5]}},
            "='99' must be a text",
        ),
        (WORDS, {"words": None, "label": ["O"]}, "words=None must be a list of words"),
        (
            WORDS,
            {"words": ["a"], "label": ["O"], "labels": ["X"]},
            r"fields=\['label', 'labels'\] must be one",
        ),
        (NUMBER, {"text": "a", "label": 10**400}, "label=1000.* must be a number"),
        (NUMBER, {"text": "a", "label": True}, "label=True must be a number"),
        (NAME, {"text": 5, "label": "a"}, "text=5 must be a string"),
        (NAME, {"text": "a", "input_ids": [1], "label": "a"}, r"fields=\['text', 'input_ids'\] must be one"),
        (NAME, {"input_ids": ["x"], "label": "a"}, "input_ids=.* must be a list of ids"),
        (NAME, {"text": "a", "pair": 3, "label": "a"}, "pair=3 must be a string"),
        (NAME, {"label": "a"}, "a record with 'text' or 'input_ids'"),
        (
            NAME,
            {"review": "a", "verdict": "b"},
            'data.columns = { text = "review", label = "verdict" } names the columns',
        ),
        (INSTRUCT, {"q": "a", "a": "b"}, 'data.columns = { prompt = "q", response = "a" } names'),
        (
            DPO,
            {"prompt": None, "chosen": MESSAGES, "rejected": MESSAGES},
            "prompt=None must be a list of mess",
        ),
        (DPO, {"chosen": None, "rejected": MESSAGES}, "chosen=None must be a string or a list of messages"),
        (DPO, {"prompt": "a", "chosen": MESSAGES, "rejected": MESSAGES}, "prompt='a' must be a list of mess"),
        (DPO, {"chosen": "a", "rejected": "b"}, "prompt=None must be a string"),
        (INSTRUCT, {"prompt": "a", "response": "b", "messages": MESSAGES}, "must be one of them, not both"),
        (INSTRUCT, {"prompt": "a"}, "a record with 'messages' or 'response'"),
    ],
)
def test_fields_that_do_not_fit(tmp_path: Path, objective: dict[str, Any], row: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"rows.jsonl:1: {message}|rows.jsonl:1: .*{message}"):
        prepared(of_records(tmp_path, objective, row))


def test_one_label_of_tokens(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be at least two labels; with one label there is nothing"):
        prepared(of_records(tmp_path, WORDS, {"words": ["a", "b"], "label": ["O", "O"]}))


def test_later_records_are_checked_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"rows.jsonl:2: text=5 must be a string"):
        prepared(of_records(tmp_path, {"name": "causal-lm"}, {"text": "a"}, {"text": 5}))


def test_other_columns_and_empty_pairs_are_no_obstacle(tmp_path: Path) -> None:
    rows = [{"text": "a", "pair": None, "label": "x", "title": 3}, {"text": "b", "label": "y"}]
    assert len(prepared(of_records(tmp_path, NAME, *rows)).dataset) == 2
    rows = [SQUAD | {"answers": {"text": [], "answer_start": []}}]
    assert len(prepared(of_records(tmp_path, ANSWERS, *rows)).dataset) == 1


def test_a_filter_by_date(tmp_path: Path) -> None:
    rows = "text,label,day\na,x,2024-01-01\nb,y,2024-01-02\nc,y,2024-01-01\n"
    path = labelled(tmp_path, rows, objective=NAME)
    run = prepared(path, "data.where={day=2024-01-01}")
    assert [row["text"] for row in run.dataset] == ["a", "c"]  # type: ignore[attr-defined]
    assert "day = 2024-01-01" in run.recipe.text
    rows = "text,label,time\na,x,2024-01-01T10:00:00\nb,y,2024-01-01 10:00:00\nc,y,2024-01-02T10:00:00\n"
    run = prepared(labelled(tmp_path, rows, objective=NAME), "data.where={time=2024-01-01T10:00:00}")
    assert len(run.dataset) == 2


def test_a_single_record_cannot_be_split(tmp_path: Path) -> None:
    path = labelled(tmp_path, "text,label\na,x\n", objective=NAME)
    with pytest.raises(ValueError, match=r"len\(data\)=1 must be at least 2"):
        prepared(path, "data.held_out=0.5")


def test_files_that_are_no_data(tmp_path: Path) -> None:
    path = write(tmp_path)
    with pytest.raises(ValueError, match=r"data.files='tiny.toml' must be files of data, not"):
        prepared(path, f"data.files={tmp_path}/*")
    (tmp_path / "list.json").write_text('[{"text": "a"}]')
    with pytest.raises(
        ValueError, match=r"data.files='list.json' must be text or .jsonl.*one record per line"
    ):
        prepared(path, f"data.files={tmp_path}/list.json")


def test_a_table_with_a_suffix_in_capitals_is_no_text(tmp_path: Path) -> None:
    path = labelled(tmp_path, "text,label\na,x\nb,y\n", objective=NAME)
    (tmp_path / "rows.csv").rename(tmp_path / "ROWS.CSV")
    assert len(prepared(path, f"data.files={tmp_path}/ROWS.CSV").dataset) == 2


def test_a_step_without_targets_names_max_length(tmp_path: Path) -> None:
    row = {"prompt": "a very long prompt, longer than this", "response": "yes"}
    path = of_records(tmp_path, INSTRUCT | {"max_length": 2}, row)
    with pytest.raises(ValueError, match="all are -100; max_length=2 may have cut off the rest"):
        run_recipe(path, progress=False)
