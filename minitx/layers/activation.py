"""Activation functions under the names of `config.json`, and custom ones."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minitx.validation import ArgumentTypeError, ArgumentValueError, check_choice


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh approximation of GELU (arXiv:1606.08415, section 2): (...) -> (...)."""
    return F.gelu(x, approximate="tanh")


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x), the cheap approximation of GELU (arXiv:1606.08415, section 2): (...) -> (...)."""
    return x * torch.sigmoid(1.702 * x)


# "gelu" is exact (erf); "gelu_new", "gelu_fast" and "gelu_pytorch_tanh" are three spellings of one tanh
# approximation. They differ by up to 5e-4, so a checkpoint needs the one that it was trained with.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": gelu_tanh,
    "gelu_fast": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "mish": F.mish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
CUSTOM = "minitx.register_activation adds a custom one"  # hint of errors
_BUILT_IN = frozenset(ACTIVATIONS)


def register_activation(name: str, function: Callable[[Tensor], Tensor]) -> None:
    """Makes a custom activation known under a name, for `hidden_act` of a config and of config.json.

    A model with it is saved by that name; whoever loads it must register the function first.

    Args:
        name: not the name of a built-in activation.
        function: elementwise, (...) -> (...); a plain function, or an `nn.Module` without parameters and
            buffers, of which each layer has a copy.

    Raises:
        ArgumentTypeError: not a name, or not callable.
        ArgumentValueError: the name of a built-in activation, or a module with parameters or buffers.

    Example:
        >>> minitx.register_activation("squared_relu", lambda x: torch.relu(x) ** 2)
        >>> model = minitx.from_config({**config, "hidden_act": "squared_relu"})
    """
    if not isinstance(name, str) or not name:
        raise ArgumentTypeError("name", name, "a non-empty string")
    if not callable(function):
        raise ArgumentTypeError("function", function, "callable", "it maps a tensor to one of the same shape")
    if name in _BUILT_IN:
        raise ArgumentValueError("name", name, "a new name", f"minitx has {', '.join(sorted(_BUILT_IN))}")
    if (
        isinstance(function, nn.Module)
        and next(chain(function.parameters(), function.buffers()), None) is not None
    ):
        raise ArgumentValueError(
            "function",
            function,
            "a module without parameters and buffers",
            "a name alone cannot save them; assign Activation(module) to the layers of a model",
        )
    ACTIVATIONS[name] = function


class Activation(nn.Module):
    """An activation function as a module, so that it appears in the printout and can be hooked.

    Args:
        function: a name of `ACTIVATIONS`, or a custom function (...) -> (...). A copy of an `nn.Module`
            becomes a submodule, so its parameters are trained and belong to this layer alone.

    Raises:
        ArgumentTypeError: neither a name nor callable.
        ArgumentValueError: an unknown name.
    """

    def __init__(self, function: str | Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.name = getattr(function, "__name__", type(function).__name__)
        if isinstance(function, str):
            check_choice("activation", function, ACTIVATIONS, CUSTOM)
            self.name, function = function, ACTIVATIONS[function]
        if not callable(function):
            raise ArgumentTypeError("activation", function, "a name or a function")
        self.function = deepcopy(function) if isinstance(function, nn.Module) else function

    def extra_repr(self) -> str:
        """Returns the name of the function, for the printout."""
        return self.name

    def forward(self, x: Tensor) -> Tensor:
        """(...) -> (...)"""
        return self.function(x)
