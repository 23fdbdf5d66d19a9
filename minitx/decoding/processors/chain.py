"""A chain of processors: from the model's logits to the input of the sampler.

A processor is any callable `(logits, context) -> logits`, from (B, V) to (B, V), such as a plain function:

    def no_digits(logits, context):
        return logits.index_fill(1, digits, -torch.inf)

    chain = Chain(RepetitionPenalty(1.1), no_digits, TopK(50), Temperature(0.8))

Processors of this package do not modify their input. Custom ones get a copy, which they may modify.

A stateful processor (mirostat, a grammar) is called with its state, `(logits, context, state) -> logits`, and
has `init` and `update` to make states. States are values: the chain returns and takes them, and nothing is
stored on a processor, so that a search can keep, reorder and roll back states as it does tokens.

B rows, V vocabulary, K survivors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from minitx.decoding.processors.base import LogitsProcessor, Processor, State, StatefulProcessor, label
from minitx.decoding.processors.context import Context
from minitx.decoding.processors.truncation import TopK
from minitx.validation import ArgumentTypeError

# The logits of all tokens, (B, V), and None; after top-k those of its survivors alone, (B, K), and their ids.
# Survivors stay in vocabulary order, so that results that depend on the order of equal logits are the same.
_Part = tuple[Tensor, Tensor | None]


class Chain(LogitsProcessor):
    """Processors in the order of the arguments. A chain is a (stateful) processor too.

    Two are equal if their processors are.

    Args:
        processors: functions `(logits, context) -> logits`, objects of this package, other chains. Without
            any, logits are not changed.

    Raises:
        ArgumentTypeError: not callable, or a class instead of an instance.
    """

    def __init__(self, *processors: Processor | StatefulProcessor) -> None:
        for processor in processors:
            if isinstance(processor, type):
                hint = f"make one: {processor.__name__}(...)"
                raise ArgumentTypeError("processors", processor, "instances", hint)
            if not callable(processor):
                expected = "processors such as TopK(50), or functions (logits, context) -> logits"
                raise ArgumentTypeError("processors", processor, expected)
        self.processors = processors

    def __eq__(self, other: object) -> bool:
        """Whether the other chain has equal processors in the same order."""
        return isinstance(other, Chain) and self.processors == other.processors

    def __hash__(self) -> int:
        return hash(self.processors)

    def __repr__(self) -> str:
        return f"Chain({', '.join(map(repr, self.processors))})"

    def __len__(self) -> int:
        return len(self.processors)

    def check_rows(self, num_rows: int, rows_per_prompt: int = 1) -> None:
        """See `LogitsProcessor.check_rows`."""
        for processor in self.processors:
            if isinstance(processor, LogitsProcessor):
                processor.check_rows(num_rows, rows_per_prompt)

    @property
    def batch_invariant(self) -> bool:
        """Whether all processors are `LogitsProcessor.batch_invariant`; custom ones may not be."""
        return all(isinstance(p, LogitsProcessor) and p.batch_invariant for p in self.processors)

    def keeps_log_probs_nonpositive(self, below: bool = True) -> bool:
        """As `LogitsProcessor.keeps_log_probs_nonpositive`; False for custom functions."""
        for processor in self.processors:
            below = isinstance(processor, LogitsProcessor) and processor.keeps_log_probs_nonpositive(below)
        return below

    def init(self, context: Context) -> State:
        """Returns the states of all processors before the first token."""
        return tuple(p.init(context) if isinstance(p, StatefulProcessor) else () for p in self.processors)

    def update(self, states: State, context: Context, token: Tensor, logits: Tensor) -> State:
        """Returns the states after `token` (B,).

        Args:
            states, context, logits: the arguments of the call that led to the token. The steps are applied
                once more, as each processor's update gets its own input.
            token: (B,)
        """
        if not any(isinstance(processor, StatefulProcessor) for processor in self.processors):
            return states
        inputs = [logits, *(after for _, after in self.trace(logits, context, states))]
        return tuple(
            p.update(state, context, token, _input_of(p, before)) if isinstance(p, StatefulProcessor) else ()
            for p, state, before in zip(self.processors, states, inputs, strict=False)
        )

    def __call__(self, logits: Tensor, context: Context, states: State = None) -> Tensor:
        """(B, V) logits, float32 or float64 -> (B, V); the logits themselves without processors.

        Args:
            logits: the model's, for the next token of each row.
            context: the token histories.
            states: from `init` or `update`; None for initial ones.
        """
        output: _Part = (logits, None)
        for _, part in self._steps(logits, context, states):
            output = part
        return _dense(*output, logits.shape[-1])

    def trace(self, logits: Tensor, context: Context, states: State = None) -> list[tuple[str, Tensor]]:
        """Applies the chain and returns each processor's label and output (B, V)."""
        steps, size = self._steps(logits, context, states), logits.shape[-1]
        return [(label(processor), _dense(*part, size)) for processor, part in steps]

    def raise_for_empty_rows(
        self, logits: Tensor, context: Context, states: State = None, rows: Tensor | None = None
    ) -> None:
        """Checks that the chain leaves every row a token to choose, that is, no row `unusable`.

        Args:
            logits, context, states: the arguments of the call.
            rows: (B,) bool, the rows to check; None for all. Finished rows need no token.

        Raises:
            ValueError: names the row, its step, and the processor that banned all tokens or produced NaN or
                inf; or the model, if its own logits are invalid.
        """
        steps = [("the model", logits), *self.trace(logits, context, states)]
        broken = unusable(steps[-1][1])  # a row that a later step repaired is usable
        broken = broken if rows is None else broken & rows
        for index, (name, after) in enumerate(steps):
            for row in (unusable(after) & broken).nonzero().flatten().tolist():
                problem = f"{name} returned NaN or +inf."
                if bool((after[row] == -torch.inf).all()):
                    left = [f"{step} {int((z[row] > -torch.inf).sum())}" for step, z in steps[: index + 1]]
                    problem = f"{name} left no token. Tokens after each step: {', '.join(left)}."
                elif index == 0:
                    problem = (
                        "the model's logits hold NaN or +inf. Check its weights and dtype, or continue "
                        "anyway with remove_invalid_values, which replaces them."
                    )
                raise ValueError(f"Row {row}, step {int(context.generated[row])}: {problem}")

    def _steps(self, logits: Tensor, context: Context, states: State) -> Iterator[tuple[Any, _Part]]:
        """Applies one processor after the other; yields each with its output."""
        ids, size = None, logits.shape[-1]
        states = self.init(context) if states is None else states
        for processor, state in zip(self.processors, states, strict=True):
            if not getattr(processor, "elementwise", False):
                logits, ids = _dense(logits, ids, size), None
            elif isinstance(processor, TopK) and ids is None:
                ids = processor.survivors(logits)
                logits = logits if ids is None else logits.gather(1, ids)
            arguments = (state,) if isinstance(processor, StatefulProcessor) else ()
            try:
                result: Any = processor(_input_of(processor, logits), context, *arguments)
            except Exception as error:
                error.add_note(f"Raised by the processor {label(processor)}(logits, context).")
                raise
            output, expected = _describe(result), _describe(logits)
            if output != expected:
                raise ValueError(f"{label(processor)} returned {output}; expected logits, {expected}.")
            logits = result
            yield processor, (logits, ids)


