"""A text that is too long is named as the caller knows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import minitx
from tests.unit.pipelines.folders import LIMIT, bert_folder

LONG = "the cat sat on a mat . " * 20
SHORT = "the cat sat"


@pytest.mark.parametrize(
    ("task", "head", "labels", "inputs", "name"),
    [
        ("text-classification", "sequence-classification", 3, (LONG,), "text="),
        ("text-classification", "sequence-classification", 3, ([SHORT, SHORT, LONG],), r"inputs\[2\]="),
        (
            "text-classification",
            "sequence-classification",
            3,
            ({"text": "a", "text_pair": LONG},),
            "text_pair=",
        ),
        ("question-answering", "question-answering", 2, (SHORT, LONG), "context="),
        (
            "question-answering",
            "question-answering",
            2,
            ([{"question": SHORT, "context": text} for text in (SHORT, LONG)],),
            r"inputs\[1\]\['context'\]=",
        ),
        ("zero-shot-classification", "sequence-classification", 3, (LONG, ["a", "b"]), "sequence="),
        ("text-ranking", "sequence-classification", 1, (SHORT, [SHORT, LONG]), r"documents\[1\]="),
        ("sentence-similarity", "none", 0, (SHORT, [SHORT, SHORT, LONG]), r"sentences\[2\]="),
        ("sentence-similarity", "none", 0, (LONG, [SHORT]), "source_sentence="),
    ],
)
@pytest.mark.filterwarnings("ignore:No label of the model begins with")
def test_the_text_that_is_too_long_is_named(
    task: str, head: str, labels: int, inputs: tuple[Any, ...], name: str, tmp_path: Path
) -> None:
    settings = {"id2label": {str(index): f"L{index}" for index in range(labels)}} if labels else {}
    pipe = minitx.pipeline(task, bert_folder(tmp_path / "bert", head, **settings), device="cpu")
    with pytest.raises(ValueError, match=rf"^{name}'the cat sat on .* must be of at most {LIMIT} tokens"):
        pipe(*inputs, overflow="error")


def test_the_text_that_is_empty_is_named(tmp_path: Path) -> None:
    pipe: Any = minitx.pipeline(
        "question-answering", bert_folder(tmp_path / "bert", "question-answering"), device="cpu"
    )
    empty = {"question": SHORT, "context": ""}
    with pytest.raises(ValueError, match=r"^context='' must be a text that is not empty"):
        pipe(empty)
    with pytest.raises(ValueError, match=r"^inputs\[1\]\['context'\]='' must be a text that is not empty"):
        pipe([{"question": SHORT, "context": SHORT}, empty])


def test_inputs_of_a_stream_and_of_encode_are_named(tmp_path: Path) -> None:
    pipe: Any = minitx.pipeline("sentence-similarity", bert_folder(tmp_path / "bert", "none"), device="cpu")
    with pytest.raises(ValueError, match=r"^texts\[1\]='the cat"):
        pipe.encode([SHORT, LONG], overflow="error")
    requests = [{"source_sentence": SHORT, "sentences": [text]} for text in [SHORT] * 20 + [LONG]]
    results = pipe(iter(requests), overflow="error")
    assert len([next(results) for _ in range(8)]) == 8
    with pytest.raises(ValueError, match=r"^inputs\[20\]\['sentences'\]\[0\]='the cat"):
        list(results)
