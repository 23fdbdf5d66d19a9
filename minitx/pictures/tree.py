"""A tree of texts that grows to the right, such as the hypotheses of a search: a column per step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from minitx.pictures.layout import width_of
from minitx.pictures.maps import ROOM
from minitx.pictures.picture import BLUE, FAINT, INK, LINE, MARGIN, ORANGE, SMALL, TINY, Sheet, label


@dataclass(frozen=True)
class Branch:
    """A node.

    Attributes:
        parent: the number of an earlier node; None for a root.
        column: from 0.
        text: of the node.
        note: after its text, at the end of a hypothesis.
        is_best: part of the best hypothesis.
        is_dropped: none of its continuations was returned.
    """

    parent: int | None
    column: int
    text: str
    note: str = ""
    is_best: bool = False
    is_dropped: bool = False


@dataclass(frozen=True)
class Tree:
    """Nodes in columns, joined with their parents; the best hypothesis is the first row.

    Attributes:
        branches: a node comes after its parent.
    """

    branches: Sequence[Branch]

    row = 0.21

    @cached_property
    def rows(self) -> list[float]:
        """The row of each node: a leaf has one of its own, others have that of their first child."""
        children: dict[int | None, list[int]] = {}
        for place, branch in enumerate(self.branches):
            siblings = children.setdefault(branch.parent, [])
            siblings.insert(0 if branch.is_best else len(siblings), place)
        rows, number = [0.0] * len(self.branches), 0
        waiting = [*reversed(children.get(None, []))]
        while waiting:
            place = waiting.pop()
            rows[place] = number
            following = children.get(place, [])
            number += not following
            waiting += reversed(following)
        return rows

    @property
    def height(self) -> float:
        """The height in inches."""
        return self.row * (max(self.rows, default=0) + 1) + 0.1

    def draw(self, sheet: Sheet, top: float) -> None:
        """Draws the tree on a sheet."""
        columns = max(branch.column for branch in self.branches) + 1
        ends = max((width_of(branch.note, SMALL) for branch in self.branches), default=0.0) + 0.1
        widest = [0.0] * columns
        for branch in self.branches:
            text = label(branch.text, 1.2)
            widest[branch.column] = max(widest[branch.column], width_of(text, SMALL, self._weight(branch)))
        gap = 0.16
        widths = _fitted(widest, ROOM - ends - gap * columns)
        size = SMALL if widths == widest else TINY
        lefts = [sum(widths[:i]) + gap * i for i in range(columns)]
        axes = sheet.axes(MARGIN, top, ROOM, self.height)
        axes.set(xlim=(0, ROOM), ylim=(self.height, 0), xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        ends_at: list[float] = []
        for branch, row in zip(self.branches, self.rows, strict=True):
            left, y = lefts[branch.column], self.row * (row + 0.5)
            color = ORANGE if branch.is_best else FAINT if branch.is_dropped else INK
            text = label(branch.text, widths[branch.column] + 0.01, size, self._weight(branch))
            style = {"size": size, "color": color, "weight": self._weight(branch)}
            sheet.note(MARGIN + left, top + y, text, **style)
            end = left + width_of(text, size, self._weight(branch))
            ends_at.append(end)
            if branch.note:
                sheet.note(MARGIN + end + 0.08, top + y, branch.note, size=size, color=BLUE)
            if branch.parent is not None:
                above = self.row * (self.rows[branch.parent] + 0.5)
                start, bend = ends_at[branch.parent] + 0.03, left - 0.1
                line = {
                    "color": ORANGE if branch.is_best else LINE,
                    "linewidth": 1.3 if branch.is_best else 0.9,
                }
                start = min(start, bend)
                axes.plot([start, bend, bend, left - 0.03], [above, above, y, y], **line)

    @staticmethod
    def _weight(branch: Branch) -> str:
        return "bold" if branch.is_best else "normal"


def _fitted(widths: list[float], room: float) -> list[float]:
    """Returns widths of a sum of at most `room`: the widest ones are cut to the same width."""
    for number, width in enumerate(sorted(widths)):
        share = room / (len(widths) - number)  # for each that is at least as wide
        if width > share:
            return [min(other, share) for other in widths]
        room -= width
    return widths
