"""Similarities, attention weights and any other matrix as heat maps, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from minitx.pictures.drawings import check_drawing_path
from minitx.pictures.figure import import_figure
from minitx.pictures.layout import shorten, width_of
from minitx.pictures.maps import Map, Maps, Mosaic, Scale, contrast
from minitx.pictures.picture import Picture, compose
from minitx.validation import (
    ArgumentValueError,
    check_optional_strings,
    check_shape,
    check_strings,
    check_tensor,
    check_type,
)

COLORS = "cividis"  # readable with any colour vision; its brightness rises evenly
MOST_VALUES = 16  # with more rows, numbers in the cells would be unreadable
MOST_LABELS = 60
LABEL_ROOM = 3.4  # inches of a label in 10 points


def similarity_picture(
    similarity: Tensor, labels: Sequence[str], path: str | Path | None = None, *, title: str | None = None
) -> Picture:
    """Draws a matrix of similarities as a heat map.

    matplotlib's settings and current figure are not changed, and no window opens.

    Args:
        similarity: (N, N), values up to 1.
        labels: N texts; long ones are shortened.
        path: a .png, .svg or .html file to write; None: none.
        title: title above the picture.

    Returns:
        The picture, which a notebook shows; its `save` writes it.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: not a square matrix with one label per row, or another file type.
    """
    path = check_texts(title, path, labels=labels)
    check_shape("similarity", similarity, (len(labels), len(labels)), like="labels")
    figure = draw(similarity.detach().double().cpu().tolist(), list(labels), title)
    return saved(Picture(figure, title or "Similarities"), path)


def saved(picture: Picture, path: Path | None) -> Picture:
    """Writes a picture if there is a path for it, and returns it."""
    if path is not None:
        picture.save(path)
    return picture


def check_texts(title: str | None, path: str | Path | None, **labels: Sequence[str]) -> Path | None:
    """Checks the labels, the title and the path of a picture, and returns the path.

    Raises:
        ArgumentTypeError, ArgumentValueError: a label or title that is no string, no labels, or another file
            type.
    """
    for name, texts in labels.items():
        check_type(name, texts, Sequence, "a list of strings")
        for index, text in enumerate(texts):
            check_type(f"{name}[{index}]", text, str, "a string")
        if not texts:
            raise ArgumentValueError(name, texts, "at least one text")
    check_optional_strings(title=title)
    return None if path is None else check_drawing_path(path)


def draw(rows: list[list[float]], labels: list[str], title: str | None) -> Any:
    """Draws the figure: square cells, labels beside, numbers below."""
    size = len(labels)
    cell = 0.62 if size <= MOST_VALUES else max(0.12, 9.0 / size)
    side = max(3.0, cell * size)
    named = size <= MOST_LABELS
    points = 10 if size <= MOST_VALUES else 6
    shown = [f"{shorten(text, LABEL_ROOM)}  {i}" for i, text in enumerate(labels, 1)] if named else []
    margin = 0.3 + max((width_of(label, points) for label in shown), default=0.0)
    width, height = margin + side + 1.0, side + (0.9 if title else 0.6)
    figure = import_figure()(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((margin / width, 0.4 / height, side / width, side / height))
    lowest, highest = min(0.0, min(map(min, rows))), max(map(max, rows))
    highest = highest if lowest < -1.1 or highest > 1.1 else 1.0  # distances, and products of any size
    image = axes.imshow(rows, cmap=COLORS, vmin=lowest, vmax=highest, interpolation="nearest")
    if size <= MOST_VALUES:
        write_values(axes, rows, image)
    axes.set_xticks(range(size) if named else [], [str(i + 1) for i in range(size)] if named else [])
    axes.set_yticks(range(size) if named else [], shown, parse_math=False)
    axes.tick_params(length=0, labelsize=points)
    axes.spines[:].set_visible(False)
    if size <= MOST_VALUES:  # white lines between the cells
        axes.set_xticks([i - 0.5 for i in range(1, size)], minor=True)
        axes.set_yticks([i - 0.5 for i in range(1, size)], minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
        axes.tick_params(which="minor", length=0)
    bar_axes = figure.add_axes(((margin + side + 0.2) / width, 0.4 / height, 0.14 / width, side / height))
    bar = figure.colorbar(image, cax=bar_axes)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=9)
    if title:
        place = (margin / width, 1 - 0.3 / height)
        figure.text(*place, title, fontsize=12, fontweight="bold", va="center", parse_math=False)
    return figure


def attention_picture(
    weights: Tensor,
    queries: Sequence[str],
    keys: Sequence[str],
    path: str | Path | None = None,
    *,
    title: str | None = None,
) -> Picture:
    """Draws attention weights as heat maps: rows are queries, columns are keys.

    Args:
        weights: from 0 to 1: (T, S) of one head, (H, T, S) of the heads of a layer, or (N, H, T, S) of the
            heads of N layers, which are drawn small and without tokens.
        queries: T tokens.
        keys: S tokens.
        path: a .png, .svg or .html file to write; None: none.
        title: title above the picture.

    Returns:
        The picture, which a notebook shows; its `save` writes it.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError, ValueError: tokens that are no strings, weights of another shape, or another file type.
    """
    path = check_texts(title, path, queries=queries, keys=keys)
    leading = tuple(check_tensor("weights", weights).shape[:-2])
    check_shape("weights", weights, (*leading[-2:], len(queries), len(keys)), like="queries and keys")
    numbers, scale = weights.detach().double().cpu(), Scale(name="attention weight")
    if len(leading) == 2:
        names = [f"layer {i}" for i in range(leading[0])], [f"head {i}" for i in range(leading[1])]
        return saved(compose(title or "", [Mosaic(numbers, *names, scale)], _ABOUT_MAPS), path)
    values = numbers.tolist()
    if not leading:
        maps = [Map(values, queries, keys)]
    else:
        maps = [Map(head, queries, keys, f"head {i}") for i, head in enumerate(values)]
    per_line = 1 if not leading else 2 if len(maps) <= 4 else 4
    return saved(compose(title or "", [Maps(maps=maps, scale=scale, per_line=per_line)]), path)


_ABOUT_MAPS = "in each map, rows are queries from top to bottom, columns are keys from left to right"


def grid_picture(
    values: Tensor,
    rows: Sequence[str],
    columns: Sequence[str],
    path: str | Path | None = None,
    *,
    title: str | None = None,
    quantity: str = "value",
) -> Picture:
    """Draws any matrix with named rows and columns as a heat map, such as the results of patching.

    Colours are on two sides of 0 if some values are negative. Numbers are written where they fit.

    Args:
        values: (R, C).
        rows: R names, such as those of layers.
        columns: C names, such as tokens.
        path: a .png, .svg or .html file to write; None: none.
        title: title above the picture.
        quantity: name of the values, beside the colours.

    Returns:
        The picture, which a notebook shows; its `save` writes it.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError, ValueError: names that are no strings, values of another shape, or another file type.
    """
    path = check_texts(title, path, rows=rows, columns=columns)
    check_shape("values", values, (len(rows), len(columns)), like="rows and columns")
    check_strings(quantity=quantity)
    numbers = values.detach().double().cpu().tolist()
    maps, scale = [Map(numbers, rows, columns)], Scale.of(numbers, quantity)
    return saved(compose(title or "", [Maps(maps=maps, scale=scale, axes=("", ""), square=False)]), path)


def write_values(axes: Any, rows: list[list[float]], image: Any) -> None:
    """Writes the value into each cell, dark on light and light on dark."""
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            color = contrast(image.cmap(image.norm(value)))
            value = round(value, 2) + 0.0  # no "-0.00"
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=9, color=color)
