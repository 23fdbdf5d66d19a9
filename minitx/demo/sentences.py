"""Sentences as vectors, and which of them mean the same: all-MiniLM-L6-v2 or another encoder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from torch.nn import functional as F

from minitx.demo.part import Part, paragraph
from minitx.extras import missing_extra
from minitx.inspect.compare.embeddings import compare_embeddings
from minitx.models import Model
from minitx.pictures.drawings import Highlight
from minitx.pictures.grids import Matrix
from minitx.pictures.similarity import nearest
from minitx.pipelines import embed, embedding_settings
from minitx.pipelines.embedding.vectors import check_finite
from minitx.tokenizer import Tokenizer

# Four topics, each with a paraphrase that shares hardly a word, and a bank that is no bank.
SENTENCES = (
    "A cat sleeps on the sofa.",
    "The kitten is taking a nap.",
    "The bank raised interest rates.",
    "Credit just got expensive.",
    "A picnic on the river bank.",
    "Whisk two eggs into the flour.",
    "How do I make pancake batter?",
    "My code has an index error.",
    "It reads past the list's end.",
)


def sentences(
    folder: Path, name: str, read: Callable[[Path], tuple[Model, Tokenizer]], highlight: Highlight
) -> Iterator[Part]:
    """Yields the similarities of sentences, then the comparison with transformers, which takes seconds.

    Args:
        folder: of the checkpoint.
        name: of the checkpoint.
        read: loads the model, without a head, and its tokenizer.
        highlight: marks the largest similarities.
    """
    started = time.perf_counter()
    model, tokenizer = read(folder)
    settings, loaded = embedding_settings(folder), time.perf_counter()
    vectors = embed(model, SENTENCES, tokenizer, settings=settings)
    seconds = {"load": loaded - started, "embed": time.perf_counter() - loaded}
    check_finite(vectors)
    units = F.normalize(vectors, dim=-1)
    similarity = units @ units.T
    size = sum(parameter.numel() for parameter in model.parameters())
    lines = [
        paragraph(f"{name}: {size / 1e6:.1f} million parameters, loaded in {seconds['load']:.2f} s"),
        f"{len(SENTENCES)} sentences to vectors of {vectors.shape[1]} in {seconds['embed']:.2f} s\n",
        "How alike they are (1.00: the same meaning, 0.00: unrelated)",
        Matrix(SENTENCES, similarity.tolist()).text(highlight),
        "\nNearest neighbours",
    ]
    neighbours = nearest(similarity)
    for i, j in enumerate(neighbours):
        lines.append(f"  {SENTENCES[i]:<34} ~ {SENTENCES[j]:<34} {float(similarity[i, j]):5.2f}")
    record = {"model": name, "parameters": size, "seconds": seconds, "sentences": SENTENCES}
    yield Part("\n".join(lines), record | {"similarity": similarity.tolist(), "nearest": neighbours})
    parity = compare_embeddings(folder, model, tokenizer, settings, SENTENCES, vectors)
    missing = f"To compare minitx with transformers: {missing_extra('verify')}"
    yield Part(paragraph(str(parity or missing)), {"parity": parity and asdict(parity)})
