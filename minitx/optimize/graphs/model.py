"""CUDA graphs: the kernels of a decoding step are recorded once and launched together for each token.

A step of a small batch takes the GPU less time than PyTorch needs to launch its kernels one by one; a graph
launches them at once. The pass gives the model a class that runs steps of one token in this way, wherever
`static_steps` can compute them; all other calls are those of the plain model.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import count
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from minitx.layers.cache import Cache
from minitx.layers.embedder import number_all, number_attended
from minitx.layers.experts import FEW_TOKENS, MixtureOfExperts
from minitx.layers.rotary import check_same_rotation
from minitx.layers.stack import Stack
from minitx.optimize.classes import InPlaceOf, Module, has_hooks, mix_in, take_out
from minitx.optimize.graphs.step import GraphStep, StaticStep, built_of, sizes_of
from minitx.validation import ArgumentValueError, check_integer, check_type

_DECODER = "minitx.load(name) of a decoder has one"


class Steps:
    """The steps of a model, the latest last.

    A step serves one thread at a time: while its cache lives, other threads get a step of their own, since
    between two steps a search may reorder the rows of the cache in the buffers.

    Args:
        kind: class of the steps.
        most: how many are kept.

    Attributes:
        lock: held while a step is chosen and runs.
    """

    def __init__(self, kind: type[StaticStep], most: int) -> None:
        self.kind, self.most, self.lock = kind, most, Lock()
        self.steps: OrderedDict[tuple[int, ...], StaticStep] = OrderedDict()  # by number, rows and slots
        self.numbers = count()

    def __deepcopy__(self, memo: dict[int, Any]) -> Steps:
        return Steps(self.kind, self.most)

    def of(self, model: Any, cache: Cache) -> StaticStep | None:
        """Returns the step for a cache, and creates it if needed; None for a cache without fixed shapes."""
        sizes, batch = sizes_of(cache), cache.batch
        if sizes is None or batch is None:
            return None
        same = [key for key in self.steps if key[1:] == (batch, *sizes)]
        held = [key for key in same if self.steps[key].holds(cache)]
        free = [key for key in same if self.steps[key].is_free()]
        key = next(iter(held or free), None) or (next(self.numbers), batch, *sizes)
        step = self.steps.get(key)
        if step is not None and not step.holds(cache) and step.built_for != built_of(model):
            self.steps.clear()  # other weights or parts
            step = None
        if step is None:
            step = self.steps[key] = self.kind(model, cache, sizes)
            if len(self.steps) > self.most:
                self.steps.popitem(last=False)
        self.steps.move_to_end(key)
        return step


class _Graphed(InPlaceOf, nn.Module):
    """Mixed into the class of a decoder."""

    graph_steps: Steps

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """The inputs and outputs of `DecoderModel.forward`."""
        model: Any = self
        past: Cache | None = options.get("cache")
        plain = {name: value for name, value in options.items() if name not in ("cache", "logits_to_keep")}
        if (
            attention_mask is None
            and labels is None
            and not any(v is not None and v is not False for v in plain.values())
        ):
            output = _step(model, input_ids, position_ids, past)
            if output is not None:
                return output
        return super().forward(input_ids, attention_mask, position_ids, labels, **options)


def _step(model: Any, ids: Tensor | None, position_ids: Tensor | None, past: Cache | None) -> Any:
    """Returns the output of the step that computes this call; None: the plain model computes it.

    Args:
        model: of `_Graphed`.
        ids: (B, 1) for a step.
        position_ids: (1 or B, 1).
        past: the cache.
    """
    if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.shape[1] != 1 or not isinstance(past, Cache):
        return None
    if not torch.is_inference_mode_enabled() or model.training or past.length == 0 or len(ids) != past.batch:
        return None
    embedder, length = model.embedder, past.length
    if position_ids is None:
        numbered = embedder.number is number_all or (embedder.number is number_attended and past.mask is None)
        if not numbered or (embedder.has_position_table and length >= embedder.max_tokens):
            return None
    if not _can_run(model, len(ids)):
        return None
    model.check_cache(past)
    past.check(None, tuple(ids.shape))
    embedder.check_ids(ids)
    if position_ids is not None:
        embedder.check_positions(position_ids, tuple(ids.shape))
        positions = model.config.stack.positions
        check_same_rotation(positions, position_ids, length, past.high_water_mark)
    with model.graph_steps.lock:
        step = model.graph_steps.of(model, past)
        return None if step is None else step(model, ids, position_ids, past)


def _can_run(model: Any, batch: int) -> bool:
    """Whether no part has a hook, which a graph would not call, or needs to know which experts are chosen."""
    for module in model.modules():
        if module is not model and has_hooks(module):
            return False
        if isinstance(module, MixtureOfExperts) and batch > FEW_TOKENS:
            return False
    return True


def static_steps(model: Module, kind: type[StaticStep] = StaticStep, most: int = 4) -> Module:
    """Lets a decoder compute the steps of a generation in buffers of fixed sizes.

    Args:
        model: a decoder with a language model head.
        kind: class of the steps.
        most: how many steps, for other numbers of rows or lengths, are kept.

    Returns:
        The model.

    Raises:
        ArgumentTypeError: not a module.
        ArgumentValueError: not such a decoder.
    """
    checked: Any = check_type("model", model, nn.Module, "a module")
    undo_cuda_graphs(model)
    if refusal := _refusal(checked):
        raise ArgumentValueError("model", model, *refusal)
    mix_in(checked, _Graphed)
    checked.graph_steps = Steps(kind, check_integer("most", most, 1))
    return model


def cuda_graphs(model: Module, *, most: int = 4) -> Module:
    """Lets a decoder on a GPU launch each step of a generation as one CUDA graph.

    The first step with another number of rows, or another length of the cache rounded up to 256, is recorded;
    later ones are replayed, whatever the call. Steps of several tokens, caches that grow, gradients, hooks
    and requests for hidden states or attention weights take the plain path. Each recorded step keeps a cache
    of its own, of the sizes of the call's.

    Args:
        model: a decoder with a language model head, on a CUDA device.
        most: how many recorded steps are kept; the one that was not used for longest is dropped.

    Returns:
        The model; its class has changed in place, parameters, names and hooks stay.

    Raises:
        ArgumentTypeError: not a module.
        ArgumentValueError: not such a decoder, or not on a CUDA device.
    """
    device = _device_of(check_type("model", model, nn.Module, "a module"))
    if device.type != "cuda":
        hint = 'there are graphs of CUDA alone; move it with model.to("cuda")'
        raise ArgumentValueError("model", model, f"on a CUDA device, not on {device}", hint)
    return static_steps(model, GraphStep, most)


def no_graphs(model: nn.Module) -> str | None:
    """Returns why `cuda_graphs` does not serve a model; None: it does."""
    if _device_of(model).type != "cuda":
        return "the model is not on a CUDA device"
    refusal = _refusal(model)
    return f"the model is not {refusal[0]}" if refusal else None


def _device_of(model: nn.Module) -> torch.device:
    """Returns the device of a model, the CPU if it has no parameters."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _refusal(model: Any) -> tuple[str, str] | None:
    """Returns what a model should be to have steps of fixed shapes, and a hint; None: it is."""
    if getattr(model, "families", None) != ("decoder",) or model.task != "causal-lm":
        return "a decoder with a language model head", _DECODER
    if type(model.decoder) is not Stack:
        return "a decoder with a stack of minitx", "other stacks have their own masks"
    return None


def undo_cuda_graphs(model: Module) -> Module:
    """Undoes `cuda_graphs`, and frees the recorded steps. Returns the model.

    Raises:
        ArgumentTypeError: not a module.
    """
    checked: Any = check_type("model", model, nn.Module, "a module")
    if isinstance(checked, _Graphed):
        take_out(checked, _Graphed)
        del checked.graph_steps
    return model
