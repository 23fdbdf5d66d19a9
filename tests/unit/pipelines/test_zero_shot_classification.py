"""Zero-shot classification: labels, templates, long texts and bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import minitx
from minitx.pipelines.preprocess.hypotheses import parse_labels
from tests.parity.pipelines import LIMIT, LONG, TEXTS, close, folder
from tests.unit.pipelines.checks import check_order_and_batches

NAMES = {0: "contradiction", 1: "neutral", 2: "entailment"}
LABELS = ["politics", "sports", "a cat"]


def load(root: Path, **config: Any) -> Any:
    config = config or {"id2label": NAMES, "label2id": {name: index for index, name in NAMES.items()}}
    path = folder(root, "bert", "AutoModelForSequenceClassification", **config)
    return minitx.pipeline("zero-shot-classification", path, device="cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zero-shot")


@pytest.fixture(scope="module")
def pipe(root: Path) -> Any:
    return load(root)


def test_batches_order_and_threads(pipe: Any) -> None:
    check_order_and_batches(pipe, TEXTS, candidate_labels=LABELS)
    check_order_and_batches(pipe, [*TEXTS[:4], LONG], candidate_labels=LABELS, overflow="window")


def test_all_labels_of_all_texts_share_batches(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    forward = type(pipe.task).forward
    monkeypatch.setattr(
        type(pipe.task), "forward", lambda *args: (sizes.append(len(args[1])), forward(*args))[1]
    )
    pipe(["a cat"] * 4, LABELS)
    assert sizes == [12]


def test_labels_of_a_request_precede_those_of_the_call(pipe: Any) -> None:
    requests = [{"sequence": "a", "candidate_labels": "x, y"}, {"sequence": "a"}]
    own, others = pipe(requests, candidate_labels=LABELS)
    assert sorted(own.labels) == ["x", "y"]
    assert sorted(others.labels) == sorted(LABELS)
    assert [sorted(row.labels) for row in pipe(requests, LABELS)] == [["x", "y"], sorted(LABELS)]
    assert [row.sequence for row in pipe(iter(["a", "b"]), LABELS)] == ["a", "b"]


def test_labels_can_be_options_of_the_pipeline(pipe: Any) -> None:
    named = minitx.pipeline("zero-shot-classification", pipe.model, pipe.tokenizer, candidate_labels="x, y")
    assert sorted(named("a").labels) == ["x", "y"]
    assert sorted(named("a", candidate_labels=LABELS).labels) == sorted(LABELS)


def test_requests_of_a_file(pipe: Any, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"sequence": "a", "candidate_labels": ["x", "y"]}\n"b"\n')
    results = list(pipe(path, candidate_labels=LABELS))
    assert [len(row.labels) for row in results] == [2, 3]
    with pytest.raises(TypeError, match="one argument for a file"):
        pipe(path, LABELS)


def test_scores(pipe: Any) -> None:
    one = pipe("a cat", LABELS)
    assert sum(one.scores) == pytest.approx(1)
    assert one.scores == sorted(one.scores, reverse=True)
    several = pipe("a cat", LABELS, multi_label=True)
    alone = [pipe("a cat", [label]) for label in several.labels]
    assert several.scores == pytest.approx([row.scores[0] for row in alone], abs=1e-6)


def test_details_have_the_hypotheses(pipe: Any) -> None:
    details = pipe("a cat", LABELS).details
    assert [item.label for item in details.inputs] == LABELS
    assert details.inputs[0].tokens.count("[SEP]") == 2
    assert details.outputs[0].shape == (3,)
    assert details.request["sequence"] == "a cat"


def test_empty_labels_and_braces_are_refused(pipe: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^candidate_labels=\['a', ''\] must be at least one label, none empty"
    ):
        pipe("text", ["a", ""])
    with pytest.raises(ValueError, match=r"^inputs\[1\]\['candidate_labels'\]=.* must be at least one label"):
        pipe(["text", {"sequence": "text", "candidate_labels": ["a", "a"]}], ["b"])
    with pytest.raises(ValueError, match=r"with one {} for the label; other braces are doubled"):
        pipe("text", "a", hypothesis_template="{} {x}")


def test_only_the_text_is_truncated(pipe: Any) -> None:
    with pytest.warns(UserWarning, match="1 of 1 inputs of zero-shot-classification were too long"):
        details = pipe(LONG, LABELS).details
    whole = pipe("a", LABELS).details
    for long, short in zip(details.inputs, whole.inputs, strict=True):
        assert len(long) == LIMIT
        end = len(short) - list(short.input_ids).index(3)  # [SEP], the hypothesis, [SEP]
        assert list(long.input_ids)[-end:] == list(short.input_ids)[-end:]
    with pytest.raises(ValueError, match='overflow="truncate" cuts it off'):
        pipe(LONG, LABELS, overflow="error")


def test_windows_use_the_whole_text(pipe: Any) -> None:
    result = pipe(LONG, LABELS, overflow="window")
    rows: dict[str, list[torch.Tensor]] = {label: [] for label in LABELS}
    for item, row in zip(result.details.inputs, result.details.outputs, strict=True):
        rows[item.label].append(row)
    logits = {label: torch.stack(rows[label]).mean(dim=0)[2] for label in LABELS}
    assert result.labels == sorted(logits, key=lambda label: -float(logits[label]))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "at least one label"),
        (" , ", "at least one label"),
        (["a", "a"], "none twice"),
        (["a", ""], "none empty"),
        (["a", 3], "must be a string"),
        (None, "must be the labels to choose from"),
        (3, "a list of labels"),
    ],
)
def test_bad_labels(pipe: Any, labels: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        pipe("a", candidate_labels=labels)


@pytest.mark.parametrize("template", ["This is it.", "{x}", "{} and {}", "{", "{:d}", "{0.x}"])
def test_bad_templates(pipe: Any, template: str) -> None:
    with pytest.raises(ValueError, match="hypothesis_template"):
        pipe("a", LABELS, hypothesis_template=template)


@pytest.mark.parametrize("value", [None, 3, b"a", ["a", None], [["a"]], {"text": "a"}, {}])
def test_bad_texts(pipe: Any, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        pipe(value, candidate_labels=LABELS)


def test_a_hypothesis_that_leaves_no_room(pipe: Any) -> None:
    with pytest.raises(ValueError, match="leaves no room for text"):
        pipe("a cat", ["word " * 500])


def test_models_without_entailment(root: Path) -> None:
    with pytest.warns(UserWarning, match="its last label is taken for entailment"):
        task = load(root, id2label={0: "a", 1: "b", 2: "c"}).task
    assert (task.entailment, task.contradiction) == (2, 0)
    with pytest.raises(ValueError, match="natural language inference"):
        load(root, num_labels=1)


@given(st.lists(st.text(st.characters(blacklist_characters=",", blacklist_categories=("Cs",)), min_size=1)))
def test_a_string_of_labels_is_a_list(labels: list[str]) -> None:
    unique = list(dict.fromkeys(label.strip() for label in labels if label.strip()))
    if unique:
        assert parse_labels("labels", ", ".join(unique)) == unique == parse_labels("labels", unique)
        assert parse_labels("labels", ", , ".join(unique) + ",") == unique  # as in transformers


def test_one_result_is_a_dict_and_a_list_gives_a_list(pipe: Any) -> None:
    assert isinstance(pipe("a", LABELS), dict)
    assert close(pipe(["a"], LABELS), [pipe("a", LABELS)])
