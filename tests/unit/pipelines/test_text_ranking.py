"""Text ranking: order, windows, files that state other activations, and bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import minitx
from tests.parity.pipelines import LONG, TEXTS, close, folder
from tests.unit.pipelines.checks import check_order_and_batches

DOCUMENTS = list(TEXTS[:5])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranking")


@pytest.fixture(scope="module")
def place(root: Path) -> Path:
    return folder(root, "bert", "AutoModelForSequenceClassification", num_labels=1)


@pytest.fixture(scope="module")
def pipe(place: Path) -> Any:
    return minitx.pipeline("text-ranking", place, device="cpu")


def test_batches_order_and_threads(pipe: Any) -> None:
    requests = [{"query": text, "documents": DOCUMENTS} for text in TEXTS]
    check_order_and_batches(pipe, requests)
    check_order_and_batches(pipe, [{"query": "a", "documents": [*DOCUMENTS, LONG]}], overflow="window")


def test_documents_are_ranked(pipe: Any) -> None:
    ranking = pipe("a cat", DOCUMENTS)
    assert [row.score for row in ranking] == sorted((row.score for row in ranking), reverse=True)
    assert [row.text for row in ranking] == [DOCUMENTS[row.corpus_id] for row in ranking]
    assert sorted(row.corpus_id for row in ranking) == [0, 1, 2, 3, 4]
    assert all(0 < row.score < 1 for row in ranking)
    raw = pipe("a cat", DOCUMENTS, function_to_apply="none")
    assert [row.corpus_id for row in raw] == [row.corpus_id for row in ranking]
    assert pipe("a cat", DOCUMENTS, top_k=2) == ranking[:2]
    assert pipe("a cat", []) == []


def test_forms_of_requests(pipe: Any) -> None:
    ranking = pipe("a cat", DOCUMENTS)
    assert pipe(query="a cat", documents=DOCUMENTS) == ranking
    assert pipe({"query": "a cat", "documents": DOCUMENTS}) == ranking
    assert close(pipe(["a cat", "b"], [DOCUMENTS, DOCUMENTS[:2]]), [ranking, pipe("b", DOCUMENTS[:2])])
    assert close(pipe(["a cat", "b"], DOCUMENTS), [ranking, pipe("b", DOCUMENTS)])
    assert ranking.details.inputs[3].label == 3


def test_a_long_document_counts_by_its_best_window(pipe: Any) -> None:
    options = {"function_to_apply": "none", "overflow": "window"}
    (row,) = pipe("a cat", [LONG], **options)
    outputs = pipe("a cat", [LONG], **options).details.outputs
    assert len(outputs) > 10
    assert row.score == pytest.approx(max(float(logit) for logit in outputs))
    with pytest.warns(UserWarning, match="too long and were truncated"):
        pipe("a cat", [LONG])


def test_files_with_another_activation(place: Path, tmp_path: Path, pipe: Any) -> None:
    shutil.copytree(place, tmp_path / "a")
    config = json.loads((place / "config.json").read_text())
    stated = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}
    (tmp_path / "a" / "config.json").write_text(json.dumps(config | stated))
    raw = minitx.pipeline("text-ranking", tmp_path / "a", device="cpu")
    assert close(raw("a", DOCUMENTS), pipe("a", DOCUMENTS, function_to_apply="none"))
    assert close(raw("a", DOCUMENTS, function_to_apply="sigmoid"), pipe("a", DOCUMENTS))
    stated = {"sentence_transformers": {"activation_fn": "my_code.Activation"}}
    (tmp_path / "a" / "config.json").write_text(json.dumps(config | stated))
    with pytest.raises(
        ValueError, match=r"activation_fn='my_code.Activation' must be an activation of torch.nn"
    ):
        minitx.pipeline("text-ranking", tmp_path / "a", device="cpu")


def test_prompts(pipe: Any) -> None:
    assert close(pipe("cat", DOCUMENTS, prompt="a "), pipe("a cat", DOCUMENTS))
    with pytest.raises(ValueError, match="prompt_name='x' must be left out; the checkpoint has no prompts"):
        pipe("cat", DOCUMENTS, prompt_name="x")


def test_models_with_several_labels(root: Path) -> None:
    other = folder(root, "bert", "AutoModelForSequenceClassification", num_labels=3)
    with pytest.raises(ValueError, match=r"must be a cross-encoder, with one label; it has 3; text-c"):
        minitx.pipeline("text-ranking", other)


@pytest.mark.parametrize(
    "request_",
    [
        "a cat",
        {"query": "a"},
        {"documents": ["a"]},
        {"query": "a", "documents": "b"},
        {"query": "a", "documents": ["b", 3]},
        {"query": ["a"], "documents": ["b"]},
        {"query": "a", "documents": None},
        {"query": "a", "documents": ["b"], "x": 1},
        None,
        b"a",
        3,
        [["a"]],
    ],
)
def test_bad_requests(pipe: Any, request_: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"query|documents|inputs"):
        pipe(request_)


def test_errors_name_the_field(pipe: Any) -> None:
    with pytest.raises(TypeError, match=r"^documents='b' must be a list of strings; .* a \.jsonl"):
        pipe("a", "b")
    with pytest.raises(TypeError, match=r"^documents\[1\]=3 must be a string"):
        pipe("a", ["b", 3])


def test_messages_name_the_documents(pipe: Any) -> None:
    with pytest.raises(TypeError, match=r"^documents\[1\]=3 must be a string"):
        pipe("a", ["b", 3])
    with pytest.raises(TypeError, match=r"^inputs\[1\]\['documents'\]='b' must be a list of strings"):
        pipe([{"query": "a", "documents": ["b"]}, {"query": "a", "documents": "b"}])


@pytest.mark.parametrize("options", [{"top_k": 0}, {"function_to_apply": "softmax"}, {"return_documents": 1}])
def test_bad_options(pipe: Any, options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(options))):
        pipe("a", ["b"], **options)
