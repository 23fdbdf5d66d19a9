"""Chains whose processors have one value per row of the call, for the rows that run at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from minitx.decoding.processors.base import LogitsProcessor, NumericProcessor, label, positional_fields
from minitx.decoding.processors.chain import Chain
from minitx.decoding.processors.constraints import PrefixAllowed
from minitx.validation import ArgumentValueError


def has_values_per_row(chain: Chain) -> bool:
    """Whether a processor depends on the number of a row.

    Raises:
        ArgumentValueError: one whose values cannot be chosen for other rows.
    """
    fixed = [p for p in chain.processors if isinstance(p, LogitsProcessor) and not p.batch_invariant]
    for processor in fixed:
        if isinstance(processor, Chain):
            has_values_per_row(processor)
        elif not isinstance(processor, NumericProcessor | PrefixAllowed):
            hint = f"{label(processor)} knows rows by their place in the batch"
            raise ArgumentValueError("strategy", processor, "without it for many prompts", hint)
    return bool(fixed)


def for_rows(chain: Chain, rows: Sequence[int]) -> Chain:
    """Returns the chain for a batch that has these rows of the call, in this order."""
    return Chain(*(_for_rows(processor, rows) for processor in chain.processors))


def _for_rows(processor: Any, rows: Sequence[int]) -> Any:
    if not isinstance(processor, LogitsProcessor) or processor.batch_invariant:
        return processor
    if isinstance(processor, Chain):
        return for_rows(processor, rows)
    if isinstance(processor, PrefixAllowed):
        return replace(processor, function=_renumbered(processor.function, rows))
    numeric: Any = processor  # the others are refused before
    changes = {positional_fields(numeric)[0]: tuple(numeric.value[row] for row in rows)}
    return replace(numeric, **changes)


def _renumbered(
    function: Callable[[int, Tensor], Sequence[int] | Tensor], rows: Sequence[int]
) -> Callable[[int, Tensor], Sequence[int] | Tensor]:
    """Returns the function of a row's number in the call, called with its place in the batch."""
    return lambda place, tokens: function(rows[place], tokens)
