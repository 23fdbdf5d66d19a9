"""Question answering: ways to give requests, windows, spans, and bad input."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import minitx
from minitx.habits import UnknownArgumentError
from minitx.pipelines.postprocess.spans import best_spans, merge_answers, rank_answers, span_probabilities
from tests.parity.pipelines import LIMIT, LONG, TEXTS, close, folder
from tests.unit.pipelines.checks import check_order_and_batches
from tests.unit.pipelines.folders import bert_folder

QUESTION, CONTEXT = "Where did Angela Merkel go?", TEXTS[3]
REQUEST = {"question": QUESTION, "context": CONTEXT}


@pytest.fixture(scope="module", params=["bert", "roberta", "bart"])
def pipe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = folder(tmp_path_factory.mktemp("qa"), request.param, "AutoModelForQuestionAnswering")
    return minitx.pipeline("question-answering", path, device="cpu")


def test_batches_order_and_threads(pipe: Any) -> None:
    contexts = [text for text in TEXTS if text]
    requests = [{"question": text[::-1], "context": text} for text in contexts]
    requests.append({"question": QUESTION, "context": LONG[:3000]})
    check_order_and_batches(pipe, requests, top_k=2)


def test_ways_to_give_requests(pipe: Any) -> None:
    answer = pipe(question=QUESTION, context=CONTEXT)
    assert list(answer) == ["score", "start", "end", "answer"]
    assert answer.answer == CONTEXT[answer.start : answer.end]
    example = SimpleNamespace(question_text=QUESTION, context_text=CONTEXT)
    for inputs in (REQUEST, [REQUEST], example, [example]):
        assert pipe(inputs) == answer
    assert pipe(QUESTION, CONTEXT) == answer
    assert pipe(question=[QUESTION], context=CONTEXT) == answer
    assert close(pipe([REQUEST, REQUEST]), [answer, answer])
    assert close(pipe(REQUEST, example), [answer, answer])
    assert close(pipe(question=[QUESTION, QUESTION], context=CONTEXT), [answer, answer])
    assert close(list(pipe(iter([REQUEST, example]))), [answer, answer])
    assert pipe([]) == []


def test_a_context_without_tokens(tmp_path: Path) -> None:
    """The answer is that of transformers 4.57.6."""
    path = bert_folder(tmp_path / "model", "question-answering")
    pipe = minitx.pipeline("question-answering", path)
    none = {"score": 0.0, "start": 0, "end": 0, "answer": ""}
    for top_k in (1, 2):
        assert pipe(question="who?", context=" \n", top_k=top_k) == none
    answer = pipe(question="who?", context=" \n", handle_impossible_answer=True)
    assert answer == none | {"score": pytest.approx(1.0)}


def test_several_answers(pipe: Any) -> None:
    answers = pipe(**REQUEST, top_k=5)
    assert len(answers) == 5
    scores = [answer.score for answer in answers]
    assert scores == sorted(scores, reverse=True)
    assert len({answer.answer.lower() for answer in answers}) == 5
    impossible = pipe(**REQUEST, top_k=1000, handle_impossible_answer=True)
    assert [(a.start, a.end) for a in impossible if a.answer == ""] == [(0, 0)]
    nothing = pipe(question="a", context=" ")  # a space is a token of some tokenizers
    assert nothing == [] or nothing.answer == ""


def listed(answers: Any) -> list[Any]:
    """Several answers; a single one is a dict, and how many differ depends on the trained vocabulary."""
    return answers if isinstance(answers, list) else [answers]


def test_words_and_length(pipe: Any) -> None:
    text = "unaffable tokenization of antidisestablishmentarianism"
    starts = {match for match in range(len(text)) if match == 0 or text[match - 1] == " "}
    for answer in listed(pipe(question="a", context=text, top_k=8)):
        assert answer.start in starts
        assert answer.end == len(text) or text[answer.end] == " "
    tokens = pipe.tokenizer(text, return_offsets=True, add_special_tokens=False, as_tensors=False).offsets[0]
    options = {"top_k": 8, "align_to_words": False, "max_answer_len": 1}
    for answer in listed(pipe(question="a", context=text, **options)):
        assert (answer.start, answer.end) in tokens


def test_windows(pipe: Any) -> None:
    answer = pipe(question=QUESTION, context=LONG[:3000], max_seq_len=40, doc_stride=8)
    windows = answer.details.inputs
    assert len(windows) > 5
    assert all(len(window) <= 40 for window in windows)
    assert answer.details.outputs[0].shape == (2, len(windows[0]))
    same = pipe(question=QUESTION, context=LONG[:3000], max_length=40, stride=8)
    assert same == answer
    # a window's outputs are those of the window alone
    first = pipe(question=QUESTION, context=LONG[:900], max_seq_len=40, doc_stride=8)
    assert torch.allclose(first.details.outputs[0], answer.details.outputs[0], atol=1e-4)


def test_overflow(pipe: Any) -> None:
    request = {"question": QUESTION, "context": LONG}
    with pytest.warns(UserWarning, match="1 of 1 inputs of question-answering were too long"):
        answer = pipe(request, overflow="truncate")
    assert len(answer.details.inputs) == 1
    with pytest.raises(ValueError, match=f"of at most {LIMIT} tokens"):
        pipe(request, overflow="error")
    with pytest.raises(ValueError, match="max_question_len=64"):
        pipe(question=LONG, context=CONTEXT)
    with pytest.raises(ValueError, match="max_seq_len=5 must be more than"):
        pipe(**REQUEST, max_seq_len=5)
    long = pipe(question=LONG, context=CONTEXT, max_question_len=20)
    count = len(long.details.inputs[0]) - len(pipe(**REQUEST, max_seq_len=LIMIT).details.inputs[0])
    assert count == 20 - len(pipe.tokenizer.encode(QUESTION)) + 2
    # a question that leaves less room than the stride
    assert pipe(question=LONG, context=LONG, max_question_len=100).answer


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ("a question", {}, "context"),
        (None, {}, "one argument"),
        ({"question": "a"}, {}, "context"),
        ({"question": "", "context": "a"}, {}, "question=''"),
        ({"question": "a", "context": ""}, {}, "context=''"),
        ({"question": "a", "context": b"a"}, {}, "a string"),
        ({"question": "a", "text": "a"}, {}, "left out"),
        ([["a", "b"], ["c", "d"]], {}, "question"),
        (REQUEST, {"top_k": 0}, "top_k=0"),
        (REQUEST, {"max_answer_len": 0}, "max_answer_len=0"),
        (REQUEST, {"doc_stride": 40, "max_seq_len": 30}, "doc_stride=40"),
        (REQUEST, {"doc_stride": 4, "stride": 5}, "the same option"),
        (REQUEST, {"max_seq_len": 30, "max_length": 30}, "the same option"),
        (REQUEST, {"max_question_len": 0}, "max_question_len=0"),
        (REQUEST, {"align_to_words": "yes"}, "align_to_words"),
    ],
)
def test_bad_input(pipe: Any, inputs: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        pipe(*([] if inputs is None else [inputs]), **options)


@pytest.mark.parametrize(
    ("name", "hint"), [("topk", "top_k"), ("data", "question="), ("padding", "leave it")]
)
def test_arguments_of_transformers(pipe: Any, name: str, hint: str) -> None:
    with pytest.raises(UnknownArgumentError, match=hint):
        pipe(REQUEST, **{name: 1})


# --- pure functions ------------------------------------------------------------------------------------


@given(
    rows=st.lists(st.tuples(st.floats(-4, 4), st.floats(-4, 4), st.booleans()), min_size=1, max_size=12),
    top_k=st.integers(1, 20),
    most=st.integers(1, 14),
)
def test_best_spans_are_the_best_of_all(rows: list[tuple[float, float, bool]], top_k: int, most: int) -> None:
    candidates = torch.tensor([row[2] for row in rows])
    start, end = span_probabilities(
        torch.tensor([row[0] for row in rows]), torch.tensor([row[1] for row in rows]), candidates
    )
    spans = best_spans(start, end, candidates, top_k=top_k, max_answer_len=most)
    every = [
        float(start[i] * end[j])
        for i in range(len(rows))
        for j in range(i, min(i + most, len(rows)))
        if candidates[i] and candidates[j]
    ]
    assert [span.score for span in spans] == pytest.approx(sorted(every, reverse=True)[:top_k])
    for span in spans:
        assert 0 <= span.last - span.first < most
        assert math.isclose(span.score, float(start[span.first] * end[span.last]), rel_tol=1e-6)


def test_probabilities_are_of_the_allowed_tokens() -> None:
    allowed = torch.tensor([False, True, True])
    start, end = span_probabilities(torch.tensor([9.0, 1.0, 1.0]), torch.tensor([9.0, 0.0, 0.0]), allowed)
    assert start.tolist() == end.tolist() == [0.0, 0.5, 0.5]
    assert best_spans(start[:0], end[:0], allowed[:0], top_k=3, max_answer_len=4) == []


def test_answers_of_the_same_text_are_merged() -> None:
    answers = [{"answer": text, "score": score} for text, score in (("A", 0.2), ("b", 0.3), ("a", 0.25))]
    merged = merge_answers(answers)
    assert merged == [{"answer": "A", "score": 0.45}, {"answer": "b", "score": 0.3}]
    assert answers[0]["score"] == 0.2
    assert rank_answers(answers, 2) == [answers[1], answers[2]]
