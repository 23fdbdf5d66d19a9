"""All parts of the demonstration, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from minitx.checkpoint.load import load
from minitx.demo.families import answers, continuations, masks, pronunciations
from minitx.demo.part import Part, paragraph
from minitx.demo.picture import alignment, similarity_map
from minitx.demo.sentences import sentences
from minitx.models import Model
from minitx.pictures.drawings import Highlight
from minitx.pictures.figure import FORMATS
from minitx.pipelines import example_model
from minitx.tokenizer import Tokenizer, load_tokenizer
from minitx.validation import check_output


def tour(picture: str, highlight: Highlight) -> Iterator[Part]:
    """Yields the parts: the three families, sentences if their model is installed, and one picture.

    Args:
        picture: path of the picture.
        highlight: marks the important parts of texts.
    """
    check_output("picture", picture, FORMATS)
    for part in (masks, continuations, answers, pronunciations):
        with one_thread():
            computed = part(highlight)
        yield computed
    try:
        folder = example_model()
    except FileNotFoundError as error:
        yield Part(paragraph(f"No sentences: {error}"), {"sentences_problem": str(error)})
    else:
        yield from sentences(folder, "all-MiniLM-L6-v2", _read, highlight)
    with one_thread():
        drawn = alignment(picture)
    yield drawn


@contextmanager
def one_thread() -> Iterator[None]:
    """Computes with one thread: on models this small, threads of a busy machine only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def sentences_alone(
    folder: Path,
    name: str,
    read: Callable[[Path], tuple[Model, Tokenizer]],
    picture: str,
    highlight: Highlight,
) -> Iterator[Part]:
    """Yields the parts about sentences, and the picture of their similarities; arguments as `sentences`.

    `picture` is the path of the picture.
    """
    check_output("picture", picture, FORMATS)
    record: dict[str, Any] = {}
    for part in sentences(folder, name, read, highlight):
        record |= part.record
        yield part
    yield similarity_map(picture, record)


def _read(folder: Path) -> tuple[Model, Tokenizer]:
    """Loads the encoder in float32, and its tokenizer."""
    return load(folder, head="none", dtype="float32"), load_tokenizer(folder)
