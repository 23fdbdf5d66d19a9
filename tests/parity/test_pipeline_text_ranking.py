"""Text ranking: `CrossEncoder.rank` of sentence-transformers, with folders that it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sentence_transformers as ST
from torch import nn

import minitx
from minitx.inspect.compare.reference import quiet
from tests.parity.pipelines import LONG, TEXTS, close, folder

pytestmark = pytest.mark.filterwarnings("ignore")
KINDS = ("bert", "roberta", "distilbert", "albert")
QUERIES = ["Where does the cat sleep?", "", "東京"]


@pytest.fixture(scope="module")
def folders(root: Path) -> dict[str, Path]:
    head = "AutoModelForSequenceClassification"
    return {kind: folder(root, kind, head, num_labels=1) for kind in KINDS}


def encoder(place: Path, **options: Any) -> Any:
    with quiet():
        return ST.CrossEncoder(str(place), device="cpu", local_files_only=True, **options)


def same(ours: Any, theirs: Any, whole: Any = None) -> bool:
    """Whether two rankings are equal; documents whose scores differ by rounding may change places.

    Args:
        ours, theirs: a ranking, or several.
        whole: the ranking of all documents, of which the others are the best.
    """
    if theirs and isinstance(theirs[0], list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    known = {row["corpus_id"]: row for row in whole or theirs}
    ranks = close([row["score"] for row in ours], [row["score"] for row in theirs])
    return ranks and all(close(row, known[row["corpus_id"]]) for row in ours)


def check(place: Path, **options: Any) -> None:
    model = encoder(place)
    pipe = minitx.pipeline("text-ranking", place, device="cpu", **options)
    documents = [*TEXTS, LONG]
    for query in QUERIES:
        expected = model.rank(query, documents, return_documents=True)
        assert same(pipe(query, documents), expected)
        assert same(pipe(query=query, documents=documents, top_k=3), expected[:3], expected)
        numbers = model.rank(query, documents)
        assert same(pipe({"query": query, "documents": documents}, return_documents=False), numbers)
    requests = [{"query": query, "documents": documents[:4]} for query in QUERIES]
    rankings = [model.rank(query, documents[:4], return_documents=True) for query in QUERIES]
    for size in (1, 8):
        sized = minitx.pipeline("text-ranking", place, device="cpu", batch_size=size)
        assert same(sized(requests), rankings)
        assert same(sized(QUERIES, [documents[:4]] * 3), rankings)


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_those_of_sentence_transformers(kind: str, folders: dict[str, Path]) -> None:
    check(folders[kind])


@pytest.mark.parametrize("activation", [nn.Identity(), nn.Sigmoid(), nn.Tanh()])
def test_the_activation_is_that_of_the_files(
    activation: nn.Module, folders: dict[str, Path], tmp_path: Path
) -> None:
    """In config_sentence_transformers.json, and in config.json as two older versions write it."""
    model = encoder(folders["bert"], activation_fn=activation)
    model.save_pretrained(str(tmp_path / "new"), create_model_card=False)
    check(tmp_path / "new")
    path = f"{type(activation).__module__}.{type(activation).__name__}"
    forms: list[dict[str, Any]] = [
        {"sentence_transformers": {"activation_fn": path}},
        {"sbert_ce_default_activation_function": path},
    ]
    for number, form in enumerate(forms):
        place = tmp_path / str(number)
        place.mkdir()
        for file in folders["bert"].iterdir():
            (place / file.name).write_bytes(file.read_bytes())
        config = json.loads((place / "config.json").read_text())
        (place / "config.json").write_text(json.dumps(config | form))
        check(place)


def test_prompts_are_those_of_the_files(folders: dict[str, Path], tmp_path: Path) -> None:
    prompts = {"query": "search: ", "web": "the web "}
    model = encoder(folders["roberta"], prompts=prompts, default_prompt_name="query")
    model.save_pretrained(str(tmp_path), create_model_card=False)
    check(tmp_path)
    pipe = minitx.pipeline("text-ranking", tmp_path, device="cpu")
    assert pipe.task.spec.name == minitx.pipeline(model=tmp_path, device="cpu").task.spec.name
    for options in ({"prompt_name": "web"}, {"prompt": "cat "}):
        expected = encoder(tmp_path).rank("a", list(TEXTS), return_documents=True, **options)
        assert close(pipe("a", list(TEXTS), **options), expected)
