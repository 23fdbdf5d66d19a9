"""Plots on a sheet: lines, numbered matrices, bars along a text, a distribution after steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from minitx.pictures.layout import shorten, width_of
from minitx.pictures.maps import BAR, ROOM, TITLE, Scale, draw_bar, draw_image
from minitx.pictures.picture import (
    BLUE,
    FAINT,
    LINE,
    MARGIN,
    ORANGE,
    SIZE,
    SMALL,
    TINY,
    Sheet,
    label,
)

Series = tuple[float, Sequence[float], Sequence[float]]  # a number for the colour, x and y


@dataclass(frozen=True)
class Panel:
    """Lines over one axis.

    Attributes:
        title: above it.
        series: the lines: number on the scale of colours, x and y.
    """

    title: str
    series: Sequence[Series]


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Panels of lines, whose colours are numbers, such as those of layers.

    Attributes:
        panels: at least one.
        scale: of the colours; one without a name draws no bar.
        axes: names of x and y.
        per_line: most panels side by side.
        log: logarithmic y.
        panel_height: in inches.
    """

    panels: Sequence[Panel]
    scale: Scale
    axes: tuple[str, str]
    per_line: int = 4
    log: bool = False
    panel_height: float = 1.5

    @property
    def _step(self) -> float:
        return self.panel_height + 0.62

    @property
    def height(self) -> float:
        """The height in inches."""
        lines = math.ceil(len(self.panels) / self.per_line)
        return 0.2 + lines * self._step + BAR * bool(self.scale.name)

    def draw(self, sheet: Sheet, top: float) -> None:
        """Draws the panels on a sheet."""
        across = min(self.per_line, len(self.panels))
        width = min(ROOM / across, 5.0)
        sheet.note(
            MARGIN, top + 0.08, f"up: {self.axes[1]}; to the right: {self.axes[0]}", color=FAINT, size=SMALL
        )
        for number, panel in enumerate(self.panels):
            line, place = divmod(number, across)
            y = top + 0.2 + line * self._step
            left = MARGIN + width * place
            sheet.note(left, y + 0.12, shorten(panel.title, width - 0.1, SIZE), size=SIZE)
            axes = sheet.axes(left + 0.48, y + 0.26, width - 0.66, self.panel_height)
            self._draw_panel(axes, panel)
        if self.scale.name:
            lines = math.ceil(len(self.panels) / across)
            draw_bar(sheet, self.scale, top + 0.2 + lines * self._step + 0.1)

    def _draw_panel(self, axes: Any, panel: Panel) -> None:
        """Draws one panel."""
        from matplotlib import colormaps
        from matplotlib.colors import Normalize
        from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

        norm = Normalize(self.scale.low, self.scale.high)
        colors = self.scale.colors if callable(self.scale.colors) else colormaps[self.scale.colors]
        for number, x, y in panel.series:
            axes.plot(x, y, color=colors(norm(number)), linewidth=1.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        if self.log:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(10, numticks=4))
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.yaxis.set_major_locator(MaxNLocator(4))
            if min((min(y) for _, _, y in panel.series), default=0.0) >= 0:
                axes.set_ylim(bottom=0)
        axes.tick_params(which="both", length=2, color=LINE)
        axes.set_xmargin(0.02)


