"""Token classification against transformers' pipeline of the same folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import minitx
from tests.parity.pipelines import LONG, TEXTS, close, folder

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC")
NAMES = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
STRATEGIES = ("none", "simple", "first", "average", "max")
KINDS = ("bert", "roberta", "albert", "gpt2")


@pytest.fixture(scope="module", params=KINDS)
def pipes(request: pytest.FixtureRequest, root: Path) -> tuple[Any, Any]:
    path = folder(root, request.param, "AutoModelForTokenClassification", **NAMES)
    return (
        minitx.pipeline("ner", path),
        transformers.pipeline("ner", str(path), device="cpu", dtype=torch.float32),
    )


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
@pytest.mark.parametrize(
    ("strategy", "ignored"), [*((name, []) for name in STRATEGIES), ("none", None), ("max", ["PER", "B-LOC"])]
)
def test_results_are_those_of_transformers(
    pipes: tuple[Any, Any], strategy: str, ignored: list[str] | None
) -> None:
    ours, theirs = pipes
    options: dict[str, Any] = {"aggregation_strategy": strategy}
    options |= {} if ignored is None else {"ignore_labels": ignored}
    # GPT-2 has no special tokens, and transformers no way to run it on none
    texts = [text for text in TEXTS if text or ours.tokenizer.cls_token_id is not None]
    expected = theirs(texts, **options)
    assert close(ours(texts, **options), expected)
    if strategy == "none":
        for text, result in zip(texts, expected, strict=True):
            assert close(ours(text, **options), result), text
            assert ignored or close(theirs(text, **options), result), text
    assert any(expected)


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
@pytest.mark.parametrize("strategy", ["none", "average"])
@pytest.mark.parametrize("pipes", ["bert", "albert"], indirect=True)  # byte-level: needs spaces
def test_words(pipes: tuple[Any, Any], strategy: str) -> None:
    ours, theirs = pipes
    options = {"aggregation_strategy": strategy, "is_split_into_words": True, "ignore_labels": []}
    rows = [text.split() for text in TEXTS if text.split()]
    for delimiter in ("", " - "):
        for words in rows:
            result = theirs(words, delimiter=delimiter, **options)
            assert close(ours(words, delimiter=delimiter, **options), result), words
        assert close(ours(rows, delimiter=delimiter, **options), theirs(rows, delimiter=delimiter, **options))


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
@pytest.mark.parametrize(("strategy", "stride"), [("simple", 0), ("first", 40), ("average", 40)])
def test_windows_with_a_stride_are_those_of_transformers(
    pipes: tuple[Any, Any], strategy: str, stride: int
) -> None:
    ours, theirs = pipes
    options = {"aggregation_strategy": strategy, "stride": stride}
    for text in (TEXTS[3], (TEXTS[3] + " " + TEXTS[4] + TEXTS[6]) * 5):
        assert close(ours(text, **options), theirs(text, **options)), text


@pytest.mark.parametrize("strategy", ["none", "simple"])
def test_long_texts(root: Path, strategy: str) -> None:
    path = folder(root, "roberta", "AutoModelForTokenClassification", **NAMES)
    ours = minitx.pipeline("ner", path)
    theirs = transformers.pipeline("ner", str(path), device="cpu")
    with pytest.warns(UserWarning, match="1 of 1 inputs of token-classification were too long"):
        result = ours(LONG, aggregation_strategy=strategy, overflow="truncate")
    assert close(result, theirs(LONG, aggregation_strategy=strategy))
    if strategy == "simple":
        theirs_all = theirs(LONG, aggregation_strategy=strategy, stride=30)
        assert close(ours(LONG, aggregation_strategy=strategy, stride=30), theirs_all)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_batch_sizes_and_sides(root: Path, batch_size: int, side: str) -> None:
    path = folder(root, "bert", "AutoModelForTokenClassification", **NAMES)
    ours = minitx.pipeline("ner", path, batch_size=batch_size)
    theirs = transformers.pipeline("ner", str(path), device="cpu", batch_size=batch_size)
    ours.tokenizer.truncation_side = theirs.tokenizer.truncation_side = side
    options: dict[str, Any] = {"aggregation_strategy": "simple", "stride": 32}
    texts = [*TEXTS, LONG[:2000]]
    assert close(ours(texts, **options), theirs(texts, **options))
