"""`ablate`: heads, neurons or whole values switched off."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from minitx.inspect.taps.edit import Names, check_layer, places_of, stack_of, tap
from minitx.inspect.taps.record import Record, check_tappable
from minitx.inspect.taps.select import Selection
from minitx.models import Model
from minitx.models.taps import Call
from minitx.validation import ArgumentValueError, check_choice, check_integer, check_type

ATTENTION = {False: "attention.self_attention", True: "cross_attention.cross_attention"}


@contextmanager
def ablate(
    model: Model,
    names: Names = (),
    *,
    heads: Mapping[int, Collection[int]] | None = None,
    cross_attention: bool = False,
    stack: str | None = None,
    features: Collection[int] | None = None,
    rows: Collection[int] | None = None,
    positions: Collection[int] | None = None,
    mode: str = "zero",
    reference: Record | None = None,
    seed: int = 0,
) -> Iterator[None]:
    """Switches off heads, neurons or whole values.

    Args:
        model: the model.
        names: of places, or patterns as for `record`.
        heads: attention heads by layer, such as {3: [1, 4]}: the output of each head before the output
            projection.
        cross_attention: `heads` are those of the cross-attention.
        stack: "encoder" or "decoder", whose heads they are; None: of an encoder-decoder, the decoder's.
        features: of the places in `names`: numbers of neurons.
        rows: as for `Selection`.
        positions: of tokens.
        mode: "zero"; "mean": the mean over rows and tokens of the reference; "resample": of the reference, a
            random row and token for each row and token (chosen by `seed`, the same with a cache and without).
        reference: a record of the places, for "mean" and "resample".
        seed: of "resample".

    Raises:
        ArgumentTypeError, ArgumentValueError: no names and no heads, heads that do not exist, a mode without
            its reference.

    Example:
        >>> with minitx.inspect.ablate(model, heads={3: [1, 4]}):
        ...     minitx.generate(model, "It was a", tokenizer=tokenizer)
    """
    check_choice("mode", mode, ("zero", "mean", "resample"))
    if (mode == "zero") != (reference is None):
        expected = 'None for mode="zero"' if mode == "zero" else f"a Record for mode={mode!r}"
        raise ArgumentValueError("reference", reference, expected, "minitx.inspect.record makes one")
    check_integer("seed", seed)
    chosen = _head_places(model, heads or {}, cross_attention, stack)
    selections = {
        name: Selection(rows=rows, positions=positions, heads=heads) for name, heads in chosen.items()
    }
    whole = Selection(rows=rows, positions=positions, features=features)
    selections |= {place.name: whole for place in places_of(model, names)} if names else {}
    if not selections:
        raise ArgumentValueError("names", names, "names of places, or heads", "model.taps() lists the places")
    make = {"zero": _zeros, "mean": _mean, "resample": _resampler(seed)}[mode]
    values = {name: None if reference is None else reference[name] for name in selections}

    def _ablated(x: Tensor, call: Call) -> Tensor:
        name = call.place.name
        return torch.where(selections[name].mask(x, call), make(x, call, values[name]), x)

    with tap(model, [*selections], _ablated):
        yield


def _zeros(x: Tensor, call: Call, reference: Tensor | None) -> Tensor:
    return torch.zeros_like(x)


def _mean(x: Tensor, call: Call, reference: Tensor | None) -> Tensor:
    """Returns the mean over rows and tokens of a reference: (..., of the shape of x with 1 for both)."""
    assert reference is not None, "checked by ablate"
    dims = (0, call.place.token_dim)[: 2 if reference.dim() > call.place.token_dim else 1]
    return reference.mean(dim=dims, keepdim=True).to(x)


def _resampler(seed: int) -> Callable[[Tensor, Call, Tensor | None], Tensor]:
    """Returns the function that chooses rows and tokens of a reference."""

    def _resampled(x: Tensor, call: Call, reference: Tensor | None) -> Tensor:
        assert reference is not None, "checked by ablate"
        dim = call.place.token_dim
        entries = reference.transpose(1, dim).flatten(0, 1)  # (rows * tokens, ...)
        rows = torch.arange(len(x), device=x.device) if call.prompts is None else call.prompts
        places = torch.arange(x.shape[dim], device=x.device) + call.start
        offset = 0 if call.padding is None else call.padding[:, None]
        index = _hashed(rows[:, None], places[None] - offset, seed) % len(entries)  # (B, T)
        return entries[index].transpose(1, dim).to(x)

    return _resampled


def _hashed(rows: Tensor, places: Tensor, seed: int) -> Tensor:
    """Returns a number per row and place that depends on nothing else: (B, 1), (B or 1, T) -> (B, T)."""
    mixed = rows * 0x9E3779B1 + places * 0x85EBCA6B + (seed % 2**31) * 0xC2B2AE35
    for shift in (15, 13, 16):
        mixed = ((mixed & 0xFFFFFFFF) ^ ((mixed & 0xFFFFFFFF) >> shift)) * 0x2C1B3C6D
    return (mixed & 0xFFFFFFFF) >> 8


def _head_places(
    model: Model, heads: Mapping[int, Collection[int]], cross_attention: bool, stack: str | None
) -> dict[str, Collection[int]]:
    """Returns the places of heads by layer: name of the outputs of the heads -> heads."""
    check_tappable(model)
    check_type("heads", heads, Mapping, "a dict from layers to heads, such as {3: [1, 4]}")
    stack = stack_of(model, stack)
    places = {}
    for layer, numbers in heads.items():
        number = check_layer("heads", model, stack, layer)
        places[f"{stack}.layers.{number}.{ATTENTION[cross_attention]}.mixed"] = numbers
    return places
