"""Path patching (arXiv:2304.05969): the effect of one part on another through the direct path alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from minitx.inspect.analysis.metrics import Metric
from minitx.inspect.analysis.patching.activation import Names, Runs, prepare_runs, recorded
from minitx.inspect.analysis.patching.cells import By, Cell, PatchingGrid, Replacement, lay_out
from minitx.inspect.inputs import Inputs, repeated, run
from minitx.inspect.taps import Selection, record, tap
from minitx.models import Model
from minitx.models.taps import Call, match_places
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_flags, check_integer

Receivers = str | Collection[str] | Mapping[str, Selection]
HEADS, NETWORKS = "**.mixed", "**.layers.*.intermediate"


def path_patching(
    model: Model,
    clean: Inputs,
    corrupted: Inputs,
    metric: Metric,
    senders: Names,
    receivers: Receivers = "logits",
    *,
    by: By = "head",
    through_networks: bool = False,
    tokenizer: Tokenizer | None = None,
    batch_size: int = 32,
) -> PatchingGrid:
    """Replaces each sender by its clean value along its direct paths to the receivers only.

    Two forwards for each sender. In the first the sender is replaced and the outputs of all other heads and
    networks are held at those of the corrupted run, so that the sender reaches a receiver through residual
    connections and norms alone. In the second the receivers get the values of the first, and everything after
    them is computed anew.

    Args:
        model: any model whose output has logits.
        clean: a text or texts, ids (B, T), or the arguments of a forward by name.
        corrupted: likewise, of the same shape.
        metric: of the logits, as for `patching_grid`.
        senders: names or patterns, the rows of the grid, such as `**.mixed`.
        receivers: names or patterns, or a dict from names to the `Selection` of their heads, positions or
            features; such as {"decoder.layers.3.attention.self_attention.query": Selection(heads=[1])}.
        by: columns of the grid: "head", "position" or "place".
        through_networks: compute the feed-forward networks anew in the first forward too, so that a path may
            lead through them.
        tokenizer: for texts, and for the names of tokens.
        batch_size: copies of the inputs in one forward.

    Returns:
        The metric for each sender.

    Raises:
        ArgumentTypeError, ArgumentValueError: as `patching_grid`.

    Example:
        >>> path = "decoder.layers.5.attention.self_attention.query"
        >>> receivers = {path: minitx.inspect.Selection(heads=[2])}
        >>> minitx.inspect.path_patching(model, clean, corrupted, metric, "**.mixed", receivers)
    """
    check_integer("batch_size", batch_size, 1)
    check_flags(through_networks=through_networks)
    runs = prepare_runs(model, clean, corrupted, metric, tokenizer)
    parts = _receivers(model, receivers)
    values, at_clean = runs.values(senders)
    layout = lay_out(match_places(model, *values), values, by, runs.tokens)
    frozen_names = [HEADS] if through_networks else [HEADS, NETWORKS]
    frozen, at_corrupted = recorded(model, runs.corrupted, frozen_names, metric)
    outcomes = []
    with torch.no_grad():
        for cells in layout.chunks(batch_size):
            received = _received(runs, cells, values, frozen, [*parts])
            outcomes.append(_outcome(runs, len(cells), parts, received))
    return layout.grid(torch.cat(outcomes), at_clean, at_corrupted)


def _receivers(model: Model, receivers: Receivers) -> dict[str, Selection]:
    """Returns the selection of each receiving place."""
    if isinstance(receivers, str):
        receivers = (receivers,)
    chosen = receivers if isinstance(receivers, Mapping) else dict.fromkeys(receivers, Selection())
    parts: dict[str, Selection] = {}
    for pattern, selection in chosen.items():
        if not isinstance(selection, Selection):
            raise ArgumentTypeError("receivers", selection, "a dict from names to Selection(...)")
        if selection.rows is not None:
            raise ArgumentValueError("receivers", selection, "selections of all rows")
        parts |= {place.name: selection for place in match_places(model, pattern)}
    if not parts:
        raise ArgumentTypeError("receivers", receivers, "names of places", "model.taps() lists them")
    return parts


def _received(
    runs: Runs,
    cells: tuple[Cell, ...],
    values: Mapping[str, Tensor],
    frozen: Mapping[str, Tensor],
    receivers: list[str],
) -> dict[str, Tensor]:
    """Runs the first forward. Returns the values at the receivers: (copies * B, ...) each."""
    replacement, copies = Replacement(cells, values), len(cells)

    def _freeze(value: Tensor, call: Call) -> Tensor:
        held = frozen[call.place.name]
        return held.repeat(copies, *[1] * (held.dim() - 1))

    with (
        tap(runs.model, [*frozen], _freeze),
        tap(runs.model, replacement.names, replacement),  # after the freezing: it wins at the sender
        record(runs.model, *receivers) as seen,
    ):
        run(runs.model, repeated(runs.corrupted, copies))
    return {name: seen.calls(name)[0] for name in receivers}


def _outcome(
    runs: Runs, copies: int, parts: Mapping[str, Selection], received: Mapping[str, Tensor]
) -> Tensor:
    """Runs the second forward. Returns the metric of each copy: (copies,)."""

    def _receive(value: Tensor, call: Call) -> Tensor:
        return torch.where(parts[call.place.name].mask(value, call), received[call.place.name], value)

    with tap(runs.model, [*parts], _receive):
        logits = run(runs.model, repeated(runs.corrupted, copies))
    return runs.metrics(logits, copies)
