"""Sentence similarity: requests, vectors, searches and bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import minitx
from minitx.pipelines.embedding import similarity as module
from minitx.pipelines.embedding.similarity import search_nearest, similarity_matrix
from tests.parity.pipelines import LONG, TEXTS, close, folder
from tests.unit.pipelines.checks import check_order_and_batches

KINDS = ("cosine", "dot", "euclidean", "manhattan")


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = folder(tmp_path_factory.mktemp("similarity"), "bert", "AutoModel")
    return minitx.pipeline("sentence-similarity", path, device="cpu")


def test_batches_order_and_threads(pipe: Any) -> None:
    requests = [{"source_sentence": text, "sentences": list(TEXTS[:4])} for text in TEXTS]
    check_order_and_batches(pipe, requests)
    check_order_and_batches(pipe, [{"source_sentence": LONG, "sentences": ["a"]}], overflow="window")


def test_forms_of_requests(pipe: Any) -> None:
    others = list(TEXTS[1:5])
    scores = pipe("a cat", others)
    assert len(scores) == 4
    assert pipe(source_sentence="a cat", sentences=others) == scores
    assert pipe({"source_sentence": "a cat", "sentences": others}) == scores
    assert close(pipe(["a cat", "b"], [others, others[:1]]), [scores, pipe("b", others[:1])], 1e-5)
    assert pipe("a cat", []) == []
    assert len(scores.details.inputs) == 5
    assert pipe("a cat", ["a cat"]) == pytest.approx([1.0])


def test_vectors_are_those_of_embed(pipe: Any) -> None:
    texts = list(TEXTS)
    expected = minitx.embed(pipe.model, texts, pipe.tokenizer)
    torch.testing.assert_close(pipe.encode(texts), expected)
    torch.testing.assert_close(pipe.encode(texts[0]), expected[0])
    with pytest.warns(UserWarning, match="1 of 11 inputs of sentence-similarity were too long"):
        pipe.encode([*texts, LONG])
    assert pipe.encode([]).shape == (0, 24)
    torch.testing.assert_close(
        pipe.encode(texts, normalize=False), minitx.embed(pipe.model, texts, pipe.tokenizer, normalize=False)
    )
    prompted = minitx.embed(pipe.model, texts, pipe.tokenizer, prompt="cat: ")
    torch.testing.assert_close(pipe.encode(texts, prompt="cat: "), prompted)


def test_the_batch_size_of_a_call(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, forward = [], pipe.task.forward
    expected = (pipe.encode(TEXTS), pipe.similarity(TEXTS, TEXTS), pipe.search("a", TEXTS))
    monkeypatch.setattr(
        pipe.task, "forward", lambda rows, more: (sizes.append(len(rows)), forward(rows, more))[1]
    )
    results = (
        pipe.encode(TEXTS, batch_size=2),
        pipe.similarity(TEXTS, TEXTS, batch_size=2),
        pipe.search("a", TEXTS, batch_size=2),
    )
    assert max(sizes) == 2
    assert close(results[2], expected[2], 1e-5)
    for result, tensor in zip(results[:2], expected[:2], strict=True):
        torch.testing.assert_close(result, tensor)
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        pipe.search("a", TEXTS, batch_size=0)


@pytest.mark.parametrize("kind", ["euclidean", "manhattan"])
def test_distances_of_near_vectors(kind: Any) -> None:
    """More than 25 vectors had their distances from a matrix product, which loses those of near ones."""
    vectors = torch.nn.functional.normalize(torch.ones(30, 384), dim=-1)
    vectors[:, 0] += 1e-4 * torch.arange(30)
    expected = (vectors[:, None, 0] - vectors[None, :, 0]).abs().neg()
    torch.testing.assert_close(similarity_matrix(vectors, vectors, kind), expected, rtol=1e-5, atol=0)
    _, indices = search_nearest(vectors, vectors, kind, 2)
    assert indices[0].tolist() == [0, 1]


def test_a_long_text_is_the_mean_of_its_windows(pipe: Any) -> None:
    options = {"overflow": "window", "normalize": False}
    vector = pipe.encode(LONG, **options)
    request = {"source_sentence": LONG, "sentences": []}
    windows = pipe(request, **options).details.outputs
    assert len(windows) > 10
    torch.testing.assert_close(vector, torch.stack(windows).mean(dim=0))


def test_search(pipe: Any) -> None:
    corpus = list(TEXTS)
    hits = pipe.search("a cat", corpus, top_k=3)
    assert [hit.text for hit in hits] == [corpus[hit.corpus_id] for hit in hits]
    scores = pipe("a cat", corpus)
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores, reverse=True)[:3])
    vectors = pipe.encode(corpus)
    assert close(
        [{"corpus_id": h.corpus_id, "score": h.score} for h in hits], pipe.search("a cat", vectors, 3)
    )
    assert close(pipe.search(vectors[0], vectors.numpy(), 3), pipe.search(corpus[0], vectors, 3), 1e-5)
    assert len(pipe.search("a", corpus, top_k=100)) == len(corpus)
    assert [len(row) for row in pipe.search(["a", "b"], corpus)] == [10, 10]
    assert pipe.search("a", []) == []
    lines = str(hits).splitlines()
    assert lines[0] == "a cat"
    assert [line.split("  ")[0] for line in lines[1:]] == [" ".join(hit.text.split()) for hit in hits]
    assert pipe.search(vectors[0], vectors, 2).show().text().startswith("0   1.0000")
    assert pipe.search([], corpus) == []


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(0, 40), st.integers(1, 50), st.sampled_from(KINDS), st.integers(1, 60))
def test_a_search_in_parts_finds_the_nearest(
    queries: int, size: int, top_k: int, kind: Any, chunk: int
) -> None:
    torch.manual_seed(size)
    first, second = torch.randn(queries, 6), torch.randn(size, 6)
    before, module.CHUNK = module.CHUNK, chunk
    try:
        scores, indices = search_nearest(first, second, kind, top_k)
    finally:
        module.CHUNK = before
    matrix = similarity_matrix(first, second, kind)
    expected = matrix.topk(min(top_k, size), dim=1)
    torch.testing.assert_close(scores, expected.values)
    torch.testing.assert_close(matrix.gather(1, indices), expected.values)


@pytest.mark.parametrize(
    "request_",
    [
        "a",
        {"source_sentence": "a"},
        {"source_sentence": "a", "sentences": "b"},
        {"source_sentence": None, "sentences": ["b"]},
        {"source_sentence": "a", "sentences": ["b", None]},
        None,
        3,
        b"a",
        [["a"]],
    ],
)
def test_bad_requests(pipe: Any, request_: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"sentence|inputs"):
        pipe(request_)


def test_bad_options(pipe: Any) -> None:
    for options in ({"similarity": "l2"}, {"prompt": 3}, {"normalize": "no"}, {"prompt_name": "query"}):
        with pytest.raises((TypeError, ValueError), match=next(iter(options))):
            pipe("a", ["b"], **options)
        with pytest.raises((TypeError, ValueError), match=next(iter(options))):
            pipe.encode(["a"], **options)
    for texts in (None, [3], b"a", [["a"]]):
        with pytest.raises(TypeError, match="texts"):
            pipe.encode(texts)
    with pytest.raises(ValueError, match="of 24 features; are they of the same model"):
        pipe.search("a", torch.zeros(3, 5))
    with pytest.raises(ValueError, match="top_k=0 must be at least 1"):
        pipe.search("a", ["b"], top_k=0)
    with pytest.raises(ValueError, match="of shape"):
        pipe.search("a", torch.zeros(1, 3, 24))


def test_models_that_do_not_embed(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = folder(tmp_path_factory.mktemp("bart"), "bart", "AutoModel")
    with pytest.raises(ValueError, match="an encoder or a decoder"):
        minitx.pipeline("sentence-similarity", Path(path))