def _dense(logits: Tensor, ids: Tensor | None, vocab_size: int) -> Tensor:
    """(B, V), with -inf for all tokens but the ids."""
    if ids is None:
        return logits
    return logits.new_full((len(logits), vocab_size), -torch.inf).scatter_(1, ids, logits)


def _describe(value: Any) -> str:
    return f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


def _input_of(processor: Any, logits: Tensor) -> Tensor:
    """The logits for a processor: a copy, unless it is of this package."""
    return logits if isinstance(processor, LogitsProcessor) else logits.clone()


def unusable(logits: Tensor) -> Tensor:
    """(B, V) -> (B,) bool: rows of which no token can be chosen (all -inf), or that contain NaN or +inf."""
    return ~logits.amax(dim=-1).isfinite()


def select_state(states: State, rows: Tensor) -> State:
    """Returns the states of a batch with reordered, dropped or repeated rows; rows (B',) long."""
    if isinstance(states, Tensor):
        return states[rows]
    if isinstance(states, tuple | list):
        return type(states)(select_state(state, rows) for state in states)
    if isinstance(states, dict):
        return {key: select_state(state, rows) for key, state in states.items()}
    raise TypeError(
        f"A state contains a {type(states).__name__}; it must consist of tensors, tuples, lists and dicts."
    )


def concatenate_states(states: Sequence[State]) -> State:
    """Joins states of the same structure along their first dimension."""
    first = states[0]
    if isinstance(first, Tensor):
        return torch.cat(list(states))
    if isinstance(first, dict):
        return {key: concatenate_states([state[key] for state in states]) for key in first}
    return type(first)(concatenate_states(parts) for parts in zip(*states, strict=True))
