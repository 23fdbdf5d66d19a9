"""Steps of fixed shapes for a model, and CUDA graphs of them.

A step of a small batch takes a GPU less time than PyTorch needs to launch its kernels one by one; a CUDA
graph, which is recorded once, launches them at once. The pass gives the model a class that runs steps of one
token in this way, wherever `static_steps` can compute them; all other calls are those of the plain model.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Sequence
from itertools import count
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from minitx.guarantees import is_unchanged
from minitx.layers.cache import Cache
from minitx.layers.embedder import number_all, number_attended
from minitx.layers.experts import MixtureOfExperts
from minitx.layers.rotary import check_same_rotation
from minitx.layers.stack import Stack
from minitx.optimize.applied import note_undone
from minitx.optimize.classes import InPlaceOf, Module, TracksWeight, all_modules, mix_in, take_out
from minitx.optimize.graphs.step import Built, GraphStep, NotCompiledError, StaticStep, sizes_of
from minitx.validation import ArgumentValueError, check_integer, check_type

_DECODER = "minitx.load(name) of a decoder has one"
_NEXT = 'load a decoder with head="causal-lm", or an encoder-decoder with head="seq2seq-lm"'


class Steps:
    """The steps of a model, the latest last.

    A step serves one thread at a time: while its cache lives, other threads get a step of their own, since
    between two steps a search may reorder the rows of the cache in the buffers.

    Args:
        kind: class of the steps.
        most: how many are kept.

    Attributes:
        lock: held while a step is chosen and runs.
        codes: compiled code that the steps share.
        refusal: why steps cannot be compiled; empty: they can, or nobody has tried.
    """

    def __init__(self, kind: type[StaticStep], most: int) -> None:
        self.kind, self.most, self.lock = kind, most, Lock()
        self.steps: OrderedDict[tuple[int, ...], StaticStep] = OrderedDict()  # by number, rows and slots
        self.numbers = count()
        self.codes: dict[bool, Any] = {}
        self.refusal = ""
        self.built: Built | None = None

    def __reduce__(self) -> tuple[type[Steps], tuple[type[StaticStep], int]]:
        return Steps, (self.kind, self.most)  # a copy, deep or pickled, begins without steps

    def of(self, model: Any, cache: Cache) -> StaticStep | None:
        """Returns the step for a cache, and creates it if needed; None where the plain model has to run."""
        sizes, batch = sizes_of(cache, views=self.kind.serves_views), cache.batch
        if sizes is None or batch is None:
            return None
        checked = is_unchanged(model) and any(step.holds(cache) for step in self.steps.values())
        if (self.refusal or not checked) and not self.is_current(model):
            return None
        step = self.find(model, cache, batch, sizes)
        return step if self.built is not None and step.can_run(cache, self.built) else None

    def is_current(self, model: Any) -> bool:
        """Whether steps can serve a model as it is; drops those that were made for other parts."""
        if self.built is None or not self.built.is_current():
            if any(isinstance(m, TracksWeight) and not m.is_current() for m in all_modules(model)):
                return False  # the plain model raises an error
            self.steps.clear()
            self.codes.clear()
            self.built, self.refusal = Built(model), ""
        return not self.refusal and not self.built.is_watched()

    def find(self, model: Any, cache: Cache, batch: int, sizes: Sequence[int]) -> StaticStep:
        """Returns the step for a cache, and creates it if needed.

        Args:
            model: of the steps.
            cache: with tokens.
            batch: its number of rows.
            sizes: of `sizes_of`.
        """
        wanted = self.kind.key(batch, sizes)
        same = [key for key in self.steps if key[1:] == wanted]
        held = [key for key in same if self.steps[key].holds(cache)]
        free = [key for key in same if self.steps[key].is_free()]
        key = next(iter(held or free), None) or (next(self.numbers), *wanted)
        if key not in self.steps:
            self.steps[key] = self.kind(model, cache, sizes)
        self.steps.move_to_end(key)
        if len(self.steps) > self.most:
            self.steps.popitem(last=False)
        return self.steps[key]


class _Graphed(InPlaceOf, nn.Module):
    """Mixed into the class of a model that predicts the next token."""

    graph_steps: Steps

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """The inputs and outputs are those of the model's own class."""
        output = _step(self, *inputs, **options) if len(inputs) < 2 else None
        return super().forward(*inputs, **options) if output is None else output


