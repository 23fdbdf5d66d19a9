"""Iterables of requests: what is read ahead, errors in the middle, many short texts, padding."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
import torch

import minitx
from minitx.pipelines.batching import BatchLimits, make_batches
from minitx.pipelines.postprocess.spans import best_spans
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.unit.pipelines.folders import VOCABULARY, bert_folder


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> minitx.Pipeline:
    return minitx.pipeline(
        model=bert_folder(tmp_path_factory.mktemp("classifier"), "sequence-classification")
    )


def _before_error(results: Iterator[Any], error: type[Exception], match: str) -> list[Any]:
    """The results before an error; the iterator then is at its end."""
    got: list[Any] = []
    with pytest.raises(error, match=match):
        got.extend(results)
    assert list(results) == []
    return got


def test_results_of_the_inputs_before_an_error_come_first(pipe: minitx.Pipeline, tmp_path: Path) -> None:
    texts = ["the cat sat", "a dog", "bad"] * 7

    def broken() -> Iterator[str]:
        yield from texts
        raise OSError("the source is broken")

    # Up to the last bits: other batches are other products of matrices.
    expected = [result | {"score": pytest.approx(result["score"], abs=1e-6)} for result in pipe(texts)]
    assert _before_error(pipe(broken()), OSError, "broken") == expected
    assert _before_error(pipe(iter([*texts, None, "a"])), ArgumentTypeError, r"inputs\[21\]") == expected
    lines = tmp_path / "texts.jsonl"
    lines.write_text("".join(f'"{text}"\n' for text in texts) + "{\n")
    assert _before_error(pipe(lines), ValueError, r"texts\.jsonl:22: not valid JSON") == expected


def test_results_before_an_input_that_cannot_be_preprocessed_come_first(tmp_path: Path) -> None:
    fill = minitx.pipeline(model=bert_folder(tmp_path / "fill", "masked-lm"))
    texts = [f"the [MASK] sat on a {word}" for word in ("mat", "cat", "dog", "park")] * 3
    got = _before_error(fill(iter([*texts, "no mask", texts[0]])), ArgumentValueError, r"inputs\[12\]")
    assert got == fill(texts)
    assert _before_error(fill(iter(["no mask"])), ArgumentValueError, r"inputs\[0\]") == []


def test_nothing_is_read_ahead_with_one_row_in_a_batch(pipe: minitx.Pipeline) -> None:
    read: list[int] = []

    def endless() -> Iterator[str]:
        for number in count():
            read.append(number)
            yield "the cat sat"

    one = minitx.pipeline("text-classification", pipe.model, pipe.tokenizer, batch_size=1)
    for number, _ in enumerate(islice(one(endless()), 40), start=1):
        assert len(read) == number
    read.clear()
    next(pipe(endless()))
    assert 1 < len(read) < 20


def test_batches_of_many_short_sequences_are_found_without_trying_all() -> None:
    class Lengths(list[int]):
        reads = 0

        def __getitem__(self, index: Any) -> Any:
            self.reads += 1
            return super().__getitem__(index)

    lengths = Lengths([3, 5, 8] * 2000)
    batches = make_batches(lengths, BatchLimits(None, tokens=32768, overhead=4096))
    assert sorted(index for batch in batches for index in batch) == list(range(6000))
    assert lengths.reads < 10 * len(lengths)
    assert len(batches) <= 4


def test_padding_that_the_tokenizer_alone_has(pipe: minitx.Pipeline) -> None:
    tokenizer = minitx.load_tokenizer(pipe.model.checkpoint.folder)  # type: ignore[union-attr, arg-type]
    tokenizer.add_tokens(["[PADDING]"], special=True)
    tokenizer.pad_token = "[PADDING]"
    assert tokenizer.pad_token_id is not None
    assert tokenizer.pad_token_id >= len(VOCABULARY)
    texts = ["the cat sat on a mat", "a", "bad dog"]
    padded = minitx.pipeline("text-classification", pipe.model, tokenizer)(texts)
    assert [row["score"] for row in padded] == pytest.approx([row["score"] for row in pipe(texts)], abs=1e-6)


def test_logits_that_are_no_numbers_still_have_spans() -> None:
    nan, candidates = torch.full((4,), torch.nan), torch.ones(4, dtype=torch.bool)
    assert len(best_spans(nan, nan, candidates, top_k=2, max_answer_len=3)) == 2
