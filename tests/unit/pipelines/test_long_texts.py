"""Texts far longer than the model's limit: truncation does not tokenize the rest of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import minitx
from minitx.pipelines.preprocess.starts import start_of
from minitx.tokenizer import Tokenizer
from tests.unit.pipelines.folders import bert_folder

LONG = "the cat sat on a mat and the dog ran to the red park. " * 20_000  # 1.1 million characters
INFERENCE = {"id2label": {"0": "contradiction", "1": "entailment"}}
pytestmark = pytest.mark.filterwarnings("ignore:.*were too long")


@pytest.fixture
def tokenized(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All texts that are tokenized."""
    texts: list[str] = []
    call: Callable[..., Any] = Tokenizer.__call__

    def record(self: Tokenizer, values: Any, *args: Any, pairs: Any = None, **options: Any) -> Any:
        texts.extend([*values, *(pairs or [])])
        return call(self, values, *args, pairs=pairs, **options)

    monkeypatch.setattr(Tokenizer, "__call__", record)
    return texts


@pytest.mark.parametrize(
    ("head", "task", "inputs", "options"),
    [
        ("sequence-classification", "text-classification", {"text": LONG}, {}),
        (
            "sequence-classification",
            "zero-shot-classification",
            {"sequence": LONG},
            {"candidate_labels": ["a", "b"]},
        ),
        ("question-answering", None, {"question": "who sat?", "context": LONG}, {}),
        ("token-classification", None, {"text": LONG}, {}),
    ],
)
def test_the_rest_of_a_text_that_is_truncated_is_not_tokenized(
    tmp_path: Path, tokenized: list[str], head: str, task: str | None, inputs: Any, options: Any
) -> None:
    pipe = minitx.pipeline(task, bert_folder(tmp_path / "model", head, **INFERENCE))
    result = pipe(inputs, overflow="truncate", **options)
    assert max(map(len, tokenized)) < 10_000
    start = {name: text[:10_000] for name, text in inputs.items()}
    expected = pipe(start, overflow="truncate", **options)
    for each in (result, expected):
        if isinstance(each, dict):
            each.pop("sequence", None)
    assert result == expected


def test_the_start_of_a_text(tmp_path: Path) -> None:
    tokenizer = minitx.load_tokenizer(bert_folder(tmp_path / "model", "masked-lm"))
    start = start_of(LONG, tokenizer, 20)
    assert len(start) < 3_000
    assert LONG.startswith(start)
    assert LONG[len(start)] == " "
    lines = LONG.replace(" ", "\n")
    assert start_of(lines, tokenizer, 20) == start.replace(" ", "\n")
    for whole in ("the cat", " " * 100_000, "cat" * 100_000, " " * 50_000 + LONG):
        assert start_of(whole, tokenizer, 20) is whole


def test_a_text_that_is_truncated_on_the_left_keeps_its_end(tmp_path: Path) -> None:
    pipe = minitx.pipeline(model=bert_folder(tmp_path / "model", "sequence-classification"))
    pipe.tokenizer.truncation_side = "left"
    assert pipe(LONG[:30_000] + "bad dog") == pipe(LONG[29_000:30_000] + "bad dog")
    assert pipe(LONG[:30_000] + "bad dog") != pipe(LONG[:30_000] + "good dog")