def line_colors() -> Any:
    """Returns the colours of lines on white: cividis without its lightest part."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap([colormaps["cividis"](i / 255) for i in range(205)])


@dataclass(frozen=True)
class Field:
    """A matrix whose rows and columns are numbered.

    Attributes:
        title: above it.
        values: (R, C).
        start: number of the first column.
    """

    title: str
    values: Tensor
    start: int = 0


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Matrices with numbered rows and columns side by side, such as tables of positions.

    Attributes:
        fields: at least one.
        scale: of all of them.
        axes: names of the rows and of the columns.
        per_line: most of them side by side.
        field_height: in inches.
    """

    fields: Sequence[Field]
    scale: Scale
    axes: tuple[str, str]
    per_line: int = 2
    field_height: float = 2.0

    @property
    def height(self) -> float:
        """The height in inches."""
        return math.ceil(len(self.fields) / self.per_line) * (self.field_height + 0.55) + 0.2 + BAR

    def draw(self, sheet: Sheet, top: float) -> None:
        """Draws the matrices on a sheet."""
        from matplotlib.ticker import MaxNLocator

        across, step = min(self.per_line, len(self.fields)), self.field_height + 0.55
        width = ROOM / across
        names = f"rows: {self.axes[0]}; columns: {self.axes[1]}"
        sheet.note(MARGIN, top + 0.08, names, color=FAINT, size=SMALL)
        top += 0.2
        for number, part in enumerate(self.fields):
            line, place = divmod(number, across)
            left, y = MARGIN + width * place, top + step * line
            sheet.note(left, y + 0.12, label(part.title, width - 0.1, SIZE), size=SIZE)
            axes = sheet.axes(left + 0.4, y + TITLE, width - 0.5, self.field_height)
            image = draw_image(axes, part.values.detach().double().cpu(), self.scale)
            rows, columns = part.values.shape
            image.set_extent((part.start - 0.5, part.start + columns - 0.5, rows - 0.5, -0.5))
            axes.yaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        draw_bar(sheet, self.scale, top + step * math.ceil(len(self.fields) / across) + 0.1)


@dataclass(frozen=True)
class Track:
    """Bars and dots along a text; a long one continues below.

    Attributes:
        names: tokens.
        bars, dots: a number per token each; NaN is left out.
        legend: names of the bars and of the dots.
        unit: of both.
    """

    names: Sequence[str]
    bars: Sequence[float]
    dots: Sequence[float]
    legend: tuple[str, str]
    unit: str

    most = 48  # tokens of a line
    plot_height = 1.5

    @property
    def per_band(self) -> int:
        """The number of tokens of a line."""
        return math.ceil(len(self.names) / math.ceil(len(self.names) / self.most))

    @cached_property
    def below(self) -> float:
        """The room of the tokens, which are written upright."""
        return 0.1 + max(width_of(label(name, 0.9), SMALL) for name in self.names)

    @property
    def height(self) -> float:
        """The height in inches."""
        bands = math.ceil(len(self.names) / self.per_band)
        return 0.25 + bands * (self.plot_height + self.below + 0.15)

    def draw(self, sheet: Sheet, top: float) -> None:
        """Draws the bars on a sheet."""
        self._draw_legend(sheet, top + 0.08)
        top += 0.25
        numbers = [value for value in (*self.bars, *self.dots) if math.isfinite(value)]
        most = max([1.0, *numbers]) * 1.05
        slot = min((ROOM - 0.4) / self.per_band, 0.42)
        for start in range(0, len(self.names), self.per_band):
            part = range(start, min(start + self.per_band, len(self.names)))
            axes = sheet.axes(MARGIN + 0.4, top, slot * len(part), self.plot_height)
            heights = [value if math.isfinite(value := self.bars[i]) else 0.0 for i in part]
            axes.bar(range(len(part)), heights, width=0.72, color=BLUE)
            dots = [(place, self.dots[i]) for place, i in enumerate(part) if math.isfinite(self.dots[i])]
            if dots:
                axes.plot(*zip(*dots, strict=True), "o", color=ORANGE, markersize=4, markeredgecolor="white")
            axes.set(xlim=(-0.5, len(part) - 0.5), ylim=(0.0, most))
            names = [label(self.names[i], 0.9) for i in part]
            axes.set_xticks(range(len(part)), names, rotation=90, parse_math=False)
            axes.locator_params(axis="y", nbins=4)
            axes.spines[["top", "right"]].set_visible(False)
            top += self.plot_height + self.below + 0.15

    def _draw_legend(self, sheet: Sheet, y: float) -> None:
        """Draws a square and a dot with their names, and the unit."""
        x = MARGIN + 0.4
        for mark, color, name in (("■", BLUE, self.legend[0]), ("●", ORANGE, self.legend[1])):
            if name:
                sheet.note(x, y, mark, color=color, size=SMALL)
                sheet.note(x + 0.16, y, name, size=SMALL)
                x += 0.16 + width_of(name, SMALL) + 0.25
        sheet.note(x, y, f"in {self.unit}", size=SMALL, color=FAINT)


