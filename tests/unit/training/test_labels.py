"""Labels by name: ids, the saved config, and errors before a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import minitx
from minitx.training.data.labels import Labels, check_ids
from minitx.training.data.records import Records
from minitx.training.data.split import split

BERT = {
    "model_type": "bert",
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
}


def records(*labels: Any, **columns: Any) -> Records:
    rows = [{"text": "good", "label": label, **columns} for label in labels]
    return Records(Path("a.csv"), rows, range(2, len(rows) + 2))


def test_labels_of_data() -> None:
    assert Labels.of(records("pos", "neg", " pos ")).names == ("neg", "pos")
    assert Labels.of(records("10", "9", "-1", "x")).names == ("-1", "9", "10", "x")
    assert Labels.of(records("9" * 5000, "1")).names == ("1", "9" * 5000)
    assert Labels.of(records("7", "07")).names == Labels.of(records("07", "7")).names == ("07", "7")
    assert Labels.of(records(5, 1), records(3)).names == ("1", "3", "5")
    assert Labels.of(records(True, False)).names == ("false", "true")
    assert Labels.of(records(["B-PER", "O"], ["O"])).names == ("B-PER", "O")
    labels = Labels(("neg", "pos"))
    assert labels.id2label == {0: "neg", 1: "pos"}
    assert labels.label2id == {"neg": 0, "pos": 1}


@pytest.mark.parametrize(
    ("names", "message"),
    [((), "at least one name"), (("a", "a"), "each once"), (("a", " "), "not empty"), ((1,), "not empty")],
)
def test_names_that_are_none(names: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Labels(names)


def test_labels_become_ids() -> None:
    labels = Labels(("neg", "neutral", "pos"))
    data = records("pos", "neg")
    encoded = labels.encode(data)
    assert list(encoded) == [{"text": "good", "labels": 2}, {"text": "good", "labels": 0}]
    assert encoded.where(1) == "a.csv:3"
    assert labels.encode(records(["pos", "neg"], []), kind="multiple")[0]["labels"] == [1.0, 0.0, 1.0]
    assert labels.encode(records(["pos", "neg"]), kind="tokens")[0]["labels"] == [2, 0]
    assert labels.encode(split(data)[0])[0]["labels"] in (0, 2)


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (records("pos", "bad"), "single", r"a\.csv:3: label='bad' must be one of 'neg', 'pos'"),
        (records(["pos"]), "single", r"a\.csv:2: label=\['pos'\] must be one label"),
        (records("pos"), "tokens", r"a\.csv:2: label='pos' must be a list of labels"),
        (records(["pos"], words=["a", "b"]), "tokens", r"a\.csv:2: 1 labels for 2 words"),
        (records(0.5), "single", r"a\.csv:2: label=0\.5 must be a name or an integer; numbers with a"),
        (records(" "), "single", r"a\.csv:2: label=' ' must be a name"),
        (Records(Path("a.csv"), [{"text": "x"}], [2]), "single", r"a\.csv:2: no field 'label'"),
    ],
)
def test_labels_that_do_not_fit(data: Records, kind: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Labels(("neg", "pos")).encode(data, kind=kind)


def test_ids_that_are_out_of_range() -> None:
    check_ids(records(0, 2, [1, -100]), 3, field="label")
    for bad in (3, -1, -100, [3]):
        with pytest.raises(ValueError, match=r"a\.csv:3: label=-?\d+ must be from 0 to 2; the head has 3"):
            check_ids(records(0, bad), 3, field="label")
    with pytest.raises(TypeError, match=r"a\.csv:2: label='1' must be an integer"):
        check_ids(records("1"), 3, field="label")
    with pytest.raises(ValueError, match=r"element 1: labels=7"):
        check_ids([{"labels": 0}, {"labels": 7}], 3)


def test_names_are_in_the_saved_config(tmp_path: Path) -> None:
    labels = Labels(("bad", "fair", "good"))
    built = minitx.from_config(BERT | labels.config(), head="sequence-classification")
    assert Labels.of_model(built) == labels
    minitx.save(built, tmp_path / "a")
    model = minitx.from_config(BERT | {"num_labels": 3}, head="sequence-classification")
    labels.apply(model)
    minitx.save(model, tmp_path / "b")
    for name in ("a", "b"):
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert config["id2label"] == {"0": "bad", "1": "fair", "2": "good"}
        assert config["label2id"] == {"bad": 0, "fair": 1, "good": 2}
        assert "num_labels" not in config
        assert minitx.load(tmp_path / name).checkpoint.id2label == labels.id2label


def test_labels_that_do_not_fit_a_model() -> None:
    labels = Labels(("bad", "fair", "good"))
    model = minitx.from_config(BERT, head="sequence-classification")
    with pytest.raises(ValueError, match=r"with 3 outputs, not 2; the labels are bad, fair, good: load it"):
        labels.check(model)
    with pytest.raises(ValueError, match="must be one with a head"):
        labels.apply(minitx.from_config(BERT))
    named = minitx.from_config(BERT | Labels(("good", "bad")).config(), head="sequence-classification")
    with pytest.raises(ValueError, match=r"in the order \('good', 'bad'\)"):
        Labels(("bad", "good")).apply(named)
