"""`record`: the values inside a model, as it computes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from minitx.models import Model
from minitx.models.compiled import check_not_compiled
from minitx.models.taps import Call, Place, match_places, tapped
from minitx.validation import ArgumentValueError, check_callable, check_flags, check_type


class Record(Mapping[str, Tensor]):
    """Recorded values by the names of their places.

    `record[name]` is the value of a forward. After several, as in cached generation, it is that of all their
    tokens: calls are joined along the tokens, and keys that an early call did not have yet get the score of
    masked ones and the weight 0. `calls(name)` has the value of each forward.
    """

    def __init__(self, places: list[Place]) -> None:
        self._places = {place.name: place for place in places}
        self._calls: dict[str, list[Tensor]] = {name: [] for name in self._places}

    def __getitem__(self, name: str) -> Tensor:
        calls = self.calls(name)
        if len(calls) == 1:
            return calls[0]
        place = self._places[name]
        if len({len(value) for value in calls}) > 1:
            hint = "record.calls(name) has the value of each forward"
            raise ArgumentValueError("name", name, "recorded with the same rows in each forward", hint)
        if place.has_key_dim:
            calls = _widened(calls, place.point == "scores")
        return torch.cat(calls, dim=place.token_dim)

    def __contains__(self, name: object) -> bool:
        return bool(self._calls.get(name)) if isinstance(name, str) else False

    def __iter__(self) -> Iterator[str]:
        return (name for name, calls in self._calls.items() if calls)

    def __len__(self) -> int:
        return sum(bool(calls) for calls in self._calls.values())

    def __repr__(self) -> str:
        rows = [f"  {name}: {_shapes(self.calls(name))}" for name in self]
        return "\n".join([f"Record of {len(self)} values", *rows])

    def calls(self, name: str) -> list[Tensor]:
        """Returns the value of each forward.

        Raises:
            ArgumentValueError: a name that is not recorded, or that no forward has computed.
        """
        if name not in self._calls:
            hint = f"recorded are {', '.join([*self._calls][:4])}{' ...' * (len(self._calls) > 4)}"
            raise ArgumentValueError("name", name, "the name of a recorded value", hint)
        if not self._calls[name]:
            raise ArgumentValueError("name", name, "the name of a computed value", "run the model first")
        return [*self._calls[name]]

    def place(self, name: str) -> Place:
        """Returns the place of a value."""
        return self._places[name]

    def clear(self) -> None:
        """Forgets the values."""
        for calls in self._calls.values():
            calls.clear()


def check_tappable(model: Model) -> None:
    """Checks that this is a model of minitx, outside of a wrapper such as torch.compile's."""
    check_not_compiled(model)
    check_type("model", model, Model, "a model of minitx", "minitx.load(...) returns one")


def _shapes(calls: list[Tensor]) -> str:
    """Returns the shapes of a value as text."""
    shapes = [str(tuple(value.shape)) for value in calls]
    return shapes[0] if len(shapes) == 1 else f"{shapes[0]} and {len(shapes) - 1} more"


def _widened(calls: list[Tensor], scores: bool) -> list[Tensor]:
    """Adds keys to scores or weights, so that all have those of the last one: (B, H, T, S) each."""
    size = calls[-1].shape[-1]
    fill = torch.finfo(calls[-1].dtype).min if scores else 0.0
    return [torch.nn.functional.pad(value, (0, size - value.shape[-1]), value=fill) for value in calls]


@contextmanager
def record(
    model: Model,
    *names: str,
    gradients: bool = False,
    reduce: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Record]:
    """Records values inside a model.

    The outputs of the model stay the same, bit for bit.

    Args:
        model: the model; every forward inside the `with` is recorded, those of `generate` too.
        names: of places (`model.taps()` lists them), or patterns: `*` stands for one part of a name, `**` for
            any number.
        gradients: keep the values in the graph, so that `.grad` of each is set by a backward pass. Attention
            whose scores or weights are recorded then runs step by step instead of in a fused kernel, and its
            last digits may differ.
        reduce: applied to each value before it is kept, for example `lambda x: x[:, -1]`.

    Yields:
        The values; they remain after the `with`.

    Raises:
        ArgumentTypeError: not a model, or not names.
        ArgumentValueError: a name that matches nothing.

    Example:
        >>> with minitx.inspect.record(model, "**.weights") as seen:
        ...     model(**batch)
        >>> seen["encoder.layers.0.attention.self_attention.weights"].shape
    """
    check_tappable(model)
    check_flags(gradients=gradients)
    if reduce is not None:
        check_callable("reduce", reduce)
    places = match_places(model, *names)
    values = Record(places)

    def _keep(value: Tensor, call: Call) -> Tensor | None:
        kept = value if gradients else value.detach()
        values._calls[call.place.name].append(kept if reduce is None else reduce(kept))
        return None

    def _keep_graph(value: Tensor, call: Call) -> Tensor | None:
        if not value.is_floating_point():
            return _keep(value, call)
        in_graph = value.view_as(value) if value.requires_grad else value.detach().requires_grad_()
        in_graph.retain_grad()
        _keep(in_graph, call)
        return in_graph

    function = _keep_graph if gradients else _keep
    if not places:
        raise ArgumentValueError("names", names, "at least one name", "model.taps() lists them")
    with tapped(model, [(place, function) for place in places]):
        yield values
