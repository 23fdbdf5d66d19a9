"""The part of a value that an edit replaces: rows, positions, heads, features."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from minitx.models.taps import Call
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_integer


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Parts of a value; None means all.

    Attributes:
        rows: of the batch. In a generation, prompts: their beams and samples belong to them.
        positions: of tokens, from 0 for the first token of a row, those in the cache included; -1 is the last
            token of each forward. Of attention scores and weights: queries.
        heads: from 0; of keys and values, key/value heads.
        features: of the last dimension: neurons, or of attention scores and weights, keys.
    """

    rows: Collection[int] | None = None
    positions: Collection[int] | None = None
    heads: Collection[int] | None = None
    features: Collection[int] | None = None

    def __post_init__(self) -> None:
        """Checks that these are collections of integers."""
        for field in fields(self):
            values = getattr(self, field.name)
            if values is None:
                continue
            if isinstance(values, str | Tensor) or not isinstance(values, Collection):
                raise ArgumentTypeError(field.name, values, "a collection of integers, or None")
            for value in values:
                check_integer(field.name, value, -(2**31) if field.name == "positions" else 0)

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return all(getattr(self, field.name) is None for field in fields(self))

    def mask(self, value: Tensor, call: Call) -> Tensor:
        """Returns which numbers of a value are selected: bool, of a shape that broadcasts to the value's.

        Raises:
            ArgumentValueError: heads or features that the value does not have.
        """
        selected = torch.ones((1,) * value.dim(), dtype=torch.bool, device=value.device)
        for dim, kept in (
            (0, self._rows(value, call)),
            (1, self._indices("heads", value, call)),
            (-1, self._indices("features", value, call)),
        ):
            if kept is not None:
                shape = [1] * value.dim()
                shape[dim] = -1
                selected = selected & kept.view(shape)
        if self.positions is not None:
            selected = selected & self._positions(value, call)
        return selected

    def _rows(self, value: Tensor, call: Call) -> Tensor | None:
        """Returns which rows are selected: (B,) bool."""
        if self.rows is None:
            return None
        prompts = torch.arange(len(value), device=value.device) if call.prompts is None else call.prompts
        return torch.isin(prompts, torch.tensor([*self.rows], device=value.device))

    def _indices(self, name: str, value: Tensor, call: Call) -> Tensor | None:
        """Returns which heads or features are selected: (H,) or (D,) bool."""
        indices = getattr(self, name)
        if indices is None:
            return None
        if name == "heads" and not call.place.is_per_head:
            raise ArgumentValueError("heads", indices, f"None, since {call.place.name} is not per head")
        size = value.shape[1 if name == "heads" else -1]
        if max(indices, default=0) >= size:
            raise ArgumentValueError(name, indices, f"from 0 to {size - 1} for {call.place.name}")
        return torch.isin(
            torch.arange(size, device=value.device), torch.tensor([*indices], device=value.device)
        )

    def _positions(self, value: Tensor, call: Call) -> Tensor:
        """Returns which tokens are selected: (B or 1, T) bool, in the shape of the value."""
        dim = call.place.token_dim
        if value.dim() <= dim:
            expected = f"None, since {call.place.name} has no dimension of tokens"
            raise ArgumentValueError("positions", self.positions, expected)
        time = value.shape[dim]
        places = torch.arange(time, device=value.device)[None] + call.start  # (1, T)
        if call.padding is not None:
            places = places - call.padding[:, None]
        wanted = [p for p in self.positions or () if p >= 0]
        last = [time + p for p in self.positions or () if p < 0]
        selected = torch.isin(places, torch.tensor(wanted, device=value.device, dtype=torch.long))
        from_end = torch.arange(time, device=value.device)[None]
        selected = selected | torch.isin(from_end, torch.tensor(last, device=value.device, dtype=torch.long))
        shape = [len(selected), *[1] * (value.dim() - 1)]
        shape[dim] = time
        return selected.view(shape)
