"""`minitx embed`: texts to vectors."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minitx.cli.options import HUB, MODEL, TEXTS, Weights, command
from minitx.cli.render import colored, emit, paragraph, progress_bar
from minitx.cli.source import Source, read_texts

if TYPE_CHECKING:
    from torch import Tensor

    from minitx.pipelines import EmbeddingSettings


@command(MODEL, TEXTS, *Weights.options(*HUB, "dtype", "device"))
def embed(source: Source, texts: tuple[str, ...], file: str | None, json: bool, **values: Any) -> None:
    """Turns each text into one vector, with the pooling and normalization of the
    checkpoint's sentence-transformers files (without them: mean of the tokens,
    length 1). Texts come from the command line, from --file, or, one per line, from
    stdin.

    A few texts are shown as a table of their cosine similarities; for more of them
    choose --output or --json.

    --file PATH  a text file, one text per line
    --output PATH  .npy, .safetensors or .json file for the vectors
    --pooling mean|first|pooler  how (default: the checkpoint's)
    --normalize/--no-normalize  length 1 or not (default: the checkpoint's)
    --max-length COUNT  tokens per text; the rest is cut
    --batch-size COUNT  texts per batch (default: 32)

    examples:
      minitx embed ./my-model "A cat sleeps." "A kitten naps." "Rates rose."
      minitx embed ./my-model --file lines.txt --output vectors.npy
      cat lines.txt | minitx embed ./my-model --json
    """
    from minitx.inspect.similarity import MOST_COLUMNS
    from minitx.pipelines import embedding_settings
    from minitx.pipelines.text import embed as pipeline
    from minitx.pipelines.text.vectors import check_finite, check_path, write_vectors

    output, batch_size = values.pop("output"), values.pop("batch_size")
    path = None if output is None else check_path(Path(output))
    lines = read_texts(texts, file)
    if len(lines) > MOST_COLUMNS and path is None and not json:
        many = f"{len(lines)} texts do not fit into a table"
        raise ValueError(f"{many}; write the vectors with --output FILE or --json.")
    folder = source.folder()
    stated = {name: value for name, value in values.items() if value is not None}
    settings = replace(embedding_settings(folder), **stated)
    tokenizer, architecture = source.tokenizer(folder), source.architecture(folder)
    pipeline.check_room(tokenizer, settings.max_length)
    model = source.model(folder, "none" if architecture is None else architecture.headless[-1])
    with progress_bar(len(lines), "embedding", "text", quiet=source.quiet) as progress:
        options: dict[str, Any] = {"settings": settings, "batch_size": batch_size, "progress": progress}
        vectors = pipeline.embed(model, tokenizer, lines, **options).cpu()
    check_finite(vectors)
    result = {"model": source.name, **asdict(settings), "texts": lines}
    size = f"{len(lines)} vector{'s' * (len(lines) > 1)} of {vectors.shape[1]} numbers"
    if path is None:
        shown = "" if json else f"{size} {table(lines, vectors, settings)}"
        emit(json, result | {"embeddings": vectors.tolist()}, shown)
        return
    write_vectors(path, vectors, result)
    emit(json, result | {"output": output, "shape": list(vectors.shape)}, f"{size} in {path}")


def table(texts: list[str], vectors: Tensor, settings: EmbeddingSettings) -> str:
    """The similarities of several texts, or the first numbers of a single vector."""
    from torch.nn import functional as F

    from minitx.inspect.similarity import similarity_table

    kind = f"({settings.pooling} pooling{', length 1' * settings.normalize})"
    if len(texts) == 1:
        numbers = ", ".join(f"{value:.4f}" for value in vectors[0, :6].tolist())
        return f"{kind}\n" + paragraph(f"begins {numbers}, ...; --json or --output gives all of it")
    units = F.normalize(vectors, dim=-1)
    return f"{kind}\n\nCosine similarity\n{similarity_table(texts, units @ units.T, colored)}"
