"""The interfaces of a processor, and the base classes of those of this package. B rows, V vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from minitx.decoding.parameters import Rule, set_frozen
from minitx.decoding.processors.context import Context
from minitx.device import constant, like
from minitx.validation import ArgumentValueError

# A tensor whose first dimension is B, or a tuple, list or dict of such states. () is the empty state. None
# as an argument is the state before the first token.
State = Any


class Processor(Protocol):
    """One step from logits to logits: `Sample(processors=[custom])` applies it before the temperature.

    Rows are prompts times samples, those of one prompt adjacent; in a search, prompts times beams. Finished
    rows stay in the batch until all are finished. A processor may be called more often than tokens are
    generated (by `explain`, and in chains with states), so its output must depend on its arguments alone.
    """

    def __call__(self, logits: Tensor, context: Context, /) -> Tensor:
        """Returns the changed logits, (B, V) of the same dtype.

        Args:
            logits: (B, V) float32, on the model's device; -inf for a banned token. Custom functions get a
                copy that they may modify.
            context: the token history of each row.
        """


@runtime_checkable
class StatefulProcessor(Protocol):
    """A processor with a state, which the caller carries from step to step (mirostat, a grammar).

    States are values: a search keeps, reorders and rolls them back as it does tokens.
    """

    def init(self, context: Context) -> State:
        """Returns the state before the first token."""

    def update(self, state: State, context: Context, token: Tensor, logits: Tensor) -> State:
        """Returns a new state, after a token.

        Args:
            state: the state that the processor was called with.
            context: the history that the token was chosen with, without the token.
            token: (B,)
            logits: (B, V), the input of the processor, as for the surprise of the token.
        """

    def __call__(self, logits: Tensor, context: Context, state: State, /) -> Tensor:
        """(B, V) -> (B, V)."""


class LogitsProcessor:
    """Base class of the processors of this package. They do not modify their input, and so need no copy.

    A processor is a frozen dataclass. Its first field is its `value`, which `_check` checks.

    Attributes:
        elementwise: the result does not depend on which tokens the logits belong to, so that the processor
            can be applied to a part of the vocabulary.
        batch_invariant: whether finished rows can be removed from the batch without a change for the others.
        draws: the processor is random, and needs the `Context.keys` of the rows.
    """

    elementwise: ClassVar[bool] = False
    draws: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in positional_fields(self)[:1]:
            set_frozen(self, **{name: self._check(self.value)})

    @property
    def value(self) -> Any:
        """The first field."""
        return getattr(self, positional_fields(self)[0])

    def _check(self, value: Any) -> Any:
        return value

    @property
    def batch_invariant(self) -> bool:
        """Whether the result for a row does not depend on its index in the batch."""
        return True

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        raise NotImplementedError

    def check_rows(self, num_rows: int, rows_per_prompt: int = 1) -> None:
        """Checks that parameters with one value per row have `num_rows` of them.

        Args:
            num_rows: rows of the batch.
            rows_per_prompt: samples or beams of each prompt, for the message.

        Raises:
            ArgumentValueError: another number of values.
        """

    def keeps_log_probs_nonpositive(self, below: bool) -> bool:
        """Whether the output is at most 0. Most processors only ban tokens or multiply by positive factors.

        A search relies on it: as log-probabilities are at most 0, a hypothesis can only lose by continuing,
        unless a processor raises them.

        Args:
            below: whether the input is at most 0.
        """
        return below


@dataclass(frozen=True)
class NumericProcessor(LogitsProcessor):
    """A processor whose first field is one number, or one number per row; subclasses define `apply`."""

    rule: ClassVar[Rule]

    @property
    def batch_invariant(self) -> bool:
        """Whether the result for a row does not depend on its index in the batch."""
        return not isinstance(self.value, tuple)

    def check_rows(self, num_rows: int, rows_per_prompt: int = 1) -> None:
        """See `LogitsProcessor.check_rows`."""
        if isinstance(self.value, tuple) and len(self.value) != num_rows:
            product = f" ({num_rows // rows_per_prompt} prompts x {rows_per_prompt} rows)"
            rows = f"{num_rows} rows{product if rows_per_prompt > 1 else ''}"
            expected, hint = f"one number, or one for each of the {rows}", f"it has {len(self.value)} values"
            raise ArgumentValueError(self.rule.parameter, self.value, expected, hint)

    def _check(self, value: Any) -> Any:
        return self.rule.check(value)

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V); the logits themselves if the processor is off."""
        return logits if self.value == self.rule.off else self.apply(logits, context)

    def apply(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V), where the processor is not off."""
        raise NotImplementedError

    def column(self, logits: Tensor, function: Callable[[float], float] = lambda number: number) -> Any:
        """Returns the number, or the numbers of the rows as a tensor (B, 1) that fits the logits.

        Args:
            logits: (B, V).
            function: applied to each number before.
        """
        if not isinstance(self.value, tuple):
            return function(self.value)
        self.check_rows(logits.shape[0])
        dtype = torch.long if self.rule.interval is None else logits.dtype
        return constant(tuple(map(function, self.value)), dtype, logits.device)[:, None]

    def tensor(self, logits: Tensor) -> Tensor:
        """Returns the number, or the numbers of the rows, as a tensor () or (B, 1) that fits the logits."""
        return like(self.column(logits), logits)


def positional_fields(processor: Any) -> list[str]:
    """Returns the names of the positional fields of a dataclass; none for other objects."""
    return [field.name for field in fields(processor) if not field.kw_only] if is_dataclass(processor) else []


def label(processor: Any) -> str:
    """Returns the name of a processor in tables and errors: "TopK 50", "no_digits"."""
    name = getattr(processor, "__name__", type(processor).__name__)
    names = positional_fields(processor)
    value = getattr(processor, names[0]) if names else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{name} {value:g}"
    return str(name)
