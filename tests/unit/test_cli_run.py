"""`minitx run` and `minitx pipelines`."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import minitx
from minitx.cli import app as cli
from minitx.cli.options import spelled
from minitx.pipelines.outputs import plain, write_results
from minitx.pipelines.registry import NAMES, SPECS, find_task
from tests.unit.pipelines.folders import bert_folder
from tests.unit.pipelines.test_table_question_answering import FOLDER as FIXTURES

Run = Callable[..., tuple[int, str, str]]
TEXTS = ["the cat sat", "a dog ran to the park", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = {"id2label": {"0": "bad", "1": "good"}, "label2id": {"bad": 0, "good": 1}}
    return bert_folder(tmp_path_factory.mktemp("run") / "model", "sequence-classification", **names)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "80")

    def call(*argv: object) -> tuple[int, str, str]:
        code = cli.main([str(arg) for arg in argv])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_help_lists_the_tasks(run: Run) -> None:
    code, out, _ = run("run", "--help")
    assert code == 0
    for spec in SPECS:
        assert f"  {spec.name:<26}{spec.summary}\n" in out
        assert all(f"{alias} is {spec.name}" in out for alias in spec.aliases)
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("name", NAMES)
def test_help_of_a_task_teaches_its_options(run: Run, name: str) -> None:
    code, out, _ = run("run", name, "--help")
    assert code == 0
    assert f"minitx run {name} ./my-model" in out
    task = find_task(name)[0].task_class()
    for field in task.fields[1:]:
        example = f"--{field.replace('_', '-')} "
        assert field in task.optional or example in out.partition("examples:")[2]
    assert "--overflow" in out
    assert "None" not in out
    assert max(map(len, out.splitlines())) <= 80


def test_both_names_of_an_overlap_have_one_default(run: Run) -> None:
    out = " ".join(run("run", "question-answering", "--help")[1].split())
    assert "--stride N as --doc-stride" in out
    assert "--max-length N as --max-seq-len" in out
    assert "quarter" not in out


def test_results_in_the_terminal(run: Run, folder: Path) -> None:
    code, out, _ = run("run", "sentiment-analysis", folder, *TEXTS[:2], "--top-k", "none")
    assert code == 0
    first, second = out.strip().split("\n\n")
    assert first.splitlines()[0] == TEXTS[0]
    assert second.splitlines()[0] == TEXTS[1]
    assert len(first.splitlines()) == 3


def test_results_as_json_are_those_of_the_library(run: Run, folder: Path) -> None:
    pipe = minitx.pipeline(model=folder)
    code, out, _ = run("run", "text-classification", folder, *TEXTS, "--json")
    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == pipe(TEXTS)
    _, out, _ = run("run", "text-classification", folder, TEXTS[0], "--text-pair", TEXTS[1], "--json")
    assert json.loads(out) == pipe({"text": TEXTS[0], "text_pair": TEXTS[1]})
    pairs = ("--text-pair", TEXTS[1], "--text-pair", TEXTS[0])
    _, out, _ = run("run", "text-classification", folder, TEXTS[0], *pairs, "--json")
    assert [json.loads(line) for line in out.splitlines()] == pipe(text=TEXTS[0], text_pair=TEXTS[1::-1])


def test_one_text_has_one_result(run: Run, tmp_path: Path) -> None:
    """In Python, a list of one text has the result of the text, as in transformers."""
    folder = bert_folder(tmp_path / "model", "masked-lm")
    code, out, err = run("run", "fill-mask", folder, "the [MASK] sat", "--json")
    assert code == 0, err
    assert [json.loads(line) for line in out.splitlines()] == [
        minitx.pipeline(model=folder)("the [MASK] sat")
    ]
    code, out, err = run("run", "fill-mask", folder, "the [MASK] sat", "--top-k", 2)
    assert code == 0, err
    assert len(out.splitlines()) == 3


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv"])
def test_files(run: Run, folder: Path, tmp_path: Path, kind: str) -> None:
    source = tmp_path / f"in.{kind}"
    if kind == "csv":
        source.write_text("id,words\n" + "".join(f"{i},{text}\n" for i, text in enumerate(TEXTS)))
    else:
        lines = TEXTS if kind == "txt" else [json.dumps({"words": text}) for text in TEXTS]
        source.write_text("".join(f"{line}\n" for line in lines))
    columns = [] if kind == "txt" else ["--column", "words"]
    call = ("run", "text-classification", folder, "--input", source, *columns, "--top-k", 2)
    wanted = minitx.pipeline(model=folder)(TEXTS, top_k=2)
    assert run(*call, "--output", tmp_path / "out.jsonl")[0] == 0
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [[x["label"] for x in row] for row in written] == [[x["label"] for x in row] for row in wanted]
    (tmp_path / "folder.csv").mkdir()
    error = run(*call, "--output", tmp_path / "folder.csv")[2]
    assert "must be the name of a file; folder.csv is a folder" in error
    assert run(*call, "--output", tmp_path / "new" / "out.csv")[0] == 0
    assert run(*call, "--output", tmp_path / "out.csv")[0] == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["input"] for row in rows] == ["0", "0", "1", "1", "2", "2"]
    assert [row["label"] for row in rows] == [x["label"] for row in wanted for x in row]


def test_nested_answers_are_json_in_the_cells_of_csv(tmp_path: Path) -> None:
    results = [{"labels": ["a", "\u6771"], "input": 7}, [{"score": 0.5}, {"score": 1}], [[1.5, 2]]]
    assert write_results(tmp_path / "out.csv", ((result, {}) for result in results)) == 3
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"input": "0", "labels": '["a", "\u6771"]', "input_": "7", "score": "", "result": ""}
    assert [row["input"] for row in rows] == ["0", "1", "1", "2"]
    assert json.loads(rows[3]["result"]) == [1.5, 2]


def test_csv_has_a_row_per_answer(tmp_path: Path) -> None:
    """Several lists of answers have a number each, and an input without answers has a row too."""
    masks = [[{"token_str": "a"}, {"token_str": "b"}], [{"token_str": "c"}]]
    labels = {"sequence": "x", "labels": ["good", "bad"], "scores": [0.75, 0.25]}

    def written(results: list[object]) -> list[dict[str, str]]:
        write_results(tmp_path / "out.csv", ((result, {"id": index}) for index, result in enumerate(results)))
        with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    rows = [(row["input"], row["part"], row["token_str"]) for row in written([masks])]
    assert rows == [("0", "0", "a"), ("0", "0", "b"), ("0", "1", "c")]
    rows = [(row["sequence"], row["label"], row["score"]) for row in written([labels])]
    assert rows == [("x", "good", "0.75"), ("x", "bad", "0.25")]
    assert written([[]]) == [{"input": "0", "id": "0"}]
    assert written([[], {"label": "a"}])[0] == {"input": "0", "id": "0", "label": ""}


def test_an_output_never_replaces_an_input(run: Run, folder: Path, tmp_path: Path) -> None:
    source, link, page = tmp_path / "in.csv", tmp_path / "out.csv", tmp_path / "in.html"
    source.write_text("text\nthe cat\n")
    page.write_text("the cat\n")
    link.symlink_to(source)
    cases = (("output", source, source), ("output", link, source), ("picture", page, page))
    for option, path, other in cases:
        call = ("run", "text-classification", folder, "--input", other, f"--{option}", path)
        code, out, err = run(*call)
        assert (code, out) == (2, "")
        assert f"must be another file; it would replace the input {other}" in err
        assert f"--{option} " in err
    call = ("run", "table-question-answering", folder, "Who?", "--table", source, "--output", source)
    assert "must be another file" in " ".join(run(*call)[2].split())
    assert (source.read_text(), page.read_text()) == ("text\nthe cat\n", "the cat\n")


def test_kept_columns_need_a_place(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,text\n7,the cat\n")
    call = ("run", "text-classification", folder, "--input", tmp_path / "in.csv", "--keep", "id")
    code, out, err = run(*call)
    assert (code, out) == (2, "")
    assert "--keep adds columns to files and to JSON; add --output FILE or --json" in " ".join(err.split())


@pytest.mark.skipif(not os.path.exists("/dev/stdin"), reason="/dev/stdin is that of Unix")
def test_texts_from_stdin_as_a_file(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    with (tmp_path / "in.txt").open() as file:
        before = os.dup(0)
        try:
            for name in ("-", "/dev/stdin"):
                os.lseek(file.fileno(), 0, os.SEEK_SET)
                os.dup2(file.fileno(), 0)
                code, out, _ = run("run", "text-classification", folder, "--input", name, "--json")
                assert (code, len(out.splitlines())) == (0, len(TEXTS))
        finally:
            os.dup2(before, 0)
            os.close(before)


def test_ignored_labels(run: Run, tmp_path: Path) -> None:
    names = {"id2label": {"0": "O", "1": "PER"}, "label2id": {"O": 0, "PER": 1}}
    folder = bert_folder(tmp_path / "model", "token-classification", **names)
    for labels in ([""], ["O"], ["PER"], ["O", "PER"]):
        options = [word for label in labels for word in ("--ignore-labels", label)]
        code, out, _ = run("run", "ner", folder, TEXTS[1], *options, "--json")
        expected = minitx.pipeline("ner", folder)(TEXTS[1], ignore_labels=labels)
        assert (code, json.loads(out)) == (0, expected)


def test_a_field_for_all_rows_of_a_file(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    call = ("run", "text-classification", folder, "--input", tmp_path / "in.txt", "--text-pair", "a dog")
    code, out, _ = run(*call, "--json")
    assert code == 0
    pairs = [{"text": text, "text_pair": "a dog"} for text in TEXTS]
    assert [json.loads(line) for line in out.splitlines()] == minitx.pipeline(model=folder)(pairs)


def test_warnings_name_options(run: Run, folder: Path) -> None:
    _, _, err = run("run", "text-classification", folder, "the cat sat on a mat " * 20)
    assert '--overflow "window" uses all of a text' in " ".join(err.split())


def test_a_picture(run: Run, folder: Path, tmp_path: Path) -> None:
    assert run("run", "text-classification", folder, TEXTS[0], "--picture", tmp_path / "a.html")[0] == 0
    assert TEXTS[0] in (tmp_path / "a.html").read_text()


def test_a_picture_is_announced(run: Run, folder: Path, tmp_path: Path) -> None:
    call = ("run", "text-classification", folder, *TEXTS[:2], "--picture", tmp_path / "a.html")
    _, out, err = run(*call)
    assert f"the first result is drawn in {tmp_path / 'a.html'}" in " ".join(err.split())
    assert "a.html" not in out
    assert run(*call, "--output", tmp_path / "out.csv")[2] == err
    assert run(*call, "--json")[2] == ""
    assert TEXTS[0] in (tmp_path / "a.html").read_text()


def test_a_picture_of_another_kind_is_refused_before_any_work(run: Run, tmp_path: Path) -> None:
    code, _, err = run("run", "ner", tmp_path / "none", "a", "--picture", "a.pdf")
    assert (code, ".html or .png or .svg" in err) == (2, True)


def test_lists(run: Run, folder: Path, tmp_path: Path) -> None:
    """An option of a list is used once for each value; one value is a list too."""
    call = ("run", "zero-shot-classification", folder, "the cat")
    for labels in (("a, b",), ("a", "b")):
        options = [word for label in labels for word in ("--candidate-labels", label)]
        assert set(json.loads(run(*call, *options, "--json")[1])["labels"]) == {"a", "b"}
    encoder = bert_folder(tmp_path / "encoder", "none")
    pipe = minitx.pipeline("sentence-similarity", encoder)
    for sentences in (["a dog"], ["a dog", "the cat"]):
        options = [word for sentence in sentences for word in ("--sentences", sentence)]
        out = run("run", "sentence-similarity", encoder, "the cat", *options, "--json")[1]
        assert json.loads(out) == pipe("the cat", sentences)
    call = ("run", "sentence-similarity", encoder, "a", "--sentences", "a dog", "--sentences", "the cat")
    assert run(*call, "--output", tmp_path / "out.csv")[0] == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = [(row["sentence"], float(row["result"])) for row in csv.DictReader(file)]
    assert rows == list(zip(("a dog", "the cat"), pipe("a", ["a dog", "the cat"]), strict=True))
    out = run("run", "sentence-similarity", encoder, "a", "b", "--sentences", "the cat", "--json")[1]
    assert [json.loads(line) for line in out.splitlines()] == [pipe(x, ["the cat"]) for x in ("a", "b")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hi", "--candidate-labels", "a", "b c"], "--candidate-labels a --candidate-labels 'b c'; a text"),
        (["--input", "x.csv", "--columns", "a", "b"], "--columns a --columns b"),
        (["hi", "--columns", "x"], "--columns names columns of --input, which is missing"),
        (["hi", "--keep", "x"], "--keep names columns of --input, which is missing"),
    ],
    ids=str,
)
def test_mistakes_with_lists(run: Run, folder: Path, words: list[str], message: str) -> None:
    code, out, err = run("run", "zero-shot-classification", folder, *words)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("add do_sample=True or num_beams=", "add --do-sample or --num-beams"),
        ("do_sample=False takes", "--no-do-sample takes"),
        ("num_beams=2 must", "--num-beams 2 must"),
        ("pass do_sample=True.", "pass --do-sample."),
    ],
)
def test_hints_about_flags_can_be_followed(message: str, shown: str) -> None:
    assert spelled(message, {"do_sample": "--do-sample", "num_beams": "--num-beams"}) == shown


def test_options_that_tasks_lack_are_not_offered(run: Run) -> None:
    for task in ("summarization", "text-generation", "table-question-answering"):
        out = run("run", task, "--help-all")[1]
        assert "--overflow truncate|error" in out
        assert "window" not in out.partition("--overflow")[2].partition("--max-length")[0]


def test_questions_about_a_table(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("name,age\nAnn,34\nBob,27\n")
    folder, questions = FIXTURES / "tapas-wtq", ["Who is Ann?", "How old is Bob?"]
    call = ("run", "table-question-answering", folder, *questions, "--table", tmp_path / "in.csv")
    pipe = minitx.pipeline("table-question-answering", folder)
    expected = [plain(pipe(tmp_path / "in.csv", question)) for question in questions]
    assert [json.loads(line) for line in run(*call, "--json")[1].splitlines()] == expected
    (line,) = run(*call, "--json", "--sequential")[1].splitlines()
    assert json.loads(line) == plain(pipe(tmp_path / "in.csv", questions, sequential=True))
    _, _, err = run(*call, "--overflow", "error", "--max-length", 12)
    assert "without --overflow 'error' it is shortened" in " ".join(err.split())
    folder = FIXTURES / "tapex"
    call = ("run", "table-question-answering", folder, "Who?", "--table", tmp_path / "in.csv")
    _, _, err = run(*call, "--num-beams", 2, "--num-return-sequences", 3)
    assert "--num-return-sequences 3 must be at most --num-beams 2" in " ".join(err.split())


def test_options_before_the_text(run: Run, folder: Path) -> None:
    call = ("run", "zero-shot-classification", folder, "--candidate-labels", "a,b", "the cat", "--json")
    assert json.loads(run(*call)[1])["sequence"] == "the cat"


def test_missing_inputs_are_named_before_any_work(run: Run, tmp_path: Path) -> None:
    for task, option in (("question-answering", "--context"), ("text-ranking", "--documents")):
        code, _, err = run("run", task, tmp_path / "none", "Who?")
        assert (code, f"{task} needs {option}" in err) == (2, True)


def test_kept_columns(run: Run, folder: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("id,label,words\n7,x,the cat\n8,y,a dog\n")
    call = (
        "run",
        "text-classification",
        folder,
        "--input",
        source,
        "--column",
        "words",
        "--keep",
        "id,label",
    )
    code, shown, _ = run(*call, "--output", out)
    assert (code, shown) == (0, f"2 results in {out}\n")
    with out.open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [list(row.values())[:3] for row in written] == [["0", "7", "x"], ["1", "8", "y"]]
    assert list(written[0]) == ["input", "id", "label", "label_", "score"]
    results = minitx.pipeline(model=folder)(["the cat", "a dog"])
    kept = [{"id": "7", "label": "x"}, {"id": "8", "label": "y"}]
    expected = [{**row, "result": result} for row, result in zip(kept, results, strict=True)]
    assert [json.loads(line) for line in run(*call, "--json")[1].splitlines()] == expected
    assert run(*call, "--output", tmp_path / "out.jsonl")[0] == 0
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sentimental-analysis", "m", "a"), "did you mean sentiment-analysis?"),
        (("text-classification", "FOLDER", "a", "--top-k", "0"), "--top-k 0 must be"),
        (("text-classification", "FOLDER", "a", "--overflow", "never"), "--overflow"),
        (("text-classification", "FOLDER", "a", "--input", "x.txt"), "give one of them"),
        (("text-classification", "FOLDER", "--input", "none.txt"), "there is no such file"),
        (
            ("classify-everything", "m"),
            "there is no task classify-everything; minitx run --help lists the tasks",
        ),
        (("text-classification", "FOLDER", "a", "--output", "x.xls"), ".jsonl or .csv"),
        (("text-classification",), "MODEL is missing"),
        (("text-classification", "nowhere/at-all", "a", "--offline"), "nowhere/at-all"),
    ],
    ids=str,
)
def test_mistakes(run: Run, folder: Path, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = run("run", *(str(folder) if arg == "FOLDER" else arg for arg in arguments))
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_pipelines(run: Run) -> None:
    code, out, _ = run("pipelines")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    for spec in SPECS:
        assert spec.name in out
        assert spec.checkpoint in out
        assert spec.shipped in out
    records = [json.loads(line) for line in run("pipelines", "--json")[1].splitlines()]
    assert [record["task"] for record in records] == [spec.name for spec in SPECS]
    assert "bert" in records[0]["architectures"]
    assert records[0]["shipped"] == "minitx/tiny-classifier"
