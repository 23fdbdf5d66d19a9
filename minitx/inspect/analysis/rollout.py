"""Attention rollout (arXiv:2005.00928): the product of the attention weights of all layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from minitx.inspect.analysis.table import Grid
from minitx.inspect.inputs import Inputs, ids_of, prepare
from minitx.inspect.taps import Record, record
from minitx.inspect.taps.edit import num_layers, stack_of
from minitx.inspect.tokens import TokenNames, names_of_rows
from minitx.models import Model
from minitx.tokenizer import Tokenizer
from minitx.validation import Interval, check_choice, check_integer, check_number

_REDUCE: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda weights: weights.mean(dim=1),
    "max": lambda weights: weights.amax(dim=1),
    "min": lambda weights: weights.amin(dim=1),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class AttentionRollout:
    """The share of each input token in each position after the last layer; `print` shows it.

    Attributes:
        values: (B, T, S); each line sums up to 1.
        queries: names of the tokens at the positions, row by row: (B, T).
        keys: names of the input tokens, row by row: (B, S). Of a decoder with an encoder: those of the
            source, then those of the decoder.
        axes: names of the axes of `values`.
    """

    axes: ClassVar[tuple[str, ...]] = ("row", "position", "input")
    values: Tensor
    queries: TokenNames
    keys: TokenNames

    def grid(self, row: int = 0) -> Grid:
        """Returns the shares of one row of the batch.

        Raises:
            ArgumentTypeError, ArgumentValueError: a row that does not exist.
        """
        row = check_integer("row", row, 0, len(self.values) - 1)
        return Grid(
            values=self.values[row],
            axes=("position", "input"),
            rows=self.queries[row],
            columns=self.keys[row],
        )

    def __str__(self) -> str:
        return "\n\n".join(str(self.grid(row)) for row in range(len(self.values)))


def attention_rollout(
    model: Model,
    inputs: Inputs,
    *,
    stack: str | None = None,
    heads: str = "mean",
    residual: float = 0.5,
    tokenizer: Tokenizer | None = None,
) -> AttentionRollout:
    """Follows attention through all layers: the product of (1 - residual) * weights + residual * identity.

    In a decoder with an encoder the cross-attention of each layer is one more factor, from its queries to the
    rollout of the encoder.

    Args:
        model: the model.
        inputs: a text or texts, ids (B, T), or the arguments of a forward by name.
        stack: "encoder" or "decoder" of a model with both; None: the decoder.
        heads: how the heads of a layer become one matrix: "mean", "max" or "min".
        residual: share of the residual connection.
        tokenizer: for texts, and for the names of tokens.

    Returns:
        The shares.

    Raises:
        ArgumentTypeError, ArgumentValueError: a stack or a choice that does not exist, a share outside of
            [0, 1].

    Example:
        >>> rollout = minitx.inspect.attention_rollout(model, "A cat sat.", tokenizer=tokenizer)
        >>> rollout.values[0, 0]  # the first position: (S,)
    """
    arguments = prepare(model, inputs, tokenizer)
    name = stack_of(model, stack)
    check_choice("heads", heads, _REDUCE)
    share = check_number("residual", residual, Interval(0, 1))
    crosses = name == "decoder" and len(model.families) == 2
    stacks = model.families if crosses else (name,)
    with record(model, *(f"{part}.layers.**.weights" for part in stacks)) as seen, torch.no_grad():
        model(**arguments)
    source = _rolled(model, seen, stacks[0], heads, share, None) if crosses else None
    values = _rolled(model, seen, name, heads, share, source)
    rows, time = values.shape[:2]
    queries = names_of_rows(ids_of(model, arguments, name), tokenizer, (rows, time))
    keys = queries
    if source is not None:
        names = names_of_rows(ids_of(model, arguments, stacks[0]), tokenizer, (rows, source.shape[1]))
        keys = tuple(left + right for left, right in zip(names, queries, strict=True))
    return AttentionRollout(values=values, queries=queries, keys=keys)


def _rolled(
    model: Model, seen: Record, stack: str, heads: str, residual: float, source: Tensor | None
) -> Tensor:
    """Returns the rollout of a stack.

    Args:
        model: the model.
        seen: its attention weights.
        stack: name of the stack.
        heads: key of `_REDUCE`.
        residual: share of the residual connection.
        source: rollout of the encoder, (B, S, S); None: no cross-attention.

    Returns:
        (B, T, T), with a source (B, T, S + T).
    """
    rolled: Tensor | None = None
    for layer in range(num_layers(model, stack)):
        path = f"{stack}.layers.{layer}"
        weights = _normalised(seen.calls(f"{path}.attention.self_attention.weights")[0], heads)
        if rolled is None:
            before = 0 if source is None else source.shape[-1]
            identity = torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
            rolled = torch.nn.functional.pad(identity, (before, 0)).expand(len(weights), -1, -1)
        rolled = (1 - residual) * weights @ rolled + residual * rolled
        if source is not None:
            across = _normalised(seen.calls(f"{path}.cross_attention.cross_attention.weights")[0], heads)
            padded = torch.nn.functional.pad(source, (0, rolled.shape[-1] - source.shape[-1]))
            rolled = (1 - residual) * across @ padded + residual * rolled
    assert rolled is not None, "a stack has at least one layer"
    return rolled


def _normalised(weights: Tensor, heads: str) -> Tensor:
    """Returns one matrix for the heads, whose lines sum up to 1: (B, H, T, S) -> (B, T, S)."""
    merged = _REDUCE[heads](weights)
    total = merged.sum(dim=-1, keepdim=True)
    return merged / torch.where(total > 0, total, 1.0)
