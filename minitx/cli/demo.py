"""`minitx demo`: sentences, vectors, and which of them mean the same."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict

from minitx.cli.options import HUB, Argument, command, group
from minitx.cli.render import colored, emit, paragraph, show
from minitx.cli.source import Source
from minitx.extras import missing_extra

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


@command(
    Argument("model", "[MODEL]", "sentence embeddings; none: all-MiniLM-L6-v2"), *group("the model", *HUB)
)
def demo(source: Source, picture: str, json: bool) -> None:
    """Embeds sentences, and prints and draws their similarities."""
    from torch.nn import functional as F

    from minitx.inspect.compare.embeddings import compare_embeddings
    from minitx.pictures.grids import Matrix
    from minitx.pictures.heatmap import similarity_picture
    from minitx.pictures.similarity import nearest
    from minitx.pipelines import embed, embedding_settings, example_model
    from minitx.pipelines.embedding.vectors import check_finite

    started = time.perf_counter()
    name, source.dtype = source.name or "all-MiniLM-L6-v2", "float32"
    folder = source.folder() if source.name else example_model()
    model, tokenizer = source.model(folder, "none"), source.tokenizer(folder)
    settings, loaded = embedding_settings(folder), time.perf_counter()
    vectors = embed(model, SENTENCES, tokenizer, settings=settings)
    seconds = {"load": loaded - started, "embed": time.perf_counter() - loaded}
    check_finite(vectors)
    units = F.normalize(vectors, dim=-1)
    similarity, size = units @ units.T, sum(parameter.numel() for parameter in model.parameters())
    neighbours = nearest(similarity)
    if not json:
        show(paragraph(f"{name}: {size / 1e6:.1f} million parameters, loaded in {seconds['load']:.2f} s"))
        show(f"{len(SENTENCES)} sentences to vectors of {vectors.shape[1]} in {seconds['embed']:.2f} s\n")
        show("How alike they are (1.00: the same meaning, 0.00: unrelated)")
        show(Matrix(SENTENCES, similarity.tolist()).text(colored))
        show("\nNearest neighbours")
        for i, j in enumerate(neighbours):
            show(f"  {SENTENCES[i]:<34} ~ {SENTENCES[j]:<34} {float(similarity[i, j]):5.2f}")
        sys.stdout.flush()  # to import transformers takes seconds
    parity = compare_embeddings(folder, model, tokenizer, settings, SENTENCES, vectors)
    path = problem = None
    try:
        path = str(similarity_picture(similarity, SENTENCES, picture, title=f"Cosine similarity, {name}"))
    except ImportError as error:
        problem = str(error)
    result = {"model": name, "parameters": size, "seconds": seconds, "sentences": SENTENCES}
    result |= {"similarity": similarity.tolist(), "nearest": neighbours}
    result |= {"parity": parity and asdict(parity), "picture": path, "picture_problem": problem}
    compared = paragraph(str(parity or f"To compare minitx with transformers: {missing_extra('verify')}"))
    drawn = paragraph(f"Picture: {path}" if path else f"No picture: {problem}")
    emit(json, result, f"\n{compared}\n{drawn}")
