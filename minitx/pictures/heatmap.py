"""Similarities and attention weights as heat maps, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from minitx.pictures.figure import FORMATS, import_figure, save_figure
from minitx.pictures.layout import shorten, width_of
from minitx.pictures.text import columns_of
from minitx.validation import (
    ArgumentValueError,
    check_optional_strings,
    check_output,
    check_shape,
    check_type,
)

COLORS = "cividis"  # readable with any colour vision; its brightness rises evenly
MOST_VALUES = 16  # with more rows, numbers in the cells would be unreadable
MOST_LABELS = 60
MOST_UPRIGHT = 4  # letters of a token that fit below its column
LABEL_ROOM = 3.4  # inches of a label in 10 points


def similarity_picture(
    similarity: Tensor, labels: Sequence[str], path: str | Path, *, title: str | None = None
) -> Path:
    """Draws a matrix of similarities as a heat map.

    matplotlib's settings and current figure are not changed, and no window opens.

    Args:
        similarity: (N, N), values up to 1.
        labels: N texts; long ones are shortened.
        path: a .png or .svg file; its folder is created if it does not exist.
        title: title above the picture.

    Returns:
        `path`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: not a square matrix with one label per row, or another file type.
    """
    check_labels("labels", labels)
    check_shape("similarity", similarity, (len(labels), len(labels)), like="labels")
    check_optional_strings(title=title)
    path = check_output("path", path, FORMATS)
    return save_figure(draw(similarity.detach().double().cpu().tolist(), list(labels), title), path)


def check_labels(name: str, labels: Sequence[str]) -> None:
    """Checks that these are strings, at least one."""
    check_type(name, labels, Sequence, "a list of strings")
    for index, label in enumerate(labels):
        check_type(f"{name}[{index}]", label, str, "a string")
    if not labels:
        raise ArgumentValueError(name, labels, "at least one text")


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
    path: str | Path,
    *,
    title: str | None = None,
) -> Path:
    """Draws the attention weights of one head as a heat map: rows are queries, columns are keys.

    Args:
        weights: (T, S), from 0 to 1.
        queries: T tokens.
        keys: S tokens.
        path: a .png or .svg file; its folder is created if it does not exist.
        title: title above the picture, in lines of about 50 letters.

    Returns:
        `path`.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError, ValueError: tokens that are no strings, weights of another shape, or another file type.
    """
    check_labels("queries", queries)
    check_labels("keys", keys)
    check_shape("weights", weights, (len(queries), len(keys)), like="queries and keys")
    check_optional_strings(title=title)
    path = check_output("path", path, FORMATS)
    width, height = max(1.6 + 0.42 * len(keys), 5.0), 1.1 + 0.42 * len(queries)
    figure = import_figure()(figsize=(width, height), facecolor="white", layout="compressed")
    axes = figure.subplots()
    image = axes.imshow(weights.detach().double().cpu().tolist(), cmap=COLORS, vmin=0.0, vmax=1.0)
    rotation = 90 if max(map(columns_of, keys)) > MOST_UPRIGHT else 0
    axes.set_xticks(range(len(keys)), keys, parse_math=False, rotation=rotation)
    axes.set_yticks(range(len(queries)), queries, parse_math=False)
    axes.tick_params(length=0, labelsize=12)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes).outline.set_visible(False)
    if title:
        figure.suptitle(title, fontsize=12, fontweight="bold", parse_math=False)
    return save_figure(figure, path)


def write_values(axes: Any, rows: list[list[float]], image: Any) -> None:
    """Writes the value into each cell, dark on light and light on dark."""
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            red, green, blue, _ = image.cmap(image.norm(value))
            light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
            color = "#1a1a1a" if light else "white"
            value = round(value, 2) + 0.0  # no "-0.00"
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=9, color=color)
