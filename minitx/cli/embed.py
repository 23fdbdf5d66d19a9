"""`minitx embed`: texts to vectors."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minitx.cli import options, render
from minitx.cli.options import option
from minitx.cli.source import Source, read_texts

if TYPE_CHECKING:
    from torch import Tensor

    from minitx.pipelines import EmbeddingSettings
    from minitx.tokenizer import Tokenizer


@options.as_command(
    *(options.MODEL, options.texts(), options.FILE),
    option("--output PATH", ".npy, .safetensors or .json file for the vectors"),
    option(
        "--pooling NAME", "mean, first or pooler (default: the checkpoint's)", ("mean", "first", "pooler")
    ),
    option("--normalize/--no-normalize", "length 1 or not (default: the checkpoint's)"),
    option("--max-length N", "tokens per text; the rest is cut", options.positive),
    options.batch_size(32),
    *(*options.HUB, options.DTYPE, options.DEVICE),
)
def command(
    source: Source, texts: tuple[str, ...], file: str | None, output: str | None, batch_size: int, json: bool,
    **settings: Any,
) -> None:  # fmt: skip
    """Turns each text into one vector, with the pooling and normalization of the
    checkpoint's sentence-transformers files (without them: mean of the tokens,
    length 1). Texts come from the command line, from --file, or, one per line, from
    stdin.

    A few texts are shown as a table of their cosine similarities; for more of them
    choose --output or --json.

    examples:
      minitx embed ./my-model "A cat sleeps." "A kitten naps." "Rates rose."
      minitx embed ./my-model --file lines.txt --output vectors.npy
      cat lines.txt | minitx embed ./my-model --json
    """
    from minitx.pipelines.text.vectors import write_vectors

    path = None if output is None else checked_output(Path(output))
    lines = read_texts(texts, file)
    if len(lines) > render.MOST_COLUMNS and path is None and not json:
        raise ValueError(
            f"{len(lines)} texts do not fit into a table; write the vectors with --output FILE or --json."
        )
    source.check_device()
    vectors, used = embedded(source, lines, batch_size, settings)
    result = {"model": source.name, **asdict(used), "texts": lines}
    if path is not None:
        write_vectors(path, vectors, result)
    if json:
        place = {"output": str(path), "shape": list(vectors.shape)}
        render.print_json(result | (place if path is not None else {"embeddings": vectors.tolist()}))
    elif path is not None:
        print(f"{sizes(vectors)} in {path}")
    else:
        show(lines, vectors, used)


def checked_output(path: Path) -> Path:
    """Returns the path if vectors can be written there; checked before any work.

    Raises:
        ValueError: another kind of file.
        FileNotFoundError, IsADirectoryError, PermissionError: about its folder.
    """
    from minitx.pipelines.text.vectors import FORMATS, import_numpy

    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"--output {path}: vectors are written to {', '.join(FORMATS)} files.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--output {path}: there is no folder {path.parent}.")
    if path.is_dir():
        raise IsADirectoryError(f"--output {path}: this is a folder; expected a file.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"--output {path}: nothing can be written into {path.parent}.")
    if path.suffix.lower() != ".json":
        import_numpy()
    return path


def embedded(
    source: Source, texts: list[str], batch_size: int, changes: dict[str, Any]
) -> tuple[Tensor, EmbeddingSettings]:
    """Returns the vectors on the CPU, and the settings: the checkpoint's with the changes."""
    from minitx.pipelines import embed, embedding_settings
    from minitx.pipelines.text.vectors import check_finite

    folder = source.folder()
    stated = {name: value for name, value in changes.items() if value is not None}
    settings = replace(embedding_settings(folder), **stated)
    tokenizer = source.tokenizer(folder)
    check_length(settings.max_length, tokenizer)
    architecture = source.architecture(folder)
    model = source.model(folder, "none" if architecture is None else architecture.headless[-1])
    with render.progress_bar(len(texts), "embedding", "text", quiet=source.quiet) as progress:
        vectors = embed(
            model, tokenizer, texts, settings=settings, batch_size=batch_size, progress=progress
        ).cpu()
    check_finite(vectors)
    return vectors, settings


def check_length(length: int | None, tokenizer: Tokenizer) -> None:
    """Raises ArgumentValueError if the special tokens alone have that many tokens."""
    from minitx.validation import ArgumentValueError

    special = tokenizer([""])["input_ids"].shape[1]
    if length is not None and length <= special:
        hint = f"the tokenizer adds {special} special tokens to each text"
        raise ArgumentValueError("max_length", length, f"at least {special + 1}", hint)


def show(texts: list[str], vectors: Tensor, settings: EmbeddingSettings) -> None:
    """Prints the similarities of several texts, or the first numbers of a single vector."""
    from torch.nn import functional as F

    length = ", length 1" if settings.normalize else ""
    render.say(f"{sizes(vectors)} ({settings.pooling} pooling{length})")
    if len(texts) == 1:
        numbers = ", ".join(f"{value:.4f}" for value in vectors[0, :6].tolist())
        render.say(f"begins {numbers}, ...; --json or --output gives all of it")
        return
    units = F.normalize(vectors, dim=-1)
    print(f"\nCosine similarity\n{render.similarity_table(texts, units @ units.T)}")


def sizes(vectors: Tensor) -> str:
    """The shape in words: 3 vectors of 384 numbers."""
    count, size = vectors.shape
    return f"{count} vector{'s' if count > 1 else ''} of {size} numbers"
