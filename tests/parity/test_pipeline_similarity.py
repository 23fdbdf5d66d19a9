"""Sentence similarity: vectors, similarities and searches of sentence-transformers."""

from __future__ import annotations

from itertools import islice, permutations
from pathlib import Path
from typing import Any

import pytest
import sentence_transformers as ST
import torch
from sentence_transformers.sentence_transformer import modules as st
from torch import nn

import minitx
from minitx.inspect.compare.reference import quiet
from tests.parity.pipelines import LONG, TEXTS, close, folder
from tests.real import MINILM

pytestmark = pytest.mark.filterwarnings("ignore")
KINDS = ("bert", "roberta", "albert", "t5")
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
PROMPTS = {"query": "search: ", "document": "text: "}
SENTENCES = [*TEXTS, LONG]
QUERIES = ["Where does the cat sleep?", "interest rates", "a film that I like"]


@pytest.fixture(scope="module")
def folders(root: Path) -> dict[str, Path]:
    """Different poolings, modules and similarities, in folders that sentence-transformers writes."""
    ways = zip(KINDS, ("mean", "cls", ["mean", "max"], "weightedmean"), SIMILARITIES, strict=True)
    folders = {}
    for kind, pooling, similarity in ways:
        with quiet():
            transformer = st.Transformer(str(folder(root, kind, "AutoModel")))
            width = transformer.get_embedding_dimension()
            modules: list[Any] = [transformer, st.Pooling(width, pooling, include_prompt=kind != "roberta")]
            if kind == "bert":
                modules += [st.Dense(width, 16), st.Normalize()]
            torch.manual_seed(0)
            model = ST.SentenceTransformer(
                modules=modules, device="cpu", similarity_fn_name=similarity, prompts=PROMPTS
            )
            folders[kind] = root / f"st-{kind}"
            model.save(str(folders[kind]), create_model_card=False)
    return folders


def encoder(place: Path) -> Any:
    with quiet():
        return ST.SentenceTransformer(str(place), device="cpu", local_files_only=True)


def near(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected.clone(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_those_of_sentence_transformers(kind: str, folders: dict[str, Path]) -> None:
    model = encoder(folders[kind])
    pipe = minitx.pipeline("sentence-similarity", folders[kind], device="cpu")
    tensors = {"convert_to_tensor": True, "show_progress_bar": False}
    vectors = model.encode(SENTENCES, **tensors)
    near(pipe.encode(SENTENCES), vectors)
    near(pipe.encode(SENTENCES[0]), vectors[0])
    near(pipe.encode(SENTENCES, prompt_name="query"), model.encode(SENTENCES, prompt_name="query", **tensors))
    near(pipe.encode(SENTENCES, prompt="cat "), model.encode(SENTENCES, prompt="cat ", **tensors))
    normal = model.encode(SENTENCES, normalize_embeddings=True, **tensors)
    near(pipe.encode(SENTENCES, normalize=True), normal)
    near(pipe.similarity(SENTENCES, SENTENCES), model.similarity(vectors, vectors))
    request = {"source_sentence": SENTENCES[0], "sentences": SENTENCES[1:]}
    for size in (1, 8):
        sized = minitx.pipeline("sentence-similarity", folders[kind], device="cpu", batch_size=size)
        scores = sized(request)
        assert isinstance(scores, list)
        near(torch.tensor(scores), model.similarity(vectors[:1], vectors[1:])[0])
        assert close(sized([request, request]), [scores, scores], 1e-5)
    for similarity in SIMILARITIES:
        model.similarity_fn_name = similarity
        scores = pipe(SENTENCES[0], SENTENCES[1:], similarity=similarity)
        near(torch.tensor(scores), model.similarity(vectors[:1], vectors[1:])[0])
    queries = model.encode_query(QUERIES, **tensors)
    documents = model.encode_document(SENTENCES, **tensors)
    score = {"score_function": ST.util.cos_sim}
    expected = ST.util.semantic_search(queries, documents, top_k=4, **score)
    found = pipe.search(QUERIES, SENTENCES, top_k=4, similarity="cosine")
    texts = [[hit | {"text": SENTENCES[hit["corpus_id"]]} for hit in hits] for hits in expected]
    assert close(found, texts, 1e-5)
    assert close(pipe.search(QUERIES, documents, top_k=4, similarity="cosine"), expected, 1e-5)
    assert close(pipe.search(queries.numpy(), documents.numpy(), 4, similarity="cosine"), expected, 1e-5)
    assert close(pipe.search(QUERIES[0], SENTENCES, 4, similarity="cosine"), texts[0], 1e-5)


def test_search_of_all_minilm_over_1000_sentences() -> None:
    sentence = "cat dog bank river rate film loves sleeps sofa credit interest picnic music code error"
    corpus = [" ".join(chosen) for chosen in islice(permutations(sentence.split(), 3), 0, 2000, 2)]
    model = encoder(MINILM)
    pipe = minitx.pipeline("sentence-similarity", MINILM, device="cpu")
    vectors = model.encode(corpus, convert_to_tensor=True, show_progress_bar=False)
    found = pipe.encode(corpus)
    near(found, vectors)
    expected = ST.util.semantic_search(model.encode(QUERIES, convert_to_tensor=True), vectors, top_k=20)
    assert close(pipe.search(QUERIES, found, top_k=20), expected)


def test_the_task_is_that_of_the_folder(folders: dict[str, Path]) -> None:
    assert minitx.pipeline(model=MINILM).task.spec.name == "sentence-similarity"
    dense = minitx.pipeline(model=folders["bert"])
    assert isinstance(dense.task.settings(dense.options).modules[0], nn.Module)
