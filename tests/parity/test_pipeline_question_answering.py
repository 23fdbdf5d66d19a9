"""Question answering against the pipeline of transformers 4.57.6, by its fixtures."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.pipelines.document_question_answering import select_starts_ends

import minitx
from minitx.pipelines.postprocess.spans import best_spans, span_probabilities
from tests.parity.pipeline_fixtures import Case, cases

TASK = "question-answering"
# Arguments of transformers' runner, without effect on answers: but on the left its padding is searched too.
RUNNER = ("padding", "batch_size")
MODELS = ("albert", "bert", "distilbert", "roberta", "xlm-roberta-left")


@cache
def pipe(folder: Path, options: tuple[tuple[str, Any], ...]) -> Any:
    return minitx.pipeline(TASK, folder, dtype="float32", **dict(options))


def answer(case: Case) -> Any:
    """The result of minitx for a case."""
    arguments = {name: value for name, value in case.call_arguments.items() if name not in RUNNER}
    if arguments.get("max_question_len") == 2:  # fast tokenizers of 4.57.6 ignore it
        del arguments["max_question_len"]
    return pipe(case.folder, tuple(case.pipeline_arguments.items()))(*case.inputs, **arguments)


@pytest.mark.parametrize("model", MODELS)
def test_answers(model: str) -> None:
    rows = [row.values[0] for row in cases(TASK, model)]
    assert len(rows) > 80
    for case in rows:
        if model.endswith("-left") and any(name in case.call_arguments for name in RUNNER):
            continue
        case.check(answer(case), tolerance=3e-6)  # the fixtures are of another processor and torch


# transformers fails, and minitx answers: a window with less room than the stride, one text in a list, a
# question that max_question_len cuts off. A max_seq_len above the positions of the model is an error here.
ANSWERED = [
    case
    for case in cases(TASK, errors=True)
    if (
        case.values[0].call_arguments.get("max_seq_len") in (24, 40)
        and case.values[0].call_arguments.get("doc_stride") != 50
    )
    or "max_question_len" in case.values[0].call_arguments
    or case.values[0].call_arguments == {"question": "Who?", "context": ["a"]}
]


@pytest.mark.filterwarnings("ignore:doc_stride=")
@pytest.mark.parametrize("case", ANSWERED)
def test_answers_where_transformers_fails(case: Case) -> None:
    result = answer(case)
    for row in result if isinstance(result, list) else [result]:
        assert row


@pytest.mark.parametrize(
    "case", [case for case in cases(TASK, errors=True) if case.id not in {case.id for case in ANSWERED}]
)
def test_errors(case: Case) -> None:
    if case.call_arguments == {"question": [], "context": []}:
        assert answer(case) == []
        return
    with pytest.raises((TypeError, ValueError)):
        answer(case)


@pytest.mark.parametrize("seed", range(20))
def test_spans_are_those_of_document_question_answering(seed: int) -> None:
    torch.manual_seed(seed)
    start, end = 3 * torch.randn(2, 40)
    context = torch.arange(40).ge(5 + seed)
    allowed = context | torch.arange(40).eq(0)
    for top_k, most in ((1, 15), (4, 3), (12, 1), (10, 40)):
        starts, ends, scores, null = select_starts_ends(
            start[None].numpy(),
            end[None].numpy(),
            (~allowed)[None].numpy().astype(int),
            np.ones((1, 40), dtype=int),
            1e6,
            top_k,
            True,
            most,
        )
        first, last = span_probabilities(start, end, allowed)
        assert float(first[0] * last[0]) == pytest.approx(null, abs=1e-6)
        spans = best_spans(first, last, context, top_k=top_k, max_answer_len=most)
        assert [(span.first, span.last) for span in spans] == list(zip(starts, ends, strict=True))
        assert [span.score for span in spans] == pytest.approx(list(scores), abs=1e-6)
