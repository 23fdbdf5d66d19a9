"""Named points and paths in a plane, whose names cover neither one another nor other points; and lists."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from minitx.pictures.layout import width_of
from minitx.pictures.maps import ROOM
from minitx.pictures.picture import FAINT, INK, MARGIN, SMALL, Sheet, label

Box = tuple[float, float, float, float]  # left, top, right and bottom, in inches


@dataclass(frozen=True)
class Point:
    """A point, or the end of a path.

    Attributes:
        x, y: coordinates.
        name: beside it; "" for none.
        color: of the point and of its name.
        size: of the point.
        marker: its shape, as matplotlib names it.
    """

    x: float
    y: float
    name: str = ""
    color: str = INK
    size: float = 5.0
    marker: str = "o"


@dataclass(frozen=True, kw_only=True)
class Points:
    """Points and paths in a plane; a name for which there is no room is left out.

    Attributes:
        points: the first ones get their names first.
        paths: points that a line joins, each with its colour.
        axes: names of x and y.
        side: height of the plane.
    """

    points: Sequence[Point]
    paths: Sequence[tuple[Sequence[tuple[float, float]], str]] = ()
    axes: tuple[str, str] = ("", "")
    side: float = 4.6

    @property
    def height(self) -> float:
        """The height in inches."""
        return self.side + 0.3

    def draw(self, sheet: Sheet, top: float) -> None:
        """Draws the plane on a sheet."""
        from matplotlib.patheffects import withStroke

        left, width = MARGIN + 0.22, ROOM - 0.22
        axes = sheet.axes(left, top, width, self.side)
        axes.set(xticks=[], yticks=[])
        corners = [(p.x, p.y) for p in self.points] + [corner for path, _ in self.paths for corner in path]
        place = _placing(axes, corners, (left, top, width, self.side))
        for path, color in self.paths:
            axes.plot(*zip(*path, strict=True), color=color, linewidth=1.2, alpha=0.8, zorder=1)
        for point in self.points:
            axes.plot(
                [point.x],
                [point.y],
                point.marker,
                color=point.color,
                markersize=point.size,
                markeredgecolor="white",
                markeredgewidth=0.6,
            )
        names = _Names((left + 0.04, top + 0.04, left + width - 0.04, top + self.side - 0.04))
        for corner in corners:
            names.block(place(*corner), 0.05)
        for point in self.points:
            if point.name:
                text = label(point.name, 1.3)
                if spot := names.spot(place(point.x, point.y), width_of(text, SMALL), 0.15):
                    name = sheet.note(*spot, text, size=SMALL, color=darker(point.color))
                    name.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
        style: dict[str, Any] = {"size": SMALL, "color": FAINT}
        sheet.note(left, top + self.side + 0.12, self.axes[0], **style)
        middle = top + self.side / 2
        sheet.note(MARGIN + 0.06, middle, self.axes[1], rotation=90, ha="center", **style)


def darker(color: str) -> tuple[float, ...]:
    """Returns a colour for letters on white, with a contrast of at least 4.5 for those of the palette."""
    from matplotlib.colors import to_rgb

    return tuple(0.62 * part for part in to_rgb(color))


def _placing(
    axes: Any, corners: Sequence[tuple[float, float]], frame: Box
) -> Callable[[float, float], tuple[float, float]]:
    """Sets the limits of axes; returns the function from coordinates to inches on the sheet."""
    left, top, width, height = frame
    (x0, x1), (y0, y1) = (_limits([corner[dim] for corner in corners]) for dim in (0, 1))
    axes.set(xlim=(x0, x1), ylim=(y0, y1))
    return lambda x, y: (left + width * (x - x0) / (x1 - x0), top + height * (y1 - y) / (y1 - y0))


def _limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.09 * (high - low) or 1.0
    return low - margin, high + margin


@dataclass
class _Names:
    """Places names beside points.

    Attributes:
        frame: that they stay in.
        taken: boxes of points and of earlier names.
    """

    frame: Box
    taken: list[Box] = field(default_factory=list)

    def block(self, point: tuple[float, float], radius: float) -> None:
        """Keeps the place of a point free."""
        x, y = point
        self.taken.append((x - radius, y - radius, x + radius, y + radius))

    def spot(self, point: tuple[float, float], width: float, height: float) -> tuple[float, float] | None:
        """Returns left end and middle of a name's place, which is then taken; None if none is free."""
        x, y = point
        for distance in (0.07, 0.16, 0.28, 0.42):
            for angle in (0, 180, 90, 270, 45, 315, 135, 225):
                dx, dy = math.cos(math.radians(angle)), -math.sin(math.radians(angle))
                left = x + dx * distance - width * (1 - round(dx, 6)) / 2
                middle = y + dy * (distance + height / 2)
                box = (left - 0.02, middle - height / 2, left + width + 0.02, middle + height / 2)
                if self._is_free(box):
                    self.taken.append(box)
                    return left, middle
        return None

    def _is_free(self, box: Box) -> bool:
        left, top, right, bottom = box
        inside = left >= self.frame[0] and top >= self.frame[1]
        inside = inside and right <= self.frame[2] and bottom <= self.frame[3]
        return inside and all(
            right <= other[0] or left >= other[2] or bottom <= other[1] or top >= other[3]
            for other in self.taken
        )


@dataclass(frozen=True)
class Listing:
    """Rows of texts: a name, and texts with numbers after it, in columns.

    Attributes:
        rows: name, its colour, and the texts with their numbers.
    """

    rows: Sequence[tuple[str, str, Sequence[tuple[str, str]]]]

    row = 0.2

    @property
    def height(self) -> float:
        """The height in inches."""
        return self.row * len(self.rows) + 0.05

    def draw(self, sheet: Sheet, top: float) -> None:
        """Draws the rows on a sheet."""
        names = [label(name, 1.3, SMALL, "bold") for name, _, _ in self.rows]
        first = 0.2 + max(width_of(name, SMALL, "bold") for name in names)
        count = max(len(texts) for _, _, texts in self.rows)
        width = min((ROOM - first) / max(count, 1), 1.7)
        for i, (_, color, texts) in enumerate(self.rows):
            y = top + self.row * (i + 0.5)
            sheet.note(MARGIN, y, names[i], size=SMALL, weight="bold", color=darker(color))
            for j, (word, number) in enumerate(texts):
                x = MARGIN + first + width * j
                text = label(word, width - 0.2 - width_of(number, SMALL))
                sheet.note(x, y, text, size=SMALL)
                sheet.note(x + width_of(text, SMALL) + 0.06, y, number, size=SMALL, color=FAINT)
