"""Pipelines and `embed` compute no padding on a CPU, and their results are those of padded batches."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

import minitx
from minitx.layers.stack import Stack
from minitx.optimize.unpadded import computes_no_padding
from minitx.pipelines.task import Task
from tests.unit.pipelines.every_task import REQUESTS, folder_for

WORDS = ["the", "cat", "sat", "a", "dog", "good", "bad", "the", "the", "cat"]
TEXTS = [" ".join(WORDS[:count]) for count in (4, 1, 5, 3, 3, 6, 2)]
INPUTS: dict[str, Any] = {
    "text-classification": TEXTS,
    "token-classification": TEXTS,
    "question-answering": [{"question": "a cat?", "context": text} for text in TEXTS],
    "fill-mask": [f"{text} [MASK]" for text in TEXTS],
    "feature-extraction": TEXTS,
    "sentence-similarity": {"source_sentence": "the cat", "sentences": TEXTS},
    "text-ranking": {"query": "a cat", "documents": TEXTS},
    "zero-shot-classification": [{"sequence": text, "candidate_labels": ["good", "bad"]} for text in TEXTS],
    "table-question-answering": [REQUESTS["table-question-answering"]] * 2,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the hidden states that enter a stack."""
    seen: list[tuple[int, ...]] = []
    forward = Stack.forward

    def _forward(stack: Stack, hidden: torch.Tensor, *others: Any, **options: Any) -> torch.Tensor:
        seen.append(tuple(hidden.shape[:2]))
        return forward(stack, hidden, *others, **options)

    monkeypatch.setattr(Stack, "forward", _forward)
    return seen


def pad_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets pipelines and `embed` run padded batches."""
    for name in ("task", "text.fill_mask", "embedding.embed"):
        module = import_module(f"minitx.pipelines.{name}")
        monkeypatch.setattr(module, "without_padding", lambda model: model)


def close(one: Any, two: Any) -> bool:
    """Whether two results are equal up to the rounding of float32."""
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(close(one[name], two[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(close, one, two))
    return bool(one == pytest.approx(two, abs=1e-5) if isinstance(one, float) else one == two)


@pytest.mark.parametrize("task", INPUTS)
def test_results_are_those_of_padded_batches(
    task: str, root: Path, shapes: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = minitx.pipeline(task, folder_for(task, root), device=-1, dtype="float32")
    results = pipe(INPUTS[task])
    assert shapes
    assert task == "table-question-answering" or {shape[0] for shape in shapes} == {1}
    assert not computes_no_padding(pipe.model)  # which stays as it was
    tokens = sum(batch * time for batch, time in shapes)
    shapes.clear()
    pad_again(monkeypatch)
    padded = pipe(INPUTS[task])
    assert close(padded, results)
    assert tokens <= sum(batch * time for batch, time in shapes)


def test_embed_computes_no_padding(
    root: Path, shapes: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_for("feature-extraction", root)
    model, tokenizer = minitx.load(folder, dtype="float32"), minitx.load_tokenizer(folder)
    vectors = minitx.embed(model, TEXTS, tokenizer, batch_size=4)
    assert {shape[0] for shape in shapes} == {1}
    assert sum(time for _, time in shapes) == int(tokenizer(TEXTS, padding=True)["attention_mask"].sum())
    pad_again(monkeypatch)
    assert torch.allclose(minitx.embed(model, TEXTS, tokenizer), vectors, rtol=0, atol=1e-5)


def test_a_watched_model_sees_padded_batches(root: Path, shapes: list[tuple[int, ...]]) -> None:
    pipe = minitx.pipeline("text-classification", folder_for("text-classification", root), device=-1)
    seen: list[int] = []
    handle = pipe.model.encoder.layers[0].register_forward_hook(lambda *args: seen.append(len(args[2])))
    pipe(TEXTS)
    handle.remove()
    assert max(seen) > 1
    assert max(batch for batch, _ in shapes) > 1


def test_a_single_text_runs_on_the_model_itself(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = minitx.pipeline("token-classification", folder_for("token-classification", root), device=-1)
    calls: list[Any] = []
    monkeypatch.setattr(import_module(Task.__module__), "without_padding", calls.append)
    item = pipe.task.preprocess({"text": "the cat"}, pipe.options)
    pipe.task.forward(item, pipe.options)
    assert not calls