@dataclass(frozen=True)
class Bar:
    """A token in a distribution.

    Attributes:
        share: its probability; None if it was removed.
        note: beside the bar.
    """

    share: float | None
    note: str


@dataclass(frozen=True)
class Steps:
    """A distribution after each of several steps, side by side; further steps follow below.

    Attributes:
        names: of the tokens, from top to bottom.
        steps: title, lines of further facts, and a bar per token, of each step.
        chosen: the number of a token that is emphasized; None: none.
    """

    names: Sequence[str]
    steps: Sequence[tuple[str, Sequence[str], Sequence[Bar]]]
    chosen: int | None = None

    most = 4  # side by side
    row = 0.21

    @cached_property
    def left(self) -> float:
        """The room of the tokens."""
        return 0.1 + max(width_of(label(name, 1.2), SMALL) for name in self.names)

    @property
    def head(self) -> float:
        """The height above the bars."""
        return 0.26 + 0.17 * max(len(facts) for _, facts, _ in self.steps)

    @property
    def height(self) -> float:
        """The height in inches."""
        bands = math.ceil(len(self.steps) / self.most)
        return bands * (self.head + self.row * len(self.names) + 0.2)

    def draw(self, sheet: Sheet, top: float) -> None:
        """Draws the steps on a sheet."""
        across = min(self.most, len(self.steps))
        width = min((ROOM - self.left) / across, 3.0)
        most = max([bar.share or 0.0 for _, _, bars in self.steps for bar in bars], default=0.0) or 1.0
        for number, (title, facts, bars) in enumerate(self.steps):
            line, place = divmod(number, across)
            y = top + line * (self.head + self.row * len(self.names) + 0.2)
            left = MARGIN + self.left + width * place
            self._draw_step(sheet, (left, y, width), (title, facts, bars), most)
            if place == 0:
                self._draw_names(sheet, y + self.head)

    def _draw_names(self, sheet: Sheet, top: float) -> None:
        for i, name in enumerate(self.names):
            weight = "bold" if i == self.chosen else "normal"
            text = label(name, 1.2 if weight == "normal" else 1.1)
            x, y = MARGIN + self.left - 0.06, top + self.row * (i + 0.5)
            sheet.note(x, y, text, size=SMALL, ha="right", weight=weight)

    def _draw_step(
        self,
        sheet: Sheet,
        place: tuple[float, float, float],
        step: tuple[str, Sequence[str], Sequence[Bar]],
        most: float,
    ) -> None:
        """Draws one step at left, top and width; `most` is the share of the longest bar."""
        (left, top, width), (title, facts, bars) = place, step
        sizes = [size for size in (SIZE, SMALL) if width_of(title, size, "bold") <= width - 0.08]
        size = max(sizes, default=TINY)
        sheet.note(left, top + 0.1, label(title, width - 0.08, size, "bold"), size=size, weight="bold")
        for i, fact in enumerate(facts):
            sheet.note(
                left, top + 0.27 + 0.17 * i, shorten(fact, width - 0.1, SMALL), size=SMALL, color=FAINT
            )
        room = max(width_of(bar.note, SMALL) for bar in bars) + 0.12
        axes = sheet.axes(left, top + self.head, width - 0.1 - room, self.row * len(bars))
        axes.set(xlim=(0.0, most), ylim=(len(bars) - 0.5, -0.5), xticks=[], yticks=[])
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        for i, bar in enumerate(bars):
            color = ORANGE if i == self.chosen else BLUE
            axes.barh([i], [bar.share or 0.0], height=0.72, color=color)
            x = left + (width - 0.1 - room) * (bar.share or 0.0) / most + 0.05
            style = {"size": SMALL, "color": FAINT if bar.share is None else "#1a1a1a"}
            sheet.note(x, top + self.head + self.row * (i + 0.5), bar.note, **style)
