"""Self-speculation: the first layers of the model draft for the whole of it (arXiv:2404.16710)."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any

from torch import nn

from minitx.decoding.parameters import check_size, set_frozen
from minitx.decoding.request import GenerationRequest
from minitx.decoding.speculative.draft import Draft, DraftCall, Drafter
from minitx.decoding.speculative.draft_model import DraftModel
from minitx.decoding.strategy import Strategy
from minitx.models import CausalModel
from minitx.validation import ArgumentValueError


@dataclass(frozen=True)
class EarlyExit(Draft):
    """The first layers of the verifying model, followed by its last norm and its head.

    No weights are added, but the layers have a cache of their own. It pays where the model was trained to be
    left early, as with LayerSkip, or where the last layers change little.

    Args:
        layers: number of layers that draft.
        strategy: as for `DraftModel`.

    Raises:
        ArgumentTypeError, ArgumentValueError: not a positive integer, or a strategy that cannot draft.
    """

    layers: int
    strategy: Strategy | None = None

    def __post_init__(self) -> None:
        set_frozen(self, layers=check_size("layers", self.layers, 1, "the layers that draft"))
        DraftModel.check_strategy(self.strategy)

    def check(self, model: Any, request: GenerationRequest) -> None:
        """Checks that the model has more layers."""
        steps = len(model.decoder.layer_order)
        if self.layers >= steps:
            hint = f"the model has {steps} layers"
            raise ArgumentValueError("layers", self.layers, f"fewer than {steps}", hint)

    def start(self, call: DraftCall) -> Drafter:
        """Runs the first layers over the prompts."""
        return DraftModel(first_layers(call.session.model, self.layers), self.strategy).start(call)


def first_layers(model: CausalModel, layers: int) -> CausalModel:
    """Returns a model of the first layers that shares all its weights with the model."""
    shorter, stack = _shallow(model), _shallow(model.decoder)
    stack.layer_order = model.decoder.layer_order[:layers]
    stack.layer_kinds = model.decoder.layer_kinds[:layers]
    stack.num_unique_layers = max(stack.layer_order) + 1
    stack.layers = model.decoder.layers[: stack.num_unique_layers]
    shorter.decoder = stack
    result: CausalModel = shorter
    return result


def _shallow(module: nn.Module) -> Any:
    """Returns a copy with the same parameters and without hooks, in which modules can be replaced."""
    other = copy(module)
    vars(other).update({name: type(value)() for name, value in vars(other).items() if "hooks" in name})
    other._modules = dict(module._modules)
    return other
