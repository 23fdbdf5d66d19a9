"""A chain of processors: from the model's logits to those from which a selector takes the token.

A processor is any callable `(logits, context) -> logits`, from (B, V) to (B, V). A plain function of one's
own is one:

    def no_digits(logits, context):
        return logits.index_fill(1, digits, -torch.inf)

    chain = Chain(RepetitionPenalty(1.1), no_digits, TopK(50), Temperature(0.8))

Those of this package leave their argument alone, and get what the step before them handed on. One of one's
own gets a copy, and may write into it.

A processor that remembers something over the steps (mirostat, a grammar) is called with its state,
`(logits, context, state) -> logits`, and has `init` and `update` to make states. States are values: the
chain hands them out and takes them back, and nothing is stored on a processor, so that a search can
keep, reorder and roll back states as it does tokens.

B rows, V vocabulary, K survivors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from minitx.decoding.checks import PerRow, check_rows
from minitx.decoding.processors.base import LogitsProcessor, Processor, State, StatefulProcessor
from minitx.decoding.processors.context import Context
from minitx.decoding.processors.truncation import TopK

# Top-k is continued on its survivors alone where these are at most one token in so many.
_FEW = 8


class Chain:
    """Processors in the order in which they were given. A chain is a (stateful) processor too.

    Two are equal if their processors are.

    Args:
        processors: functions `(logits, context) -> logits`, objects of this package, other chains. Without
            any, logits stay as they are.

    Raises:
        TypeError: something that cannot be called, or a class instead of an instance.
    """

    def __init__(self, *processors: Processor | StatefulProcessor) -> None:
        for processor in processors:
            if isinstance(processor, type):
                raise TypeError(
                    f"A chain got the class {processor.__name__}; make one: {processor.__name__}(...)."
                )
            if not callable(processor):
                raise TypeError(
                    f"A chain got {processor!r}; expected processors such as TopK(50), or functions "
                    "(logits, context) -> logits."
                )
        self.processors = processors

    def __eq__(self, other: object) -> bool:
        """Whether the other has equal processors in the same order."""
        return isinstance(other, Chain) and self.processors == other.processors

    def __hash__(self) -> int:
        return hash(self.processors)

    def __repr__(self) -> str:
        return f"Chain({', '.join(map(repr, self.processors))})"

    def __len__(self) -> int:
        return len(self.processors)

    def check_rows(self, rows: int, per_prompt: int = 1) -> None:
        """
        Args:
            rows: how many the chain will be called with.
            per_prompt: how many of them a prompt has: samples, or beams.

        Raises:
            ValueError: a parameter has values for another number of rows.
        """
        for processor in self.processors:
            if isinstance(processor, Chain):
                processor.check_rows(rows, per_prompt)
            for value in getattr(processor, "__dict__", {}).values():
                if isinstance(value, PerRow):
                    check_rows(value.name, value, rows, per_prompt)

    @property
    def batch_invariant(self) -> bool:
        """Whether all its processors are `LogitsProcessor.batch_invariant`; one's own may not be."""
        return all(isinstance(p, LogitsProcessor | Chain) and p.batch_invariant for p in self.processors)

    def keeps_log_probs_nonpositive(self, below: bool = True) -> bool:
        """As `LogitsProcessor.keeps_log_probs_nonpositive`; False for plain functions, which are unknown."""
        for processor in self.processors:
            below = isinstance(processor, LogitsProcessor | Chain) and processor.keeps_log_probs_nonpositive(
                below
            )
        return below

    def init(self, context: Context) -> State:
        """The states of all processors before the first token is drawn."""
        return tuple(p.init(context) if isinstance(p, StatefulProcessor) else () for p in self.processors)

    def update(self, states: State, context: Context, token: Tensor, logits: Tensor) -> State:
        """The states after `token` (B,) was drawn with `context` (which does not have it yet).

        Args:
            states: those that the chain was called with.
            context: what it was called with.
            token: (B,)
            logits: (B, V), what it was called with; the steps are gone through once more, so that each
                processor is told of the logits that it was given.
        """
        if not any(isinstance(processor, StatefulProcessor) for processor in self.processors):
            return states
        given = [logits, *(after for _, after in self.trace(logits, context, states))]
        return tuple(
            p.update(state, context, token, _for(p, before)) if isinstance(p, StatefulProcessor) else ()
            for p, state, before in zip(self.processors, states, given, strict=False)
        )

    def __call__(self, logits: Tensor, context: Context, states: State | None = None) -> Tensor:
        """(B, V) logits, float32 or float64 -> (B, V); the logits themselves if there is no processor.

        Args:
            logits: the model's, for the next token of each row.
            context: the rows' histories.
            states: from `init` or `update`; None for fresh ones.
        """
        view = _View(logits)
        for _ in self._steps(view, context, states):
            pass
        return view.dense()

    def trace(
        self, logits: Tensor, context: Context, states: State | None = None
    ) -> list[tuple[str, Tensor]]:
        """What the call does, step by step: each processor's label and the (B, V) logits that it left."""
        view = _View(logits)
        return [(label(processor), view.dense()) for processor in self._steps(view, context, states)]

    def raise_for_empty_rows(
        self, logits: Tensor, context: Context, states: State | None = None, rows: Tensor | None = None
    ) -> None:
        """Says why a row has no token to draw, if one has none: a row that `unusable` finds behind the chain.

        Args:
            logits, context, states: what the chain was called with.
            rows: (B,) bool, which of them matter; others have ended before.

        Raises:
            ValueError: names the row, its step, and the processor that left it without a token or made
                values that are no logits; or says that the model's own were none.
        """
        steps = [("the model", logits), *self.trace(logits, context, states)]
        # A row that a later step repaired is not to blame.
        broken = unusable(steps[-1][1])
        broken = broken if rows is None else broken & rows
        for index, (name, after) in enumerate(steps):
            found = (unusable(after) & broken).nonzero()
            if not len(found):
                continue
            row = int(found[0])
            where = f"Row {row}, step {int(context.generated[row])}"
            if bool((after[row] == -torch.inf).all()):
                counts = ", ".join(
                    f"{step} {int((z[row] > -torch.inf).sum())}" for step, z in steps[: index + 1]
                )
                raise ValueError(f"{where}: {name} left no token. Tokens after each step: {counts}.")
            if index > 0:
                raise ValueError(f"{where}: {name} made NaN or +inf of what it was given.")
            raise ValueError(
                f"{where}: the model's logits hold NaN or +inf. Check its weights and dtype, or go on all "
                "the same with remove_invalid_values=True."
            )

    def _steps(self, view: _View, context: Context, states: State | None) -> Iterator[Any]:
        """Applies one processor after the other to the view; yields each when it is done."""
        states = self.init(context) if states is None else states
        for processor, state in zip(self.processors, states, strict=True):
            if isinstance(processor, TopK):
                view.narrow(processor)
            elif not getattr(processor, "elementwise", False):
                view.widen()
            given = _for(processor, view.logits)
            try:
                if isinstance(processor, StatefulProcessor):
                    result = processor(given, context, state)
                else:
                    result = processor(given, context)
            except Exception as error:
                error.add_note(f"It came out of the processor {label(processor)}(logits, context).")
                raise
            if (
                not isinstance(result, Tensor)
                or result.shape != view.logits.shape
                or result.dtype != view.logits.dtype
            ):
                got, expected = (
                    f"{tuple(x.shape)} {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
                    for x in (result, view.logits)
                )
                raise ValueError(f"{label(processor)} returned {got}; expected logits, {expected}.")
            view.logits = result
            yield processor


