"""The names of the values inside a model: outputs of modules, and steps inside attention and layers.

    embedder                                              (B, T, E)
    encoder.layers.3.residual.before                      (B, T, E)  input of the layer
    encoder.layers.3.residual.between                     (B, T, E)  after the attention branch
    encoder.layers.3.residual.cross                       (B, T, E)  after the cross-attention branch
    encoder.layers.3.residual.after                       (B, T, E)  output of the layer
    encoder.layers.3.attention.self_attention.query       (B, H, T, D)  normalised and rotated
    encoder.layers.3.attention.self_attention.key         (B, K, T, D)  likewise, of the new tokens
    encoder.layers.3.attention.self_attention.value       (B, K, T, D)
    encoder.layers.3.attention.self_attention.scores      (B, H, T, S)  with position bias and mask
    encoder.layers.3.attention.self_attention.weights     (B, H, T, S)  before dropout
    encoder.layers.3.attention.self_attention.mixed       (B, H, T, D)  output of each head
    encoder.layers.3.intermediate.activation              (B, T, F)  as the output of any module
    encoder.layers.3.intermediate.expert_weights          (B, T, k)  of the chosen experts
    encoder.layers.3.intermediate.expert_indices          (B, T, k)
    logits                                                (B, T, V), or as the head returns them

Layers are numbered by the order in which they run, so that layers that share parameters have names of their
own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from torch import nn

from minitx.layers.attention import SelfAttention
from minitx.layers.disentangled import DisentangledSelfAttention
from minitx.layers.experts import MixtureOfExperts
from minitx.layers.layer import Layer
from minitx.validation import ArgumentTypeError, ArgumentValueError

OUTPUT, INPUT = "output", "input"
ATTENTION_POINTS = ("query", "key", "value", "scores", "weights", "mixed")
ROUTING_POINTS = ("expert_weights", "expert_indices")


@dataclass(frozen=True, eq=False)
class Place:
    """A named value inside a model.

    Attributes:
        name: such as "decoder.layers.0.attention.self_attention.weights".
        module: the module whose output, input or step the value is.
        point: OUTPUT, INPUT, one of ATTENTION_POINTS or one of ROUTING_POINTS.
        stack: name of the stack that the module is part of; "" outside the stacks.
        layer: number of the layer, in the order in which they run; None outside the layers.
        shared: whether the module runs in several layers.
        decodes: whether its tokens are those that a key/value cache counts.
    """

    name: str
    module: nn.Module
    point: str
    stack: str = ""
    layer: int | None = None
    shared: bool = False
    decodes: bool = False

    @property
    def is_per_head(self) -> bool:
        """Whether the value has a dimension of heads, the second."""
        return self.point in ATTENTION_POINTS

    @property
    def token_dim(self) -> int:
        """The dimension of the tokens: of the queries, in scores and weights."""
        return 2 if self.is_per_head else 1

    @property
    def has_key_dim(self) -> bool:
        """Whether the last dimension is that of the keys."""
        return self.point in ("scores", "weights")


def list_places(model: nn.Module) -> dict[str, Place]:
    """Returns all places of a model by name, in the order of its modules."""
    places = [*_outside_layers(model)]
    for stack in _stacks(model):
        places += _in_layers(model, stack)
    if isinstance(head := getattr(model, "head", None), nn.Module):
        places.append(Place("logits", head, OUTPUT, decodes="decoder" in model._modules))
    return {place.name: place for place in places}


def _decodes(model: nn.Module, path: str, point: str = OUTPUT) -> bool:
    """Whether the tokens of a value are those of the decoder."""
    if "decoder" not in model._modules:
        return False
    if point in ("key", "value") and path.endswith("cross_attention"):
        return False
    side = path.partition(".")[0]
    return side in ("decoder", "decoder_embedder", "head", "pooler") or "encoder" not in model._modules


def match_places(model: nn.Module, *patterns: str) -> list[Place]:
    """Returns the places whose names match one of the patterns, in the order of the model.

    Args:
        model: with places.
        patterns: names; `*` stands for any part between two dots, `**` for any number of parts.

    Raises:
        ArgumentTypeError: a pattern that is not a string.
        ArgumentValueError: a pattern that matches no place; the message has similar names.
    """
    places = list_places(model)
    chosen: set[str] = set()
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise ArgumentTypeError("names", pattern, "the name of a place, or a pattern", _HINT)
        matching = {name for name in places if _expression(pattern).fullmatch(name)}
        if not matching:
            similar = get_close_matches(pattern, places, n=3, cutoff=0.5)
            expected = "the name of a place of the model, or a pattern that matches one"
            hint = f"similar: {', '.join(similar)}" if similar else _HINT
            raise ArgumentValueError("names", pattern, expected, hint)
        chosen |= matching
    return [place for name, place in places.items() if name in chosen]


_HINT = 'model.taps() lists them; "*" stands for one part of a name, "**" for any number of parts'


def _expression(pattern: str) -> re.Pattern[str]:
    """Returns the regular expression of a pattern."""
    parts = re.split(r"(\*\*\.|\.\*\*|\*\*|\*)", pattern)
    wild = {"**.": r"(?:.*\.)?", ".**": r"(?:\..*)?", "**": ".*", "*": r"[^.]+"}
    return re.compile("".join(wild.get(part) or re.escape(part) for part in parts))


def _stacks(model: nn.Module) -> list[str]:
    """Returns the names of the modules that hold layers."""
    modules = model.named_children()
    return [name for name, module in modules if isinstance(getattr(module, "layers", None), nn.ModuleList)]


def run_order(stack: Any) -> Sequence[int]:
    """Returns the index in `layers` of the layer that runs at each step of a stack."""
    order: Sequence[int] = getattr(stack, "layer_order", range(len(stack.layers)))
    return order


def _outside_layers(model: nn.Module) -> Iterator[Place]:
    """Yields the outputs of the modules outside the layers."""
    stacks = _stacks(model)
    inside = tuple(f"{stack}.layers." for stack in stacks)
    for name, module in model.named_modules(remove_duplicate=False):
        if name and not name.startswith(inside) and _has_output(name, module):
            stack = name.partition(".")[0]
            stack = stack if stack in stacks else ""
            yield Place(name, module, OUTPUT, stack, decodes=_decodes(model, name))


def _in_layers(model: nn.Module, stack: str) -> Iterator[Place]:
    """Yields the places in the layers of a stack, layer by layer in the order in which they run."""
    layers: Any = model.get_submodule(stack).layers
    order = run_order(model.get_submodule(stack))
    for number, index in enumerate(order):
        shared = order.count(index) > 1
        for name, point, part in _points(layers[index]):
            path = f"{stack}.layers.{number}.{name}"
            decodes = _decodes(model, path.removesuffix(f".{point}"), point)
            yield Place(path, part, point, stack, number, shared, decodes)


def _points(layer: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """Yields the places of a layer: name, point and module."""
    if isinstance(layer, Layer):
        yield "residual.before", INPUT, layer
        yield "residual.between", OUTPUT, layer.attention
        if "cross_attention" in layer._modules:
            yield "residual.cross", OUTPUT, layer.cross_attention
        yield "residual.after", OUTPUT, layer
    unused: set[nn.Module] = set()  # parameters and probabilities of a step inside the module
    for name, module in layer.named_modules():
        points: tuple[str, ...] = ()
        if isinstance(module, SelfAttention | DisentangledSelfAttention):
            points = ATTENTION_POINTS
            unused |= {module.dropout}
        elif isinstance(module, MixtureOfExperts):
            points = ROUTING_POINTS
            unused |= {*module.experts.modules()}
        if name and module not in unused and not isinstance(module, nn.ModuleList):
            yield name, OUTPUT, module
        for point in points:
            yield f"{name}.{point}", point, module


_TABLES = {"relative_bias", "relative_emb"}  # whose weights are looked up without calling them


def _has_output(name: str, module: nn.Module) -> bool:
    """Whether a module returns one tensor for a whole batch when it is called."""
    return not isinstance(module, nn.ModuleList) and _TABLES.isdisjoint(name.split("."))
