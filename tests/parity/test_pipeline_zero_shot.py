"""Zero-shot classification: the labels, order and scores of transformers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

import minitx
from tests.parity.pipelines import LONG, TEXTS, close, folder, theirs

warnings.filterwarnings("ignore")
NLI = ["contradiction", "neutral", "entailment"]
KINDS: dict[str, list[str]] = {
    "bart": NLI,
    "bert": ["ENTAILMENT", "NEUTRAL", "CONTRADICTION"],  # entailment is the first
    "roberta": NLI,
    "distilbert": ["entailment", "not_entailment"],
    "albert": ["a", "b", "c"],  # none is named entailment
}
LABELS = ["politics", "sports", "東京", "a cat", "the bank", "naïve"]


def nli(root: Path, kind: str) -> Path:
    names = dict(enumerate(KINDS[kind]))
    labels = {"id2label": names, "label2id": {name: index for index, name in names.items()}}
    return folder(root, kind, "AutoModelForSequenceClassification", **labels)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_results_are_those_of_transformers(kind: str, root: Path) -> None:
    reference = theirs("zero-shot-classification", nli(root, kind))
    pipe = minitx.pipeline("zero-shot-classification", nli(root, kind), device="cpu")
    texts = [text for text in TEXTS if text] + [LONG]
    calls: list[dict[str, Any]] = [
        {"candidate_labels": LABELS},
        {"candidate_labels": "politics, sports ,a cat"},
        {"candidate_labels": LABELS, "multi_label": True},
        {"candidate_labels": ["politics"]},
        {"candidate_labels": LABELS[:3], "hypothesis_template": "Is {} what it is about?"},
    ]
    for options in calls:
        assert close(pipe(texts[:4], **options), reference(texts[:4], **options))
        assert close(pipe(texts[0], **options), reference(texts[0], **options))
    expected = reference(texts, LABELS)
    for size in (1, 8, None):
        sized = minitx.pipeline("zero-shot-classification", pipe.model, pipe.tokenizer, batch_size=size)
        assert close(sized(texts, candidate_labels=LABELS), expected)
    assert close(pipe(texts[:1], LABELS), expected[:1])
    assert close(pipe(texts[:2], LABELS), reference(texts[:2], LABELS))
    assert close(pipe(texts[0], LABELS), reference(texts[0], LABELS))
