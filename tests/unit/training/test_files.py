"""Text files, JSON lines and tables: what they hold, their split, and errors that name file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from minitx.training.data.files import read_texts
from minitx.training.data.records import read_records
from minitx.training.data.split import split

TEXT = "one\ntwo\n\n \nthree\r\n\r\nfour"


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ("paragraphs", ["one\ntwo", "three", "four"]),
        ("lines", ["one", "two", "three", "four"]),
        ("files", ["one\ntwo\n\n \nthree\n\nfour"]),
    ],
)
def test_documents_of_a_text_file(tmp_path: Path, documents: str, expected: list[str]) -> None:
    path = write(tmp_path, "a.txt", TEXT)
    texts = read_texts(path, documents)
    assert list(texts) == expected
    assert list(texts) == expected  # read anew
    assert list(read_texts([path, str(path)], documents)) == expected * 2


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    assert list(read_texts(write(tmp_path, "a.txt", b"\xef\xbb\xbfone"))) == ["one"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a.txt is empty"),
        (b" \n\n", "only white space"),
        (b"one\ncaf\xe9\n", r"a.txt:2: byte 0xe9 in column 4 is not UTF-8"),
        ("one\n".encode("utf-16"), r"a.txt:1: the file is in UTF-16"),
        (b"one\n\0\0\n", r"a.txt:2: the line holds a null character"),
        (b"one\n" + b"x" * (16 * 2**20 + 1), r"a.txt:2: the line has more than 16,777,216 bytes"),
    ],
)
def test_bad_text_files(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(read_texts(write(tmp_path, "a.txt", content)))


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.txt: there is no such file"):
        read_texts(tmp_path / "none.txt")
    with pytest.raises(IsADirectoryError, match="pass the files in it"):
        read_texts(tmp_path)
    with pytest.raises(ValueError, match=r"paths=.. must be at least one file"):
        read_texts([])
    with pytest.raises(ValueError, match="documents='words' must be one of"):
        read_texts(tmp_path, "words")  # type: ignore[arg-type]


def test_texts_are_split_by_document(tmp_path: Path) -> None:
    lines = [f"line {index}" for index in range(1000)]
    texts = read_texts(write(tmp_path, "a.txt", "\n".join(lines)), "lines")
    training, validation = texts.split(0.2, seed=1)
    assert sorted([*training, *validation]) == sorted(lines)
    assert 150 < len(list(validation)) < 250
    assert list(validation)[:3] == ["line 7", "line 8", "line 9"]  # the same on every machine
    assert list(texts.split(0.2, seed=2)[1]) != list(validation)
    first, second = training.split(0.5)
    assert sorted([*first, *second]) == sorted(training)
    assert len({part.fingerprint() for part in (texts, training, validation, first)}) == 4
    with pytest.raises(ValueError, match=r"fraction=1 must be in \(0, 1\)"):
        texts.split(1)


def test_records_of_json_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"review": "good", "stars": 5}\n\n{"review": "bad", "stars": 1}\n')
    records = read_records(path, text="review", label="stars")
    assert list(records) == [{"text": "good", "label": 5}, {"text": "bad", "label": 1}]
    assert records.where(1) == f"{path}:3"
    assert read_records(str(path))[0] == {"review": "good", "stars": 5}


def test_records_of_a_table(tmp_path: Path) -> None:
    content = 'review,stars\n"good,\nvery ""good""",5\n\nbad,1\n'
    records = read_records(write(tmp_path, "a.csv", content), text="review", label="stars")
    assert list(records) == [{"text": 'good,\nvery "good"', "label": "5"}, {"text": "bad", "label": "1"}]
    assert [records.where(index)[-1] for index in (0, 1)] == ["2", "5"]
    assert repr(records).endswith("2 of text, label)")
    tabs = read_records(write(tmp_path, "a.TSV", content.replace(",", "\t")), label="stars")
    assert list(tabs) == [{"label": "5"}, {"label": "1"}]


