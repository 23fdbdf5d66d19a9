"""Heat maps with named rows and columns on a sheet: several side by side, a mosaic of heads, texts in cells.

`heatmap.py` has the public functions of these and the map of similarities.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from minitx.pictures.layout import shorten, width_of
from minitx.pictures.picture import FAINT, INK, MARGIN, PAGE_WIDTH, SIZE, SMALL, TINY, Sheet, label

ROOM = PAGE_WIDTH - 2 * MARGIN
NAME, GAP, TITLE = 0.22, 0.16, 0.24  # inches: of an axis' name, between maps, of a map's title
LARGEST_CELL, MOST_LABEL = 0.42, 1.0
LINE_HEIGHT = 1.22  # of a line of text, in sizes of its letters
BAR = 0.36  # height of the line with the colour bar
ROW = 0.22  # of a row of texts


@dataclass(frozen=True)
class Map:
    """A matrix with named rows and columns.

    Attributes:
        values: numbers; NaN is left white.
        rows, columns: names.
        title: above it.
    """

    values: Sequence[Sequence[float]]
    rows: Sequence[str]
    columns: Sequence[str]
    title: str = ""


@dataclass(frozen=True)
class Scale:
    """The colours of numbers.

    Attributes:
        low, high: numbers of the first and the last colour.
        name: of the quantity, beside the bar; "" draws no bar.
        colors: a colour map of matplotlib, or its name.
    """

    low: float = 0.0
    high: float = 1.0
    name: str = ""
    colors: Any = "cividis"

    @staticmethod
    def of(values: Any, name: str) -> Scale:
        """Returns the scale of any numbers: two-sided, with 0 in the middle, if some are negative."""
        numbers = [value for row in values for value in row if math.isfinite(value)]
        low, high = min(numbers, default=0.0), max(numbers, default=1.0)
        if low < 0:
            most = max(-low, high)
            return Scale(-most, most, name, "PuOr")
        return Scale(0.0, high or 1.0, name)


@dataclass(frozen=True, kw_only=True)
class Maps:
    """Heat maps side by side; names that all of them share are written at the left and below only.

    Attributes:
        maps: at least one.
        scale: of all maps.
        per_line: most maps side by side.
        axes: names of the rows' axis and of the columns'.
        square: square cells; else rows have the height of a line of text.
    """

    maps: Sequence[Map]
    scale: Scale
    per_line: int = 4
    axes: tuple[str, str] = ("query", "key")
    square: bool = True

    @property
    def across(self) -> int:
        """The number of maps in a full line."""
        return min(self.per_line, len(self.maps))

    @cached_property
    def shared(self) -> bool:
        """Whether all maps have the same names."""
        first = self.maps[0]
        return all((m.rows, m.columns) == (first.rows, first.columns) for m in self.maps)

    @cached_property
    def plan(self) -> _Plan:
        """The sizes of cells and letters."""
        return _Plan.of(self.maps, self.across, self.shared, self.square)

    @property
    def head(self) -> float:
        """The height of the title of a map."""
        return TITLE * any(m.title for m in self.maps)

    def lines(self) -> Iterator[tuple[int, float, float]]:
        """Yields the number of the first map, the height and the space below of each line of maps."""
        below = self.plan.below + GAP + NAME * bool(self.axes[1])
        for start in range(0, len(self.maps), self.across):
            line = self.maps[start : start + self.across]
            height = self.head + self.plan.cell_height * max(len(m.rows) for m in line)
            yield start, height, GAP if self.shared and start + self.across < len(self.maps) else below

    @property
    def height(self) -> float:
        """The height in inches."""
        return sum(height + space for _, height, space in self.lines()) + BAR * bool(self.scale.name)

    def draw(self, sheet: Sheet, top: float) -> None:
        """Draws the maps on a sheet."""
        for start, height, space in self.lines():
            for place, part in enumerate(self.maps[start : start + self.across]):
                left = MARGIN + NAME * bool(self.axes[0]) + self.plan.left + place * self.plan.step
                is_last = start + place + self.across >= len(self.maps)
                names = (not self.shared or place == 0, not self.shared or is_last)
                corner = (left, top + self.head)
                drawn = _draw_map(sheet, part, self.scale, self.plan, corner, names)
                style = {"size": SMALL, "color": FAINT}
                if names[1] and self.axes[1]:
                    sheet.note(left, corner[1] + drawn + self.plan.below + 0.12, self.axes[1], **style)
                if place == 0 and self.axes[0]:
                    style |= {"rotation": 90, "ha": "center"}
                    sheet.note(MARGIN + 0.06, corner[1] + max(drawn, 0.5) / 2, self.axes[0], **style)
            top += height + space
        if self.scale.name:
            draw_bar(sheet, self.scale, top + 0.12)


@dataclass(frozen=True)
class _Plan:
    """Sizes in inches, and of letters in points, that all maps of a picture share.

    Attributes:
        cell, cell_height: size of a cell.
        size: of the names' letters.
        left, below: rooms of the names.
        step: from the left end of a map to that of the next one.
        upright: whether the names below are written upright.
    """

    cell: float
    cell_height: float
    size: float
    left: float
    below: float
    step: float
    upright: bool

    @staticmethod
    def of(maps: Sequence[Map], across: int, shared: bool, square: bool) -> _Plan:
        """Returns the largest cells that fit, and letters that fit beside them."""
        count = max(len(m.columns) for m in maps)
        rows, columns = ([*{n for m in maps for n in getattr(m, side)}] for side in ("rows", "columns"))
        left = _widest(rows, SMALL) + 0.08
        room = ROOM - NAME - left * (1 if shared else across) - GAP * (across - 1)
        cell = min(room / (across * count), LARGEST_CELL if square else 0.9)
        if not square:
            cell = max(cell, min(_widest(columns, SMALL) + 0.08, room / (across * count)))
        least = cell if square else min(cell, 0.24)
        size = min(max(72 * least / LINE_HEIGHT, TINY), SMALL)
        upright = _widest(columns, size) <= cell - 0.03
        below = 0.18 if upright else _widest(columns, size) + 0.08
        step = cell * count + GAP + (0 if shared else left)
        if across == 1 or len(maps) == 1:
            step = 0.0
        return _Plan(cell, cell if square else 0.25, size, left, below, step, upright)


def _widest(names: Sequence[str], size: float) -> float:
    return max((width_of(label(name, MOST_LABEL, size), size) for name in names), default=0.0)


def _draw_map(
    sheet: Sheet,
    part: Map,
    scale: Scale,
    plan: _Plan,
    place: tuple[float, float],
    names: tuple[bool, bool],
) -> float:
    """Draws one map with its top left corner at a place; returns its height."""
    width, height = plan.cell * len(part.columns), plan.cell_height * len(part.rows)
    axes = sheet.axes(*place, width, height)
    image = draw_image(axes, part.values, scale)
    if part.title:
        text = shorten(part.title, max(width, plan.step - GAP, 0.5), SIZE)
        sheet.note(place[0], place[1] - TITLE / 2, text, size=SIZE)
    if names[0]:
        kept = thinned(len(part.rows), plan.cell_height, plan.size)
        texts = [label(part.rows[i], MOST_LABEL, plan.size) for i in kept]
        axes.set_yticks(kept, texts, parse_math=False, size=plan.size)
    if names[1]:
        kept = thinned(len(part.columns), plan.cell, plan.size)
        texts = [label(part.columns[i], MOST_LABEL, plan.size) for i in kept]
        axes.set_xticks(kept, texts, parse_math=False, size=plan.size, rotation=0 if plan.upright else 90)
    if plan.cell >= 0.38 and plan.cell_height < plan.cell and scale.name:
        write_numbers(axes, part.values, image)
    return height


def draw_image(axes: Any, values: Tensor | Sequence[Sequence[float]], scale: Scale) -> Any:
    """Draws a matrix into axes; NaN is left white."""
    low, high = scale.low, scale.high
    values = values.tolist() if isinstance(values, Tensor) else values
    image = axes.imshow(values, cmap=scale.colors, vmin=low, vmax=high, aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return image


def thinned(count: int, room: float, size: float) -> list[int]:
    """Returns the indices of as many evenly spaced names as can be written.

    Args:
        count: of all names.
        room: inches from one to the next.
        size: of their letters.
    """
    return [*range(0, count, max(math.ceil(size * 1.1 / 72 / room - 1e-6), 1))]


def write_numbers(axes: Any, values: Sequence[Sequence[float]], image: Any) -> None:
    """Writes the number of each cell, dark on light and light on dark."""
    most = max((abs(value) for row in values for value in row if math.isfinite(value)), default=0.0)
    places = 0 if most >= 100 else 1 if most >= 10 else 2
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            if math.isfinite(value):
                number = f"{round(value, places) + 0.0:.{places}f}"  # no "-0.00"
                color = contrast(image.cmap(image.norm(value)))
                axes.text(j, i, number, ha="center", va="center", fontsize=SMALL, color=color)


def contrast(color: Sequence[float]) -> str:
    """Returns the colour of letters on a background: red, green and blue from 0 to 1."""
    red, green, blue = color[:3]
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def draw_bar(sheet: Sheet, scale: Scale, y: float) -> None:
    """Draws the colours of a scale as a line at the right, with its ends and the name of the quantity."""
    ends = [f"{round(end, 2) + 0.0:.3g}" for end in (scale.low, scale.high)]
    width, right = 1.6, PAGE_WIDTH - MARGIN - width_of(ends[1], SMALL) - 0.06
    axes = sheet.axes(right - width, y - 0.06, width, 0.12)
    draw_image(axes, [[i / 99 for i in range(100)]], Scale(colors=scale.colors))
    sheet.note(right + 0.06, y, ends[1], size=SMALL)
    sheet.note(right - width - 0.06, y, f"{scale.name}   {ends[0]}", size=SMALL, ha="right")


@dataclass(frozen=True)
class Mosaic:
    """A small map for each row and column, without names of their cells.

    Attributes:
        values: (rows, columns, T, S).
        rows, columns: names.
        scale: of all maps.
    """

    values: Tensor
    rows: Sequence[str]
    columns: Sequence[str]
    scale: Scale

    @cached_property
    def left(self) -> float:
        """The room of the rows' names."""
        return _widest(self.rows, SMALL) + 0.08

    @cached_property
    def tile(self) -> tuple[float, float]:
        """Width and height of a map with the space around it."""
        width = min((ROOM - self.left) / len(self.columns), 1.6)
        time, keys = self.values.shape[2:]
        return width, min(max(width * time / keys, 0.13), 1.6)

    @cached_property
    def is_level(self) -> bool:
        """Whether the columns' names fit above their maps, and are not written upright."""
        return _widest(self.columns, self.size) <= self.tile[0] - 0.04

    @property
    def size(self) -> float:
        """The size of the names' letters."""
        return min(max(72 * min(self.tile) / LINE_HEIGHT, TINY), SMALL)

    @property
    def above(self) -> float:
        """The room of the columns' names."""
        return 0.2 if self.is_level else _widest(self.columns, self.size) + 0.1

    @property
    def height(self) -> float:
        """The height in inches."""
        return self.above + self.tile[1] * len(self.rows) + BAR + 0.1

    def draw(self, sheet: Sheet, top: float) -> None:
        """Draws the maps on a sheet, as one image."""
        (width, height), size, left = self.tile, self.size, MARGIN + self.left
        above = top + self.above
        count = (len(self.rows), len(self.columns))
        axes = sheet.axes(left, above, width * count[1], height * count[0])
        draw_image(axes, self._image(), self.scale)
        for i in thinned(len(self.rows), height, size):
            text = label(self.rows[i], MOST_LABEL, size)
            sheet.note(left - 0.06, above + height * (i + 0.465), text, size=size, ha="right")
        style = {"size": size, "ha": "center", "rotation": 0 if self.is_level else 90}
        for j in range(len(self.columns)) if self.is_level else thinned(len(self.columns), width, size):
            text = label(self.columns[j], MOST_LABEL, size)
            sheet.note(left + width * (j + 0.465), top + self.above / 2, text, **style)
        draw_bar(sheet, self.scale, above + height * len(self.rows) + 0.2)

    def _image(self) -> Tensor:
        """Returns all maps with white lines between them, as one matrix."""
        rows, columns, time, keys = self.values.shape
        up, across = (max(math.ceil(14 / size), 1) for size in (time, keys))
        values = self.values.double().repeat_interleave(up, dim=2).repeat_interleave(across, dim=3)
        tall, wide = time * up, keys * across
        image = values.new_full(
            (rows, tall + max(tall // 14, 1), columns, wide + max(wide // 14, 1)), torch.nan
        )
        image[:, :tall, :, :wide] = values.permute(0, 2, 1, 3)
        return image.flatten(2, 3).flatten(0, 1)


@dataclass(frozen=True)
class Cells:
    """A table whose cells have a text and a colour; many columns continue in a further table below.

    Attributes:
        texts: (rows, columns).
        shades: likewise, the numbers of the colours.
        rows, columns: names.
        scale: of the colours.
    """

    texts: Sequence[Sequence[str]]
    shades: Sequence[Sequence[float]]
    rows: Sequence[str]
    columns: Sequence[str]
    scale: Scale

    @cached_property
    def left(self) -> float:
        """The room of the rows' names."""
        return _widest(self.rows, SMALL) + 0.08

    @cached_property
    def per_band(self) -> int:
        """The number of columns side by side."""
        widths = [width_of(label(text, 0.76), SMALL) for row in self.texts for text in row]
        most = max(int((ROOM - self.left) / (max([0.4, *widths]) + 0.1)), 1)
        return math.ceil(len(self.columns) / math.ceil(len(self.columns) / most))

    @property
    def band_height(self) -> float:
        """The height of a table with the space below it."""
        return ROW * (len(self.rows) + 1) + 0.14

    @property
    def height(self) -> float:
        """The height in inches."""
        return self.band_height * math.ceil(len(self.columns) / self.per_band) + BAR

    def draw(self, sheet: Sheet, top: float) -> None:
        """Draws the table on a sheet."""
        left, cell = MARGIN + self.left, min((ROOM - self.left) / self.per_band, 1.2)
        for start in range(0, len(self.columns), self.per_band):
            part = range(start, min(start + self.per_band, len(self.columns)))
            top += ROW
            axes = sheet.axes(left, top, cell * len(part), ROW * len(self.rows))
            image = draw_image(axes, [[row[j] for j in part] for row in self.shades], self.scale)
            names = [label(row, MOST_LABEL) for row in self.rows]
            axes.set_yticks(range(len(names)), names, parse_math=False)
            for place, j in enumerate(part):
                x = left + cell * (place + 0.5)
                head = label(self.columns[j], cell - 0.06, SMALL, "bold")
                sheet.note(x, top - 0.1, head, size=SMALL, weight="bold", ha="center")
                for i, row in enumerate(self.texts):
                    color = contrast(image.cmap(image.norm(self.shades[i][j])))
                    text = label(row[j], cell - 0.06)
                    sheet.note(x, top + ROW * (i + 0.5), text, size=SMALL, ha="center", color=color)
            top += self.band_height - ROW
        draw_bar(sheet, self.scale, top + 0.12)
