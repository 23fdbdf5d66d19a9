"""Activation patching: which value of a clean run repairs a corrupted one (arXiv:2202.05262, section 2).

`patching_grid` runs the model for each value; `attribution_patching` estimates all of them from one gradient
(arXiv:2310.10348).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minitx.inspect.analysis.metrics import Metric, mean_of
from minitx.inspect.analysis.patching.cells import By, Layout, PatchingGrid, Replacement, lay_out
from minitx.inspect.inputs import Inputs, ids_of, prepare, repeated, run
from minitx.inspect.taps import record, tap
from minitx.inspect.taps.edit import stack_of
from minitx.inspect.tokens import names_of_rows
from minitx.models import Model
from minitx.models.taps import match_places
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentValueError, check_callable, check_integer

Names = str | Collection[str]
_MAY_DIFFER = ("attention_mask", "decoder_attention_mask", "token_type_ids")


@dataclass(frozen=True, eq=False)
class Runs:
    """A clean run, a corrupted one of the same shape, and the metric.

    Attributes:
        model: the model.
        clean: arguments of the clean run.
        corrupted: arguments of the corrupted run.
        metric: of the logits.
        tokens: names of the clean tokens of the first row, by their number, for the axis of positions.
    """

    model: Model
    clean: dict[str, Any]
    corrupted: dict[str, Any]
    metric: Metric
    tokens: dict[int, tuple[str, ...]]

    def values(self, names: Names) -> tuple[dict[str, Tensor], float]:
        """Returns values of the clean run, and its metric."""
        return recorded(self.model, self.clean, names, self.metric)

    def metrics(self, logits: Tensor, copies: int) -> Tensor:
        """Returns the metric of each copy of the inputs: (copies * B, ...) -> (copies,)."""
        return torch.stack([mean_of(self.metric, part) for part in logits.chunk(copies)])


def recorded(
    model: Model, arguments: Mapping[str, Any], names: Names, metric: Metric
) -> tuple[dict[str, Tensor], float]:
    """Returns values of a run by name of their place, and the metric of its logits."""
    patterns = (names,) if isinstance(names, str) else tuple(names)
    with record(model, *patterns) as seen, torch.no_grad():
        logits = run(model, arguments)
    return {name: seen.calls(name)[0] for name in seen}, float(mean_of(metric, logits))


def prepare_runs(
    model: Model, clean: Inputs, corrupted: Inputs, metric: Metric, tokenizer: Tokenizer | None
) -> Runs:
    """Returns two runs of the same shape.

    Raises:
        ArgumentTypeError, ArgumentValueError: inputs of different shapes, or that do not fit the model.
    """
    check_callable("metric", metric, "logit_difference returns one")
    sides = {"clean": prepare(model, clean, tokenizer), "corrupted": prepare(model, corrupted, tokenizer)}
    for name in sides["clean"].keys() | sides["corrupted"].keys():
        sizes = [tuple(getattr(side.get(name), "shape", ())) for side in sides.values()]
        if sizes[0] != sizes[1] and name not in _MAY_DIFFER:
            expected = f"inputs with {name} of shape {sizes[0]}, like the clean ones, not {sizes[1]}"
            hint = "each token of one run takes the place of a token of the other"
            raise ArgumentValueError("corrupted", corrupted, expected, hint)
    names = {}
    for stack in model.families:
        ids = ids_of(model, sides["clean"], stack)
        if ids is not None:
            names[ids.shape[1]] = names_of_rows(ids, tokenizer, (len(ids), ids.shape[1]))[0]
    return Runs(model, sides["clean"], sides["corrupted"], metric, names)


def stream_of(model: Model) -> str:
    """Returns the pattern of the residual stream before each layer of the stack that the head follows."""
    return f"{stack_of(model, None)}.layers.*.residual.before"


def patching_grid(
    model: Model,
    clean: Inputs,
    corrupted: Inputs,
    metric: Metric,
    places: Names | None = None,
    *,
    by: By = "position",
    tokenizer: Tokenizer | None = None,
    batch_size: int = 32,
) -> PatchingGrid:
    """Replaces one part at a time of the corrupted run by that of the clean run, and measures the effect.

    Swap the two runs to see which values break the clean one.

    Args:
        model: any model whose output has logits.
        clean: a text or texts, ids (B, T), or the arguments of a forward by name.
        corrupted: likewise, of the same shape.
        metric: of the logits, (B,) or a scalar; `logit_difference` returns one. Rows are averaged.
        places: names or patterns, the rows of the grid; None: the residual stream before each layer.
        by: columns of the grid: "position" (tokens), "head" (of places such as `**.mixed`, at all positions)
            or "place" (one column, whole values).
        tokenizer: for texts, and for the names of tokens.
        batch_size: copies of the inputs in one forward.

    Returns:
        The metric for each part.

    Raises:
        ArgumentTypeError, ArgumentValueError: inputs of different shapes, a name that matches nothing, places
            without heads or with different numbers of tokens, a metric that returns something else.

    Example:
        >>> metric = minitx.inspect.logit_difference(" Mary", " John", tokenizer=tokenizer)
        >>> grid = minitx.inspect.patching_grid(model, clean, corrupted, metric, tokenizer=tokenizer)
        >>> print(grid)
        >>> minitx.inspect.patching_grid(model, clean, corrupted, metric, "**.mixed", by="head").top(3)
    """
    check_integer("batch_size", batch_size, 1)
    runs = prepare_runs(model, clean, corrupted, metric, tokenizer)
    values, layout, at_clean = _lay_out(runs, places, by)
    metrics: list[Tensor] = []
    with torch.no_grad():
        at_corrupted = float(mean_of(metric, run(model, runs.corrupted)))
        for cells in layout.chunks(batch_size):
            replacement = Replacement(cells, values)
            with tap(model, replacement.names, replacement):
                logits = run(model, repeated(runs.corrupted, len(cells)))
            metrics.append(runs.metrics(logits, len(cells)))
    return layout.grid(torch.cat(metrics), at_clean, at_corrupted)


def attribution_patching(
    model: Model,
    clean: Inputs,
    corrupted: Inputs,
    metric: Metric,
    places: Names | None = None,
    *,
    by: By = "position",
    tokenizer: Tokenizer | None = None,
) -> PatchingGrid:
    """Estimates `patching_grid` from the gradient of the metric in the corrupted run.

    metric(corrupted) + gradient * (clean - corrupted): three passes for the whole grid, exact where the model
    is linear. Arguments and errors are those of `patching_grid`.

    Args:
        model: any model whose output has logits.
        clean: inputs.
        corrupted: inputs of the same shape.
        metric: of the logits, differentiable.
        places: names or patterns; None: the residual stream before each layer.
        by: "position", "head" or "place".
        tokenizer: for texts, and for the names of tokens.

    Returns:
        The estimated metric for each part.

    Raises:
        ArgumentTypeError, ArgumentValueError: as `patching_grid`.
    """
    runs = prepare_runs(model, clean, corrupted, metric, tokenizer)
    values, layout, at_clean = _lay_out(runs, places, by)
    with record(model, *layout.places, gradients=True) as seen, torch.enable_grad():
        outcome = mean_of(metric, run(model, runs.corrupted))  # a scalar
        inside = [seen.calls(name)[0] for name in layout.places]
    chosen = [value for value in inside if value.is_floating_point()]
    gradients = iter(torch.autograd.grad(outcome, chosen, allow_unused=True))
    effects = []
    for name, value in zip(layout.places, inside, strict=True):
        gradient = next(gradients) if value.is_floating_point() else None
        change = torch.zeros_like(value) if gradient is None else gradient * (values[name] - value.detach())
        effects.append(change)
    parts = [
        effects[layout.places.index(cell.place.name)].sum()
        if cell.dim is None
        else effects[layout.places.index(cell.place.name)].select(cell.dim, cell.index).sum()
        for cell in layout.cells
    ]
    at_corrupted = outcome.detach()
    return layout.grid(at_corrupted + torch.stack(parts), at_clean, float(at_corrupted))


def _lay_out(runs: Runs, places: Names | None, by: By) -> tuple[dict[str, Tensor], Layout, float]:
    """Returns the values of the clean run, the cells of the grid, and the clean metric."""
    names = stream_of(runs.model) if places is None else places
    values, at_clean = runs.values(names)
    matched = match_places(runs.model, *values)
    return values, lay_out(matched, values, by, runs.tokens), at_clean