def test_chats_and_pairs(tmp_path: Path) -> None:
    chat = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}'
    assert read_records(write(tmp_path, "a.jsonl", chat))[0]["messages"][1]["content"] == "Hello"
    pair = '{"question": "Who?", "answer": "I"}'
    records = read_records(write(tmp_path, "b.jsonl", pair), source="question", target="answer")
    assert list(records) == [{"source": "Who?", "target": "I"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "a.csv is empty"),
        ("a.csv", "review,stars\n", "a.csv has no records"),
        ("a.csv", "text,stars\ngood,5\n", r"a.csv:2: no column 'review'; the columns are 'text', 'stars'"),
        ("a.csv", "review,stars\ngood,5\n ,4\n", r"a.csv:3: column 'review' is empty"),
        ("a.csv", "review,stars\ngood, very,5\n", r"a.csv:2: 3 cells, and the header has 2; put a cell"),
        ("a.csv", "review,review\ngood,5\n", r"a.csv:1: the header has the column 'review' more than"),
        ("a.csv", 'review,stars\n"good,5\nbad,1\n', r"a.csv:2: not readable as a table"),
        ("a.csv", 'review\n"' + ("x" * 2**20 + "\n") * 17, r"a.csv:2: not readable .*16777216"),
        ("a.csv", b"review,stars\ncaf\xe9,5\n", r"a.csv:2: byte 0xe9"),
        ("a.jsonl", '{"review": "good"}\n{"review": \n', r"a.jsonl:2: not valid JSON"),
        ("a.jsonl", "[1]\n", r"a.jsonl:1: holds a list"),
        ("a.jsonl", '{"review": null}', r"a.jsonl:1: column 'review' is empty"),
        ("a.jsonl", '{"review": "\\ud800"}', r"a.jsonl:1: holds half of a surrogate pair"),
        ("a.jsonl", '{"review": [{"role": "user"}]}', r"a.jsonl:1: review has .* needs texts as role and"),
        ("a.txt", "good", r"must be a file that ends in \.jsonl"),
        ("a.json", "[]", "one record per line"),
    ],
)
def test_bad_records(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_records(write(tmp_path, name, content), review="review")


def test_messages_must_be_a_list(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a.jsonl:1: messages must be a list"):
        read_records(write(tmp_path, "a.jsonl", '{"messages": "Hi"}'))


def test_split_of_a_dataset(tmp_path: Path) -> None:
    data = [{"text": str(index)} for index in range(100)]
    training, validation = split(data, 0.25, seed=3)
    assert len(validation) == 25
    assert sorted([*training, *validation], key=lambda row: int(row["text"])) == data
    assert list(split(data, 0.25, seed=3)[1]) == list(validation)
    assert list(split(data, 0.25, seed=4)[1]) != list(validation)
    assert [len(part) for part in split(data[:2], 0.01)] == [1, 1]
    assert len(validation[:5]) == 5
    with pytest.raises(ValueError, match="at least 2 elements to be split, not 1"):
        split(data[:1])
    path = write(tmp_path, "a.csv", "text\n" + "\n".join(map(str, range(100))))
    part = split(read_records(path), 0.1)[1]
    assert part.where(0) == f"{path}:{int(part[0]['text']) + 2}"  # type: ignore[attr-defined]


def test_a_table_may_have_long_cells_and_further_columns_without_names(tmp_path: Path) -> None:
    long = "x" * 200_000  # more than the limit of the module csv
    path = write(tmp_path, "a.csv", f"review,,\n{long},,\n")
    assert list(read_records(path, review="review")) == [{"review": long}]
    with pytest.raises(ValueError, match=r"a.csv:1: the header has the column '' more than once"):
        read_records(path)


def test_a_carriage_return_alone_ends_a_line(tmp_path: Path) -> None:
    assert list(read_texts(write(tmp_path, "a.txt", "one\rtwo\r"), "lines")) == ["one", "two"]
    assert list(read_records(write(tmp_path, "a.csv", "text\rone\rtwo"))) == [
        {"text": "one"},
        {"text": "two"},
    ]
