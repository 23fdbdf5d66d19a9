"""A picture of results: for each workload the bars of its engines, with quartiles and the bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minitx.bench.results.report import figure_text, groups, machine_lines
from minitx.bench.results.row import Row, Run
from minitx.pictures.figure import import_figure, save_figure
from minitx.pictures.picture import FAINT, INK, LINE, PALETTE

ACROSS = 2  # panels side by side
BAR_HEIGHT, HEAD, WIDTH = 0.27, 0.78, 5.4  # inches: a bar, title and axis of a panel, a panel
WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # under a number, over the dashed line
FAR = 2.0  # times the longest bar: bounds beyond it are not drawn
TOP, BOTTOM, NAMES = 0.62, 0.25, 1.75  # inches: the machine, the lower margin, the names of engines


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
    engines = list(dict.fromkeys(row.engine for rows in panels for row in rows))
    colors = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(engines)}
    across = min(ACROSS, len(panels))
    lines = [panels[i : i + across] for i in range(0, len(panels), across)]
    heights = [HEAD + BAR_HEIGHT * max(len(rows) for rows in line) for line in lines]
    size = (across * WIDTH, TOP + sum(heights) + BOTTOM)
    figure = import_figure()(figsize=size, facecolor="white")
    cpu, *_, versions = machine_lines(run.machine)
    figure.text(0.12 / size[0], 1 - 0.2 / size[1], cpu, color=INK, fontsize=9, va="center", weight="bold")
    bounded = any(row.bound is not None for rows in panels for row in rows)
    versions += "; dashed: the bound that the machine's own peaks allow" if bounded else ""
    figure.text(0.12 / size[0], 1 - 0.39 / size[1], versions, color=FAINT, fontsize=7.5, va="center")
    top = TOP
    for line, height in zip(lines, heights, strict=True):
        for place, rows in enumerate(line):
            bars = BAR_HEIGHT * len(rows)
            box = (place * WIDTH + NAMES, size[1] - top - 0.42 - bars, WIDTH - NAMES - 0.55, bars)
            axes = figure.add_axes((box[0] / size[0], box[1] / size[1], box[2] / size[0], box[3] / size[1]))
            _panel(axes, rows, colors)
        top += height
    save_figure(figure, path)


def _panel(axes: Any, rows: list[Row], colors: dict[str, str]) -> None:
    """Draws the bars of one workload."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figures = [row.figure or 0.0 for row in rows]
    ends = [[max(0.0, f - (row.low or f)) for f, row in zip(figures, rows, strict=True)]]
    ends.append([max(0.0, (row.high or f) - f) for f, row in zip(figures, rows, strict=True)])
    places = [*range(len(rows))]
    axes.barh(places, figures, 0.72, color=[colors[row.engine] for row in rows])
    axes.errorbar(figures, places, xerr=ends, fmt="none", ecolor=INK, elinewidth=1, capsize=2.5)
    bounds = {row.bound for row in rows if row.bound is not None}
    furthest = max([*figures, *(row.high or 0.0 for row in rows)])
    near = [bound for bound in bounds if bound <= FAR * furthest]  # the others would make the bars short
    limit = max(1.3 * furthest, 1.05 * max(near, default=0.0))
    for row, place, figure in zip(rows, places, figures, strict=True):
        ratio = "" if row.ratio is None or row is rows[0] else f"  {row.ratio:.2f}x"
        text = f"{figure_text(figure)}{ratio}"
        start = max(figure, row.high or 0.0) + 0.015 * limit
        axes.text(start, place, text, va="center", fontsize=8, color=INK, zorder=4, bbox=WHITE)
        if row.bound is not None and row.bound < limit:
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
