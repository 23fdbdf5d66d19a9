"""Edits of the values inside a model: `tap`, `patch`, `steer`, `freeze`; `ablate` is in ablate.py.

Each is a context manager. They compose: at one place the functions run in the order in which they began, each
on the value that the one before returned. They hold in every forward inside the `with`, those of `generate`,
`stream` and searches included.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from minitx.inspect.taps.record import Record, check_tappable
from minitx.inspect.taps.select import Selection
from minitx.models import Model
from minitx.models.taps import Call, Place, TapFunction, match_places, run_order, tapped
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    Interval,
    check_callable,
    check_choice,
    check_integer,
    check_number,
    check_tensor,
    check_type,
)

Names = str | Collection[str]


@contextmanager
def tap(model: Model, names: Names, function: TapFunction) -> Iterator[None]:
    """Runs a function on values inside a model; every other edit is made of it.

    Args:
        model: the model.
        names: of places, or patterns as for `record`.
        function: takes the value, which it must not change in place, and a `Call` with its place and the
            position of its first token; returns another value of the same shape, or None.

    Raises:
        ArgumentTypeError: not a model, names or a function.
        ArgumentValueError: a name that matches nothing.
        ValueError: a value was never computed though its stack ran; the function returned another shape.

    Example:
        >>> with minitx.inspect.tap(model, "**.intermediate.activation", lambda x, call: x.relu()):
        ...     model(**batch)
    """
    check_tappable(model)
    check_callable("function", function)
    places = places_of(model, names)

    def _checked(value: Tensor, call: Call) -> Tensor | None:
        replacement = function(value, call)
        if replacement is not None:
            name = f"the replacement of {call.place.name}"
            check_tensor(name, replacement)
            if replacement.shape != value.shape or replacement.dtype != value.dtype:
                expected = f"a tensor of shape {tuple(value.shape)} and {value.dtype}"
                raise ArgumentValueError(name, replacement, expected)
        return replacement

    with tapped(model, [(place, _checked) for place in places], required=True):
        yield


@contextmanager
def patch(
    model: Model,
    names: Names | Mapping[str, Tensor | float],
    value: Record | Tensor | float | None = None,
    *,
    rows: Collection[int] | None = None,
    positions: Collection[int] | None = None,
    heads: Collection[int] | None = None,
    features: Collection[int] | None = None,
) -> Iterator[None]:
    """Replaces values inside a model.

    A value with tokens replaces those at the same positions; later tokens stay as they are computed, so that
    the activations of a prompt can be patched into a generation that begins with it.

    Args:
        model: the model.
        names: of places, or patterns as for `record`; or a dict from names to values.
        value: a record of the places, of this model or one of the same sizes; or a tensor that broadcasts to
            the value; or a number.
        rows: as for `Selection`, whose other fields follow too.
        positions: of tokens.
        heads: of places with heads.
        features: of the last dimension.

    Raises:
        ArgumentTypeError, ArgumentValueError: a name that matches nothing or is not in the record, a tensor
            that does not fit, parts that the value does not have.

    Example:
        >>> with minitx.inspect.record(model, "**.mixed") as clean:
        ...     model(clean_ids)
        >>> with minitx.inspect.patch(model, "decoder.layers.2.**.mixed", clean, heads=[3]):
        ...     model(corrupted_ids)
    """
    part = Selection(rows=rows, positions=positions, heads=heads, features=features)
    if isinstance(names, Mapping):
        if value is not None:
            raise ArgumentValueError("value", value, "None, since names has the values")
        values: dict[str, Any] = {**names}
    else:
        values = {place.name: value for place in places_of(model, names)}
    for name, source in values.items():
        values[name] = _source("value", source, name)

    def _replacement(x: Tensor, call: Call) -> Tensor | None:
        return replace_part(x, values[call.place.name], part, call)

    with tap(model, [*values], _replacement):
        yield


@contextmanager
def steer(
    model: Model,
    vector: Tensor,
    layer: int,
    scale: float = 1.0,
    *,
    stack: str | None = None,
    rows: Collection[int] | None = None,
    positions: Collection[int] | None = None,
) -> Iterator[None]:
    """Adds a vector to the residual stream after a layer (arXiv:2308.10248).

    Args:
        model: the model.
        vector: (E,).
        layer: number of the layer; -1 is the last one.
        scale: multiplies the vector.
        stack: "encoder" or "decoder" of a model with both; None: the decoder.
        rows: as for `Selection`.
        positions: of tokens.

    Raises:
        ArgumentTypeError, ArgumentValueError: a vector of another size, a layer that does not exist.

    Example:
        >>> with minitx.inspect.steer(model, joy - sadness, layer=3, scale=4.0):
        ...     minitx.generate(model, "It was a", tokenizer=tokenizer)
    """
    check_tappable(model)
    check_tensor("vector", vector)
    scale = check_number("scale", scale, Interval(-torch.inf, torch.inf))
    part = Selection(rows=rows, positions=positions)
    place = _residual_after(model, layer, stack)

    def _steered(x: Tensor, call: Call) -> Tensor:
        if tuple(vector.shape) != x.shape[-1:]:
            raise ArgumentValueError("vector", vector, f"of shape ({x.shape[-1]},)")
        return torch.where(part.mask(x, call), x + scale * vector.to(x), x)

    with tap(model, place, _steered):
        yield


@contextmanager
def freeze(model: Model, names: Names, reference: Record | None = None) -> Iterator[None]:
    """Holds values fixed, while other parts of the model are changed.

    Args:
        model: the model.
        names: of places, or patterns as for `record`.
        reference: a record of the places; None: the values of the first forward inside the `with`, which
            every later one has to match in shape.

    Raises:
        ArgumentTypeError, ArgumentValueError: a name that matches nothing or is not in the record.

    Example:
        >>> with minitx.inspect.freeze(model, "**.weights", seen):
        ...     model(other_ids)  # attends as the recorded run did
    """
    if reference is not None:
        with patch(model, names, reference):
            yield
        return
    first: dict[str, Tensor] = {}

    def _first(x: Tensor, call: Call) -> Tensor | None:
        value = first.setdefault(call.place.name, x.detach())
        return None if value is x else value

    with tap(model, names, _first):
        yield


def replace_part(x: Tensor, value: Tensor | float, part: Selection, call: Call) -> Tensor | None:
    """Returns a value with a part replaced; None: nothing of it is selected.

    Args:
        x: the value.
        value: of the whole sequence, of its first tokens, or one that broadcasts.
        part: what is replaced.
        call: of the value.

    Raises:
        ArgumentValueError: a value that does not fit.
    """
    if not isinstance(value, Tensor):
        return torch.where(part.mask(x, call), torch.full_like(x, value), x)
    value, covered = _aligned(x, value.to(x), call)
    if covered == 0:
        return None
    try:
        value = value.expand_as(x)
    except RuntimeError:
        expected = f"of a shape that broadcasts to {tuple(x.shape)}"
        raise ArgumentValueError(f"the value for {call.place.name}", value, expected) from None
    mask = part.mask(x, call)
    dim = call.place.token_dim
    if x.dim() > dim and covered < x.shape[dim]:
        shape = [1] * x.dim()
        shape[dim] = -1
        mask = mask & (torch.arange(x.shape[dim], device=x.device) < covered).view(shape)
    return torch.where(mask, value, x)


def _aligned(x: Tensor, value: Tensor, call: Call) -> tuple[Tensor, int]:
    """Returns a value for the rows, tokens and keys of a call, and how many of its tokens it has.

    Args:
        x: the value of the call.
        value: of the tokens from position 0 on, if it has that dimension.
        call: of the value.
    """
    dim = call.place.token_dim
    if x.dim() <= dim or value.dim() != x.dim():
        return value, x.shape[dim] if x.dim() > dim else 1
    if call.prompts is not None and 1 < len(value) != len(x) and int(call.prompts.max()) < len(value):
        value = value[call.prompts]  # one row per prompt
    if call.place.has_key_dim and value.shape[-1] != x.shape[-1] and value.shape[-1] != 1:
        keys = x.shape[-1] - value.shape[-1]
        value = torch.nn.functional.pad(value, (0, max(keys, 0)))[..., : x.shape[-1]]
    time = x.shape[dim]
    if value.shape[dim] == 1 or (value.shape[dim] == time and call.start == 0):
        return value, time
    covered = min(max(value.shape[dim] - call.start, 0), time)
    value = value.narrow(dim, min(call.start, value.shape[dim]), covered)
    padding = [0, 0] * (x.dim() - 1 - dim) + [0, time - covered]
    return torch.nn.functional.pad(value, padding), covered


def places_of(model: Model, names: Names) -> list[Place]:
    """Returns the places of names or patterns."""
    check_tappable(model)
    if isinstance(names, str):
        names = (names,)
    if not isinstance(names, Collection) or not names:
        raise ArgumentTypeError("names", names, "names of places", "model.taps() lists them")
    return match_places(model, *names)


def _source(parameter: str, value: Any, name: str) -> Tensor | float:
    """Returns what replaces the value of a place: from a record, a tensor or a number."""
    if isinstance(value, Record):
        return value[name]
    check_type(parameter, value, Tensor | float | int, "a Record, a tensor or a number")
    source: Tensor | float = value
    return source


def stack_of(model: Model, stack: str | None) -> str:
    """Returns the name of a stack; None: the one that the head follows, the decoder if there are two.

    Raises:
        ArgumentValueError: a stack that the model does not have.
    """
    return model.families[-1] if stack is None else str(check_choice("stack", stack, model.families))


def num_layers(model: Model, stack: str) -> int:
    """Returns the number of steps of a stack: a layer that several steps share counts in each."""
    return len(run_order(model.get_submodule(stack)))


def check_layer(parameter: str, model: Model, stack: str, layer: int) -> int:
    """Returns the number of a layer, from 0."""
    count = num_layers(model, stack)
    return check_integer(parameter, layer, -count, count - 1, f"the {stack} runs {count} layers") % count


def _residual_after(model: Model, layer: int, stack: str | None) -> str:
    """Returns the name of the residual stream after a layer."""
    name = stack_of(model, stack)
    return f"{name}.layers.{check_layer('layer', model, name, layer)}.residual.after"