class _View:
    """The logits on their way through a chain: all of the vocabulary, or the few tokens that top-k left.

    What follows top-k mostly does not ask which token a logit belongs to (`elementwise`), and costs a
    thousand times less on 50 logits than on 50,000. The survivors stay in the vocabulary's order, so
    that what depends on the order of equal logits comes out the same.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits  # (B, V), or (B, K) while `ids` is set
        self.ids: Tensor | None = None  # (B, K): which tokens the logits are of
        self.vocab_size = logits.shape[-1]

    def narrow(self, top_k: TopK) -> None:
        """Goes on with what top-k may keep; stays as it is where that is not worth it or not possible."""
        on_cpu = self.logits.device.type == "cpu"  # asking a GPU for the survivors would wait for it
        if self.ids is None and on_cpu and top_k.largest * _FEW < self.vocab_size:
            self.ids = top_k.survivors(self.logits)
            self.logits = self.logits if self.ids is None else self.logits.gather(1, self.ids)

    def widen(self) -> None:
        """Goes back to all of the vocabulary."""
        self.logits, self.ids = self.dense(), None

    def dense(self) -> Tensor:
        """(B, V): what is no survivor is -inf."""
        if self.ids is None:
            return self.logits
        everything = self.logits.new_full((self.logits.shape[0], self.vocab_size), -torch.inf)
        return everything.scatter_(1, self.ids, self.logits)


def _for(processor: Any, logits: Tensor) -> Tensor:
    """The logits as a processor is given them: a copy, unless it is of this package."""
    return logits if isinstance(processor, LogitsProcessor | Chain) else logits.clone()


def unusable(logits: Tensor) -> Tensor:
    """(B, V) -> (B,) bool: rows of which no token can be drawn (all -inf), or that hold NaN or +inf."""
    return ~logits.amax(dim=-1).isfinite()


def select_state(states: State, rows: Tensor) -> State:
    """The states of a search that reorders, drops or repeats rows. rows: (B',) long indices."""
    if isinstance(states, Tensor):
        return states[rows]
    if isinstance(states, tuple | list):
        return type(states)(select_state(state, rows) for state in states)
    if isinstance(states, dict):
        return {key: select_state(state, rows) for key, state in states.items()}
    raise TypeError(
        f"A state holds a {type(states).__name__}; expected tensors, or tuples, lists and dicts of them."
    )


def label(processor: Any) -> str:
    """How a table or an error calls a processor: "TopK 50", "no_digits"."""
    name = getattr(processor, "__name__", type(processor).__name__)
    value = next(iter(vars(processor).values()), None) if hasattr(processor, "__dataclass_fields__") else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{name} {value:g}"
    return str(name)