def _step(model: Any, *inputs: Any, cache: Any = None, logits_to_keep: int = 0, **options: Any) -> Any:
    """Returns the output of the step that computes this call; None: the plain model computes it.

    Args:
        model: of `_Graphed`.
        inputs: ids, for a step of a decoder (B, 1).
        cache: of the earlier tokens.
        logits_to_keep: of a step any number.
        options: further arguments of `forward`, among them the ids and positions, (1 or B, 1).
    """
    prefix, past = model.prefix, cache
    ids = inputs[0] if inputs and not prefix else options.pop(f"{prefix}input_ids", None)
    position_ids = options.pop(f"{prefix}position_ids", None)
    if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.shape[1] != 1 or not isinstance(past, Cache):
        return None
    if any(value is not None and value is not False for value in options.values()):
        return None
    if not torch.is_inference_mode_enabled() or model.training or past.length == 0 or len(ids) != past.batch:
        return None
    embedder, length = model.decoder_embedder, past.length
    if position_ids is None:
        numbered = embedder.number is number_all or (embedder.number is number_attended and past.mask is None)
        if not numbered or (embedder.has_position_table and length >= embedder.max_tokens):
            return None
    model.check_cache(past)
    past.check(None, tuple(ids.shape), prefix)
    embedder.check_ids(ids)
    if position_ids is not None:
        embedder.check_positions(position_ids, tuple(ids.shape))
        positions = model.config.stack.positions
        check_same_rotation(positions, position_ids, length, past.high_water_mark)
    with model.graph_steps.lock:
        step = model.graph_steps.of(model, past)
        try:
            return None if step is None else step(model, ids, position_ids, past)
        except NotCompiledError as error:
            model.graph_steps.refusal = str(error)
            warnings.warn(f"steps run without torch.compile, which failed: {error}", stacklevel=2)
            return None


def static_steps(model: Module, kind: type[StaticStep] = StaticStep, most: int = 4) -> Module:
    """Lets a model compute the steps of a generation in buffers of fixed sizes.

    Args:
        model: one that predicts the next token.
        kind: class of the steps.
        most: how many steps, for other numbers of rows or lengths, are kept.

    Returns:
        The model.

    Raises:
        ArgumentTypeError: not a module.
        ArgumentValueError: not such a model.
    """
    checked: Any = check_type("model", model, nn.Module, "a module")
    undo_static_steps(model)
    if refusal := fixed_steps_refusal(checked, kind):
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
    device = device_of(check_type("model", model, nn.Module, "a module"))
    if device.type != "cuda":
        hint = 'there are graphs of CUDA alone; move it with model.to("cuda")'
        raise ArgumentValueError("model", model, f"on a CUDA device, not on {device}", hint)
    return static_steps(model, GraphStep, most)


def no_graphs(model: nn.Module) -> str | None:
    """Returns why `cuda_graphs` does not serve a model; None: it does."""
    if device_of(model).type != "cuda":
        return "the model is not on a CUDA device"
    refusal = fixed_steps_refusal(model, GraphStep)
    return f"the model is not {refusal[0]}" if refusal else None


def device_of(model: nn.Module) -> torch.device:
    """Returns the device of a model, the CPU if it has no parameters."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def fixed_steps_refusal(model: Any, kind: type[StaticStep]) -> tuple[str, str] | None:
    """Returns what a model should be to have steps of fixed shapes, and a hint; None: it is.

    Args:
        model: any module.
        kind: class of the steps.
    """
    if not kind.serves_encoder_decoders and getattr(model, "families", None) != ("decoder",):
        return "a decoder with a language model head", _DECODER
    if getattr(model, "task", None) not in ("causal-lm", "seq2seq-lm"):
        return "one that predicts the next token", _NEXT
    if type(model.decoder) is not Stack:
        return "a model with a decoder of minitx", "other stacks have their own masks"
    if not kind.serves_experts and any(isinstance(module, MixtureOfExperts) for module in model.modules()):
        return "a model without experts", "which of them run depends on the token"
    return None


def undo_static_steps(model: Module, kind: type[StaticStep] = StaticStep) -> Module:
    """Undoes `static_steps`, and frees buffers and code. Returns the model.

    Args:
        model: any module.
        kind: class of the steps; others stay.

    Raises:
        ArgumentTypeError: not a module.
    """
    checked: Any = check_type("model", model, nn.Module, "a module")
    if isinstance(checked, _Graphed) and issubclass(checked.graph_steps.kind, kind):
        take_out(checked, _Graphed)
        del checked.graph_steps
    return model


def undo_cuda_graphs(model: Module) -> Module:
    """Undoes `cuda_graphs`, and frees the recorded steps. Returns the model.

    Raises:
        ArgumentTypeError: not a module.
    """
    undo_static_steps(model, GraphStep)
    note_undone(model, "cuda_graphs")
    return model
