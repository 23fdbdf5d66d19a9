"""Decoding steps that `torch.compile` compiles.

A step of a small batch takes a CPU about as long in Python and in many small kernels as in the products of
its projections. Compiled code has one kernel for all that lies between two products. These stay what they are
in a model that is not compiled: see `minitx.optimize.operator`.

The sizes of batch and cache are not part of the code: it is made once for one row and once for several, and
again only for other kinds of inputs, such as sources with padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from types import FunctionType
from typing import Any
from weakref import finalize, ref

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from minitx.layers.attention import eager, sdpa
from minitx.layers.cache import Cache, LayerCache, SlidingWindowCache
from minitx.optimize.applied import note_undone
from minitx.optimize.classes import Module
from minitx.optimize.graphs.model import device_of, fixed_steps_refusal, static_steps, undo_static_steps
from minitx.optimize.graphs.step import Built, FixedPart, NotCompiledError, StaticStep
from minitx.optimize.linear import Operators
from minitx.validation import ArgumentValueError, check_type

_SPAN = 32  # the slots that a step attends to are a multiple of this, so that few sizes occur


class CompiledStep(StaticStep):
    """A step in compiled code, which reads and writes the tensors of the cache itself.

    One step serves caches of all sizes, and the code is shared by all steps of a model.
    """

    serves_experts = False
    serves_views = True
    cleared = 0  # slots of the layers without a window that hold finite numbers

    @staticmethod
    def key(batch: int, sizes: Sequence[int]) -> tuple[int, ...]:
        """Returns by what `Steps` finds a step: the same for all."""
        return ()

    def part(self, layer: LayerCache, size: int) -> FixedPart:
        """Returns keys and values of a layer."""
        assert layer.key is not None
        assert layer.value is not None
        return FixedPart(layer.key, layer.value, self.past, is_ring=isinstance(layer, SlidingWindowCache))

    def holds(self, cache: Cache) -> bool:
        """Whether the step was last taken for a cache."""
        return self.owner is not None and self.owner() is cache

    def adopt(self, cache: Cache) -> None:
        """Takes the tensors of a cache, which other operations may have replaced since the last step."""
        parts = [*zip(cache.layers, self.parts, strict=True)]
        replaced = any(layer.key is not p.key or layer.value is not p.value for layer, p in parts)
        if replaced or not self.holds(cache):
            self.parts = self.stored.layers = [self.part(layer, 0) for layer in cache.layers]
            self.owner, self.cleared = ref(cache), 0
            batch, slots = len(self.parts[0].key), max(part.slots for part in self.parts)
            if self.real.shape != (batch, slots):
                self.allocate(batch, slots)
        attended = self.attended(cache.length)
        if self.cleared < attended:  # slots that were never filled may hold NaN
            for part in self.parts:
                first = cache.high_water_mark if part.is_ring else max(cache.length, self.cleared)
                for tensor in (part.key, part.value):
                    tensor[:, :, first : None if part.is_ring else attended] = 0
            self.cleared = attended

    def can_run(self, cache: Cache, built: Built) -> bool:
        """Whether attention is that of minitx, which reads nothing else, and the last slot stays free.

        Code for as many slots as there are would be another one, and each generation would need both.
        """
        layers = [layer for layer in cache.layers if not isinstance(layer, SlidingWindowCache)]
        room = all(layer.key is not None and cache.length + 1 < layer.key.shape[2] for layer in layers)
        return room and built.backends <= {eager, sdpa} and super().can_run(cache, built)

    def attended(self, length: int) -> int:
        """Returns the number of slots that a step after `length` tokens attends to, fewer than there are."""
        return min(-(-(length + 1) // _SPAN) * _SPAN, self.real.shape[1] - 1)

    def run(self, model: Any, length: int) -> Any:
        """Runs the compiled code, which is made when it first runs.

        Raises:
            NotCompiledError: PyTorch cannot compile the model. Nothing has been computed.
        """
        codes, several = model.graph_steps.codes, len(self.ids) > 1
        span = self.real[0, : self.attended(length)]
        Operators.traced += 1
        try:
            if several in codes:
                with suppress(torch._dynamo.exc.FailOnRecompileLimitHit):  # PyTorch's limit of versions
                    return codes[several](self, model, span)
            codes[several] = Compiled(_compute)
            return codes[several](self, model, span)
        except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError) as error:
            raise NotCompiledError(f"{error}".strip().partition("\n")[0]) from error
        finally:
            Operators.traced -= 1


def _compute(step: StaticStep, model: Any, span: Tensor) -> Any:
    """Computes a step that attends to as many slots as `span`, (S',), has elements.

    A number would be a constant of the compiled code; the size of a tensor is not.
    """
    if len(step.ids) > 1 and step.parts[0].key.dtype != torch.bfloat16:
        return step.compute(model, span.shape[0])
    # One kernel with what comes before it is faster than PyTorch's for one row, and in bfloat16.
    with sdpa_kernel(SDPBackend.MATH):
        return step.compute(model, span.shape[0])


class Compiled:
    """A function compiled without guards on its argument `model`, whose changes `Steps` finds.

    PyTorch keeps compiled code by the code object of a function, and in its globals. This one has copies of
    both, which are freed with it.

    Args:
        function: of `step`, `model` and `span`.
    """

    def __init__(self, function: Any) -> None:
        code = function.__code__.replace()
        own = FunctionType(code, {**function.__globals__}, function.__name__)
        options: dict[str, Any] = {"guard_filter_fn": _kept_guards, "size_asserts": False}
        self.function = torch.compile(own, fullgraph=True, dynamic=True, options=options)
        finalize(self, torch._C._dynamo.eval_frame.reset_code, code)

    def __call__(self, *arguments: Any) -> Any:
        """Runs it, after a compilation if no code fits the arguments."""
        return self.function(*arguments)


def _kept_guards(guards: Any) -> list[bool]:
    """Returns which guards are kept: those on the step, on shapes, and on the state of PyTorch."""
    kinds = ("SHAPE_ENV", "GLOBAL_STATE")
    return [g.guard_type in kinds or "step" in g.name or "span" in g.name for g in guards]


def compiled_steps(model: Module) -> Module:
    """Compiles the steps of generations with `torch.compile`, for a model on a CPU.

    The code is made when a step first runs, in half a minute or less, once for one row and once for several;
    it serves every batch size and every length. PyTorch keeps parts of it in a folder for later processes.
    Steps of several tokens, the step that fills a cache, caches that grow, gradients, autocast, hooks,
    attention of the user's own, and requests for hidden states or attention weights take the plain path; so
    does a model that PyTorch cannot compile, with a warning. Logits are equal up to rounding. Numbers inside
    the parts, such as the eps of a norm, are constants of the code.

    Args:
        model: one that predicts the next token, on a CPU.

    Returns:
        The model; its class has changed in place, parameters, names and hooks stay.

    Raises:
        ArgumentTypeError: not a module.
        ArgumentValueError: not such a model, or not on a CPU.
        RuntimeError: PyTorch finds no C++ compiler that works.
    """
    device = device_of(check_type("model", model, nn.Module, "a module"))
    if device.type != "cpu":
        raise ArgumentValueError("model", model, f"on a CPU, not on {device}", "cuda_graphs serves a GPU")
    check_compiler()
    return static_steps(model, CompiledStep)


def undo_compiled_steps(model: Module) -> Module:
    """Undoes `compiled_steps`, and frees code and buffers. Returns the model.

    Raises:
        ArgumentTypeError: not a module.
    """
    undo_static_steps(model, CompiledStep)
    note_undone(model, "compiled_steps")
    return model


def no_compiled_steps(model: nn.Module) -> str | None:
    """Returns why `compiled_steps` does not serve a model; None: it does."""
    if device_of(model).type != "cpu":
        return "the model is not on a CPU"
    refusal = fixed_steps_refusal(model, CompiledStep)
    return f"the model is not {refusal[0]}" if refusal else None


@cache
def check_compiler() -> None:
    """Compiles a small function, once in a process.

    Raises:
        RuntimeError: PyTorch finds no C++ compiler that works.
    """
    try:
        torch.compile(_one_more, fullgraph=True)(torch.zeros(32))
    except Exception as error:
        reason = f"{error}".strip().partition("\n")[0]
        message = "torch.compile needs a C++ compiler that works, such as g++; CXX=PATH names one"
        raise RuntimeError(f"{message} ({reason})") from error


def _one_more(x: Tensor) -> Tensor:
    """(N,) -> (N,)"""
    return x + 1
