"""How a pass changes modules: it gives them another class, so that parameters, names and hooks stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from minitx.validation import check_type

Module = TypeVar("Module", bound=nn.Module)


class InPlaceOf:
    """Base of classes that take the place of the next one in their order, under whose name they print."""

    def _get_name(self) -> str:
        order = type(self).__mro__
        return order[order.index(InPlaceOf) + 1].__name__


def change_classes(model: Module, choose: Callable[[Any], type[nn.Module] | None]) -> Module:
    """Changes the classes of a model's modules in place. Returns the model.

    Args:
        model: any module.
        choose: returns the new class for a class; None: it stays.

    Raises:
        ArgumentTypeError: not a module.
    """
    check_type("model", model, nn.Module, "a module")
    for module in model.modules():
        if chosen := choose(type(module)):
            module.__class__ = chosen
    return model
