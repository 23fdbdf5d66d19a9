"""Text classification against transformers' pipeline of the same folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers

import minitx
from tests.parity.pipelines import LONG, TEXTS, close, folder

NAMES = {"id2label": {0: "bad", 1: "fair", 2: "good"}, "label2id": {"bad": 0, "fair": 1, "good": 2}}
# Each head on one architecture, the usual one on all.
CASES = [("softmax", kind) for kind in ("bert", "roberta", "albert", "distilbert", "gpt2", "bart")]
CASES += [("several", "roberta"), ("regression", "bert"), ("one", "albert")]
CONFIGS: dict[str, dict[str, Any]] = {
    "softmax": NAMES,
    "several": NAMES | {"problem_type": "multi_label_classification"},
    "regression": {"num_labels": 1, "problem_type": "regression"},
    "one": {"num_labels": 1},
}


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def pipes(request: pytest.FixtureRequest, root: Path) -> tuple[Any, Any]:
    config, kind = request.param
    path = folder(root, kind, "AutoModelForSequenceClassification", **CONFIGS[config])
    return (
        minitx.pipeline("text-classification", path),
        transformers.pipeline("text-classification", str(path), device="cpu"),
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 1},
        {"top_k": 2},
        {"top_k": None},
        {"function_to_apply": "sigmoid"},
        {"function_to_apply": "softmax", "top_k": None},
        {"function_to_apply": "none"},
    ],
    ids=str,
)
def test_results_are_those_of_transformers(pipes: tuple[Any, Any], options: dict[str, Any]) -> None:
    ours, theirs = pipes
    for text in TEXTS if not options else TEXTS[:2]:
        assert close(ours(text, **options), theirs(text, **options)), text
    pairs = [{"text": text, "text_pair": TEXTS[-1 - i]} for i, text in enumerate(TEXTS)]
    for inputs in (list(TEXTS), pairs) if not options else (list(TEXTS)[:3], pairs[4:7]):
        assert close(ours(inputs, **options), theirs(inputs, **options))
    assert close(ours(pairs[0], **options), theirs(pairs[0], **options))


def test_long_texts_are_truncated_as_with_truncation(pipes: tuple[Any, Any]) -> None:
    ours, theirs = pipes
    with pytest.warns(UserWarning, match="1 of 1 inputs of text-classification were too long"):
        result = ours(LONG)
    assert close(result, theirs(LONG, truncation=True))


@pytest.mark.parametrize("batch_size", [1, 8])
def test_batch_sizes(root: Path, batch_size: int) -> None:
    path = folder(root, "bert", "AutoModelForSequenceClassification", **NAMES)
    ours = minitx.pipeline("sentiment-analysis", path, batch_size=batch_size)
    theirs = transformers.pipeline("sentiment-analysis", str(path), device="cpu")
    assert close(ours(list(TEXTS)), theirs(list(TEXTS)))
