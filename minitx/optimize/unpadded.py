"""Models that compute no padding.

A batch of sequences of different lengths is padded to a rectangle, and the layers compute the padding too.
With this pass the sequences run through the stack as one row of tokens (`minitx.layers.unpadded`), and their
hidden states return to the rectangle, with zeros at padding. Embedder, pooler and head still take the batch.

A batch runs as before where a row of tokens would not do the same:

- with a cache, cross-attention, `output_hidden_states` or `output_attentions`
- with a mask that lists the keys of each query, with padding other than on the right, or in rows without a
  token
- while hooks or taps of `minitx.inspect` watch a part of the stack: they see the batch
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from minitx.layers.attention import SelfAttention
from minitx.layers.disentangled import DisentangledSelfAttention, DisentangledStack
from minitx.layers.rotary import original_contexts
from minitx.layers.stack import Stack
from minitx.layers.unpadded import Runs
from minitx.optimize.applied import note_undone
from minitx.optimize.classes import InPlaceOf, has_hooks, mix_in, take_out
from minitx.validation import ArgumentTypeError, ArgumentValueError, is_transformed, values_unavailable

TOKENS = 2048  # in a row on a CPU; activations of more do not stay in its cache
_TOKENWISE = (  # modules of torch that treat every token alone
    nn.Linear,
    nn.LayerNorm,
    nn.Embedding,
    nn.Dropout,
    nn.Identity,
    nn.ModuleList,
    nn.Sequential,
    nn.ParameterList,
)
_ATTENTION = {SelfAttention.forward, DisentangledSelfAttention.forward}
AnyModel = TypeVar("AnyModel", bound=nn.Module)


class _Unpadded(InPlaceOf, nn.Module):
    """Mixed into the class of a model."""

    def run_stack(self, stack: nn.Module, *inputs: Any, record: Any = None) -> Tensor:
        """As `Model.run_stack`, without padding where the inputs allow it."""
        hidden, mask, position_ids, *more = inputs
        run: Callable[..., Tensor] = super().run_stack  # type: ignore[misc]
        if record is not None or any(value is not None for value in more) or not pays(hidden, mask):
            return run(stack, *inputs, record=record)
        if obstacle(stack) or is_watched(stack):
            return run(stack, *inputs)
        return run_rows(run, stack, hidden, mask, position_ids)


def unpadded(model: AnyModel) -> AnyModel:
    """Lets a model compute no padding: the tokens of a batch run through its stack as one row.

    Outputs stay, up to rounding; those at padding are zeros, or computed from zeros. Changes the class of the
    model in place; parameters, names and hooks stay.

    Args:
        model: an encoder, a decoder without a cache, or an encoder-decoder, whose encoder it changes.

    Returns:
        The model.

    Raises:
        ArgumentTypeError: not a model of minitx.
        ArgumentValueError: a stack with a part that mixes neighbouring tokens, or one of another library.
    """
    stack = first_stack(model)
    if reason := obstacle(stack):
        expected = "one whose tokens meet in attention alone"
        raise ArgumentValueError("model", type(model).__name__, expected, reason)
    mix_in(model, _Unpadded)
    return model


def undo_unpadded(model: AnyModel) -> AnyModel:
    """Undoes `unpadded`: the model computes padding again. Returns the model.

    Raises:
        ArgumentTypeError: not a model of minitx.
    """
    first_stack(model)
    take_out(model, _Unpadded)
    note_undone(model, "unpadded")
    return model


def without_padding(model: Any) -> Any:
    """Returns a model of the same parts that computes no padding, as pipelines use; or the model itself.

    Models on an accelerator stay, those that `unpadded` refuses, and those with a compiled or watched part.

    Args:
        model: any object.
    """
    families = getattr(model, "families", None)
    if not families or computes_no_padding(model) or next(model.parameters()).device.type != "cpu":
        return model
    stack = model.get_submodule(families[0])
    if obstacle(stack) or is_watched(stack) or _is_compiled(model):
        return model
    view = copy(model)
    mix_in(view, _Unpadded)
    return view


def computes_no_padding(model: Any) -> bool:
    """Whether all stacks of a model run without padding: one of `unpadded` or `without_padding`."""
    return isinstance(model, _Unpadded) and len(getattr(model, "families", ())) == 1


def first_stack(model: Any) -> nn.Module:
    """Returns the stack that reads the inputs of a model.

    Raises:
        ArgumentTypeError: not a model of minitx.
    """
    families = getattr(model, "families", None)
    if not isinstance(model, nn.Module) or not families:
        raise ArgumentTypeError("model", model, "a model of minitx", "minitx.load loads one")
    return model.get_submodule(families[0])


# --- conditions ----------------------------------------------------------------------------------------


def pays(hidden: Tensor, mask: Any) -> bool:
    """Whether a batch has padding, on the right of a token, or more tokens than stay in the cache of a CPU.

    Args:
        hidden: (B, T, E)
        mask: (B, T) or (B, T, T), or None.
    """
    if values_unavailable(hidden) or is_transformed() or hidden.numel() == 0:
        return False
    if mask is None or (mask.dim() == 2 and bool(mask.all())):
        return hidden.is_cpu and len(hidden) > 1 and hidden.shape[0] * hidden.shape[1] > TOKENS
    if mask.dim() != 2 or not bool(mask[:, 0].all()):  # a row without a token: its outputs are no zeros
        return False
    return not bool((mask[:, 1:] > mask[:, :-1]).any())


def obstacle(stack: nn.Module) -> str:
    """Returns why a stack cannot run a row of several sequences; empty if it can."""
    if type(stack) not in (Stack, DisentangledStack):
        return f"its stack is a {type(stack).__name__}"
    if isinstance(stack, DisentangledStack) and stack.convolution is not None:
        return "its convolution mixes neighbouring tokens"
    if isinstance(stack, Stack) and (types := original_contexts(stack.config.positions)):
        return f"its RoPE of the type {next(iter(types))!r} depends on the length of the text"
    return next((name for module in _modules(stack) if (name := _stranger(module))), "")


def _stranger(module: nn.Module) -> str:
    """Returns why a module may mix tokens other than by attention; empty if it does not."""
    kind = type(module)
    if isinstance(module, SelfAttention | DisentangledSelfAttention):
        known = kind.forward in _ATTENTION
    else:
        known = kind.__module__.startswith("minitx.") or kind in _TOKENWISE
    return "" if known and "forward" not in vars(module) else f"it has a {kind.__name__} of its own"


def _modules(stack: nn.Module) -> list[nn.Module]:
    """Returns the modules of a stack; `stack.modules()` takes milliseconds, for their names."""
    modules = [stack]
    for module in modules:  # which grows
        modules += filter(None, module._modules.values())
    return modules


def is_watched(stack: nn.Module) -> bool:
    """Whether a module in a stack has hooks, or taps of `minitx.inspect`."""
    return any(has_hooks(module) or "attend" in vars(module) for module in stack.modules())


def _is_compiled(model: nn.Module) -> bool:
    return any(module._compiled_call_impl is not None for module in _modules(model))


# --- rows ----------------------------------------------------------------------------------------------


def run_rows(
    run: Callable[..., Tensor], stack: nn.Module, hidden: Tensor, mask: Tensor | None, position_ids: Tensor
) -> Tensor:
    """Runs a stack on the tokens of a batch, in rows of about `TOKENS` on a CPU.

    Args:
        run: runs a stack on hidden states, lengths and positions.
        stack: the stack.
        hidden: (B, T, E).
        mask: (B, T), padding on the right; or None.
        position_ids: (1 or B, T).

    Returns:
        (B, T, E), zeros at padding.
    """
    batch, time = hidden.shape[:2]
    columns = torch.arange(time, device=hidden.device)
    lengths = columns.new_full((batch,), time) if mask is None else mask.sum(dim=1)
    lengths, order = lengths.sort(descending=True)
    places = (order[:, None] * time + columns)[columns < lengths[:, None]]  # (N,), of the tokens in the batch
    tokens = hidden.flatten(0, 1)[places]
    positions = position_ids.expand(batch, time).flatten()[places]
    outputs, start = [], 0
    for part in divide(lengths.tolist(), TOKENS if hidden.is_cpu else len(tokens)):
        end = start + sum(part)
        outputs.append(run(stack, tokens[None, start:end], Runs.of(part), positions[None, start:end])[0])
        start = end
    output = torch.cat(outputs)
    return (
        output.new_zeros(batch * time, output.shape[-1]).index_copy(0, places, output).view(batch, time, -1)
    )


def divide(lengths: list[int], tokens: int) -> Iterator[list[int]]:
    """Yields neighbouring sequences in parts of equal size, of about `tokens` tokens at most.

    Args:
        lengths: of the sequences, descending.
        tokens: in a part.
    """
    total = sum(lengths)
    number = -(-total // tokens)
    ends, before = [0], 0
    for index, length in enumerate(lengths):
        before += length
        if before * number >= len(ends) * total:
            ends.append(index + 1)
    yield from (lengths[start:end] for start, end in pairwise(ends))
