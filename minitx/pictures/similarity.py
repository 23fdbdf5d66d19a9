"""Similarities of texts as a table in 80 columns; `pictures.py` draws them as a heat map."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional as F

from minitx.pictures.text import WIDTH, columns_of, shorten_line

MOST_COLUMNS = 10  # texts whose similarities fit beside a readable part of each text


def vectors_table(texts: Sequence[str], vectors: Tensor, highlight: Callable[[str], str] = str) -> str:
    """Formats the cosine similarities of (N, E) vectors of texts; of a single vector, its first numbers.

    Args:
        texts: N texts.
        vectors: of the texts.
        highlight: as for `similarity_table`.
    """
    if len(texts) == 1:
        numbers = ", ".join(f"{value:.4f}" for value in vectors[0, :6].tolist())
        return f"begins {numbers}, ..."
    units = F.normalize(vectors, dim=-1)
    return f"\nCosine similarity\n{similarity_table(texts, units @ units.T, highlight)}"


def similarity_table(texts: Sequence[str], similarity: Tensor, highlight: Callable[[str], str] = str) -> str:
    """Formats (N, N) similarities: a numbered text and a number per column.

    Args:
        texts: N texts.
        similarity: of each pair.
        highlight: marks the number of the most similar other text, such as with a colour.
    """
    size = len(texts)
    room = min(WIDTH - 5 - 5 * size, max(columns_of(shorten_line(text, WIDTH)) for text in texts))
    best = nearest(similarity)
    lines = [" " * (room + 5) + "".join(f"{i:>5}" for i in range(1, size + 1))]
    for i, text in enumerate(texts):
        cells = [similarity_cell(value, i == j) for j, value in enumerate(similarity[i].tolist())]
        if best[i] != i:
            cells[best[i]] = highlight(cells[best[i]])
        name = shorten_line(text, room)
        padding = " " * (room - columns_of(name))
        lines.append(f"{i + 1:>3}  {name}{padding}{''.join(cells)}".rstrip())
    return "\n".join(lines)


def similarity_cell(value: float, same: bool) -> str:
    """Formats a similarity in five columns: " .60", "-.04"; a dot for a text with itself."""
    if same:
        return "    ·"
    return f"{round(value, 2) + 0.0:.2f}".replace("0.", ".", 1).rjust(5)  # + 0.0: no "-.00"


def nearest(similarity: Tensor) -> list[int]:
    """Returns the index of the most similar other text for each; of a single text, itself."""
    indices: list[int] = similarity.clone().fill_diagonal_(float("-inf")).argmax(dim=1).tolist()
    return indices
