"""What a processor is, and what those of this package say of themselves. B rows, V vocabulary."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from minitx.decoding.checks import PerRow
from minitx.decoding.processors.context import Context

# A tensor whose first dimension is B, or a tuple, list or dict of such states. () is the state of nothing.
State = Any


class Processor(Protocol):
    """One step from logits to logits: `Sample(processors=[mine])` puts one's own before the temperature.

    Rows are prompts times samples, those of one prompt one after the other; of a search, prompts times beams.
    Rows that have ended are still among them, until all have. There may be more calls than tokens (for
    `explain`, and where a processor has states), so that what a call gives must follow from its arguments.
    """

    def __call__(self, logits: Tensor, context: Context, /) -> Tensor:
        """
        Args:
            logits: (B, V) float32, on the model's device; -inf for a token that cannot be drawn. One's own
                function gets a copy, and may write into it.
            context: the tokens so far of each row.

        Returns:
            (B, V), of the same type.
        """
        ...


@runtime_checkable
class StatefulProcessor(Protocol):
    """A processor whose state is carried by whoever calls it."""

    def init(self, context: Context) -> State:
        """The state before the first token is drawn."""
        ...

    def update(self, state: State, context: Context, token: Tensor, logits: Tensor) -> State:
        """The state after a token was drawn. A new state.

        Args:
            state: the one that the processor was called with.
            context: what the token was drawn with; it does not have it yet.
            token: (B,)
            logits: (B, V), what the processor was given; how surprising the token was is in there.
        """
        ...

    def __call__(self, logits: Tensor, context: Context, state: State, /) -> Tensor:
        """(B, V) -> (B, V)."""
        ...


class LogitsProcessor:
    """A processor of this package. It leaves its argument alone, so that it needs no copy of it.

    Attributes:
        elementwise: it does not ask which token a logit belongs to, so that it can do with some of them.
    """

    elementwise: ClassVar[bool] = False

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        raise NotImplementedError

    @property
    def batch_invariant(self) -> bool:
        """Whether it does the same to a row wherever that stands, so that rows before it may leave."""
        return not any(isinstance(value, PerRow) for value in vars(self).values())

    def keeps_log_probs_nonpositive(self, below: bool) -> bool:
        """Whether what it leaves is at most 0. Most only ban, or take factors above 0, which keep it there.

        A search counts on this: the model's log-probabilities are at most 0, so a text that goes on can only
        lose, unless a processor makes it win.

        Args:
            below: whether what it is given is at most 0.
        """
        return below
