"""Vectors of texts as a table of their similarities; `heatmap.py` draws similarities as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional as F

from minitx.pictures.grids import Matrix

MOST_COLUMNS = 10  # texts whose similarities fit beside a readable part of each text


def vectors_table(texts: Sequence[str], vectors: Tensor, highlight: Callable[[str], str] = str) -> str:
    """Formats the cosine similarities of (N, E) vectors of texts; of a single vector, its first numbers.

    Args:
        texts: N texts.
        vectors: of the texts.
        highlight: as for `Matrix.text`.
    """
    if len(texts) == 1:
        numbers = ", ".join(f"{value:.4f}" for value in vectors[0, :6].tolist())
        return f"begins {numbers}, ..."
    units = F.normalize(vectors, dim=-1)
    return f"\nCosine similarity\n{Matrix(texts, (units @ units.T).tolist()).text(highlight)}"


def nearest(similarity: Tensor) -> list[int]:
    """Returns the index of the most similar other text for each; of a single text, itself."""
    indices: list[int] = similarity.clone().fill_diagonal_(float("-inf")).argmax(dim=1).tolist()
    return indices
