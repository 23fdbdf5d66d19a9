"""A picture of results: for each workload the bars of its engines, with quartiles and the bound."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any
from zlib import crc32

from minitx.bench.engine import ENGINES
from minitx.bench.results.report import figure_text, groups, machine_texts
from minitx.bench.results.row import Row, Run
from minitx.pictures.figure import import_figure, save_figure
from minitx.pictures.picture import FAINT, INK, LINE, PALETTE

ACROSS = 2  # panels side by side
BAR_HEIGHT, HEAD, WIDTH = 0.27, 0.78, 5.4  # inches: a bar, title and axis of a panel, a panel
WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # under a number, over the dashed line
FAR = 2.0  # times the longest bar: bounds beyond it are not drawn
TOP, LINE_HEIGHT, NAMES = 0.2, 0.18, 1.75  # inches: margins of the heading, a line of it, names of engines
BOLD, SMALL = 12, 16.5  # characters to an inch, of the first line and of the others


def draw(run: Run, path: Path) -> None:
    """Draws the rows that have a figure into a .png or .svg file.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: no row has a figure.
    """
    panels = [[row for row in rows if row.figure is not None] for rows in groups(run.rows)]
    panels = [rows for rows in panels if rows]
    if not panels:
        raise ValueError(f"{path}: there is nothing to draw, since no engine has a figure.")
    across = min(ACROSS, len(panels))
    lines = [panels[i : i + across] for i in range(0, len(panels), across)]
    heights = [HEAD + BAR_HEIGHT * max(len(rows) for rows in line) for line in lines]
    dashed = any(_drawn_bounds(rows) for rows in panels)
    texts = _heading(run.machine, across * WIDTH, dashed)
    top = TOP + LINE_HEIGHT * len(texts)
    size = (across * WIDTH, top + sum(heights))
    figure = import_figure()(figsize=size, facecolor="white")
    for number, (text, style) in enumerate(texts):
        place = 1 - (TOP / 2 + LINE_HEIGHT * (number + 0.5)) / size[1]
        figure.text(0.12 / size[0], place, text, va="center", **style)
    for line, height in zip(lines, heights, strict=True):
        for place, rows in enumerate(line):
            bars = BAR_HEIGHT * len(rows)
            box = (place * WIDTH + NAMES, size[1] - top - 0.42 - bars, WIDTH - NAMES - 0.55, bars)
            axes = figure.add_axes((box[0] / size[0], box[1] / size[1], box[2] / size[0], box[3] / size[1]))
            _panel(axes, rows)
        top += height
    save_figure(figure, path)


def color_of(engine: str) -> tuple[float, float, float]:
    """Returns the colour of an engine, the same in every picture.

    Those of the registry differ: the palette, then lighter tints of it. Others share a colour by their name.
    """
    from matplotlib.colors import to_rgb

    names = list(ENGINES)
    number = names.index(engine) if engine in names else crc32(engine.encode())
    tint = 0.3 * (number // len(PALETTE) % 3)
    red, green, blue = (part + tint * (1 - part) for part in to_rgb(PALETTE[number % len(PALETTE)]))
    return red, green, blue


def _heading(machine: dict[str, Any], width: float, dashed: bool) -> list[tuple[str, dict[str, Any]]]:
    """Returns the lines above the panels with their styles, wrapped to a width in inches."""
    cpu, _, versions = machine_texts(machine)
    versions += "; dashed: the bound of the machine's own peaks" * dashed
    first, rest = {"color": INK, "fontsize": 9, "weight": "bold"}, {"color": FAINT, "fontsize": 7.5}
    lines: list[tuple[str, dict[str, Any]]] = []
    for text, style, characters in ((cpu, first, BOLD), (versions, rest, SMALL)):
        lines += [(line, style) for line in textwrap.wrap(text, int(width * characters))]
    return lines


def _drawn_bounds(rows: list[Row]) -> list[float]:
    """Returns the bounds near the bars; the others would make these short, and are not drawn."""
    longest = _longest(rows)
    return [row.bound for row in rows if row.bound is not None and row.bound <= FAR * longest]


def _longest(rows: list[Row]) -> float:
    return max(max(row.figure or 0.0, row.high or 0.0) for row in rows)


def _panel(axes: Any, rows: list[Row]) -> None:
    """Draws the bars of one workload."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figures = [row.figure or 0.0 for row in rows]
    ends = [[max(0.0, f - (row.low or f)) for f, row in zip(figures, rows, strict=True)]]
    ends.append([max(0.0, (row.high or f) - f) for f, row in zip(figures, rows, strict=True)])
    places = [*range(len(rows))]
    axes.barh(places, figures, 0.72, color=[color_of(row.engine) for row in rows])
    axes.errorbar(figures, places, xerr=ends, fmt="none", ecolor=INK, elinewidth=1, capsize=2.5)
    bounds = _drawn_bounds(rows)
    limit = max(1.3 * _longest(rows), 1.05 * max(bounds, default=0.0))
    for row, place, figure in zip(rows, places, figures, strict=True):
        ratio = "" if row.ratio is None or row is rows[0] else f"  {row.ratio:.2f}x"
        text = f"{figure_text(figure)}{ratio}"
        start = max(figure, row.high or 0.0) + 0.015 * limit
        axes.text(start, place, text, va="center", fontsize=8, color=INK, zorder=4, bbox=WHITE)
        if row.bound in bounds:
            ends_of_line = [place - 0.5, place + 0.5]
            axes.plot([row.bound] * 2, ends_of_line, color=FAINT, lw=1.1, ls=(0, (3, 2)), zorder=3)
    _describe(axes, rows[0])
    axes.set_yticks(places, [row.engine for row in rows], fontsize=8, color=INK)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, limit)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:,g}"))
    axes.tick_params(axis="x", labelsize=7, length=2, color=LINE, labelcolor=FAINT)
    axes.tick_params(axis="y", length=0)


def _describe(axes: Any, row: Row) -> None:
    """Writes the title of a panel, with the unit below, at the left edge of the names."""
    better = "less is better" if row.unit == "ms" else "more is better"
    title = f"{row.workload}, {row.model}, {row.dtype}"
    left = -(NAMES - 0.12) / (WIDTH - NAMES - 0.55)
    place = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
    axes.annotate(title, (left, 1), (0, 17), **place, fontsize=9, color=INK, weight="bold", va="bottom")
    text = f"{row.summary}; {row.unit}, {better}"
    axes.annotate(text, (left, 1), (0, 5), **place, fontsize=7.5, color=FAINT, va="bottom")
