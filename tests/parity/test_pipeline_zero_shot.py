"""Zero-shot classification: the labels, order and scores of transformers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

import minitx
from tests.parity.pipelines import LONG, TEXTS, assert_close, build, theirs

warnings.filterwarnings("ignore")
NLI = ["contradiction", "neutral", "entailment"]
KINDS: dict[str, list[str]] = {
    "bart": NLI,
    "bert": ["ENTAILMENT", "NEUTRAL", "CONTRADICTION"],  # entailment is the first
    "roberta": NLI,
    "distilbert": ["entailment", "not_entailment"],
    "albert": ["a", "b", "c"],  # none is named entailment
}
LABELS = ["politics", "sports", "東京", "a cat", "the bank", "🍕"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("zero-shot")
    return {kind: build(root, kind, "ForSequenceClassification", labels=KINDS[kind]) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_results_are_those_of_transformers(kind: str, folders: dict[str, Path]) -> None:
    reference = theirs("zero-shot-classification", folders[kind])
    pipe = minitx.pipeline("zero-shot-classification", folders[kind], device="cpu")
    texts = [text for text in TEXTS if text] + [LONG]
    calls: list[dict[str, Any]] = [
        {"candidate_labels": LABELS},
        {"candidate_labels": "politics, sports ,a cat"},
        {"candidate_labels": LABELS, "multi_label": True},
        {"candidate_labels": ["politics"]},
        {"candidate_labels": LABELS[:3], "hypothesis_template": "Is {} what it is about?"},
    ]
    for options in calls:
        expected = reference(texts, **options)
        for size in (1, 8, None):
            sized = minitx.pipeline(
                "zero-shot-classification", pipe.model, pipe.tokenizer, batch_size=size, **options
            )
            assert assert_close(sized(texts), expected) >= 3 * len(texts)
        assert_close(pipe(texts[0], **options), reference(texts[0], **options))
        assert_close(pipe([texts[0]], **options), reference([texts[0]], **options))
    assert_close(pipe(texts[:2], LABELS), reference(texts[:2], LABELS))
    assert_close(pipe(texts[0], LABELS), reference(texts[0], LABELS))
