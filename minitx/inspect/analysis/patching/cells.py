"""The cells of a patching grid: one forward serves many, each a copy of the inputs with its part replaced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from minitx.inspect.analysis.table import Grid, short_names
from minitx.models.taps import Call, Place
from minitx.validation import ArgumentValueError, check_choice

By = Literal["position", "head", "place"]
BY = ("position", "head", "place")


@dataclass(frozen=True, eq=False, kw_only=True)
class PatchingGrid(Grid):
    """The metric for each replaced part; `print` shows the recovered share.

    Attributes:
        values: (places, positions or heads), the metric with that part replaced.
        places: full names of the rows.
        clean: the metric of the clean run.
        corrupted: the metric of the corrupted run.
    """

    places: tuple[str, ...]
    clean: float
    corrupted: float

    @property
    def recovered(self) -> Tensor:
        """Share of the difference between the runs: 0 is the corrupted metric, 1 the clean one."""
        return (self.values - self.corrupted) / (self.clean - self.corrupted)

    @property
    def shown(self) -> Tensor:
        """The recovered share: (places, positions or heads)."""
        return self.recovered

    def __str__(self) -> str:
        title = f"metric {self.clean:.3f} clean, {self.corrupted:.3f} corrupted; recovered share:"
        return f"{title}\n{super().__str__()}"


@dataclass(frozen=True)
class Cell:
    """A part of a place.

    Attributes:
        place: the place.
        dim: dimension of the part; None: the whole value.
        index: along that dimension.
    """

    place: Place
    dim: int | None
    index: int


@dataclass(frozen=True)
class Layout:
    """The cells of a grid, row by row, and the names of its axes."""

    cells: tuple[Cell, ...]
    axes: tuple[str, str]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    places: tuple[str, ...]

    def grid(self, values: Tensor, clean: float, corrupted: float) -> PatchingGrid:
        """Returns the grid with the metrics of all cells: (cells,)."""
        return PatchingGrid(
            values=values.view(len(self.rows), len(self.columns)),
            axes=self.axes,
            rows=self.rows,
            columns=self.columns,
            places=self.places,
            clean=clean,
            corrupted=corrupted,
        )

    def chunks(self, size: int) -> Iterator[tuple[Cell, ...]]:
        """Yields at most `size` cells at a time."""
        for start in range(0, len(self.cells), size):
            yield self.cells[start : start + size]


def lay_out(
    places: Sequence[Place], values: Mapping[str, Tensor], by: str, tokens: Mapping[int, tuple[str, ...]]
) -> Layout:
    """Returns the cells of places.

    Args:
        places: rows of the grid.
        values: of the places.
        by: "position", "head" or "place".
        tokens: names of the tokens, by their number.

    Raises:
        ArgumentValueError: places without heads or tokens, or with different numbers of them.
    """
    check_choice("by", by, BY)
    shared, rows = short_names([place.name for place in places])
    dims = [None if by == "place" else 1 if by == "head" else place.token_dim for place in places]
    counts = []
    for place, dim in zip(places, dims, strict=True):
        value = values[place.name]
        if dim is not None and ((by == "head" and not place.is_per_head) or value.dim() <= dim):
            hint = "such as **.mixed" if by == "head" else ""
            raise ArgumentValueError("places", place.name, f"places with a dimension of the {by}", hint)
        counts.append(1 if dim is None else value.shape[dim])
    if len({*counts}) > 1:
        expected = f"places with the same number of {by}s, not {sorted({*counts})}"
        raise ArgumentValueError("places", shared, expected, "make one grid for each stack")
    names = {"position": tokens.get(counts[0]), "place": ("all",)}.get(by)
    cells = (Cell(*pair, index) for pair in zip(places, dims, strict=True) for index in range(counts[0]))
    return Layout(
        cells=tuple(cells),
        axes=(shared, by),
        rows=rows,
        columns=names or tuple(map(str, range(counts[0]))),
        places=tuple(place.name for place in places),
    )


@dataclass(frozen=True)
class Replacement:
    """A tap function that replaces the part of its cell in each copy of the inputs.

    Attributes:
        cells: one for each copy.
        values: by name of the place, (B, ...) each.
    """

    cells: Sequence[Cell]
    values: Mapping[str, Tensor]

    @property
    def names(self) -> list[str]:
        """Names of the places of the cells."""
        return [*dict.fromkeys(cell.place.name for cell in self.cells)]

    def __call__(self, value: Tensor, call: Call) -> Tensor:
        """Returns the value with the parts replaced: (copies * B, ...) -> (copies * B, ...)."""
        source = self.values[call.place.name].to(value)
        replaced = value.clone()
        copies = replaced.view(len(self.cells), *source.shape)
        for copy, cell in zip(copies, self.cells, strict=True):
            if cell.place.name != call.place.name:
                continue
            if cell.dim is None:
                copy.copy_(source)
            else:
                copy.select(cell.dim, cell.index).copy_(source.select(cell.dim, cell.index))
        return replaced
