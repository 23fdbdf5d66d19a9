"""Checks for models of torch.compile; `model.compile()`, or that of a module, compiles in place."""

from __future__ import annotations

from typing import Any

from torch import nn

from minitx.models.base import Model
from minitx.validation import ArgumentTypeError


def check_not_compiled(model: Any, *, parts: bool = False) -> None:
    """Checks that a model is not in the wrapper of torch.compile.

    Args:
        model: any object.
        parts: no module of it may be, nor its forward compiled alone: such a model runs, but its parameters
            have other names.

    Raises:
        ArgumentTypeError: it is.
    """
    if isinstance(getattr(model, "_orig_mod", None), Model):
        hint = "pass model._orig_mod, or compile it in place with model.compile()"
        raise ArgumentTypeError("model", model, "a model of minitx, not what torch.compile returns", hint)
    if not parts or not isinstance(model, nn.Module):
        return
    for path, module in model.named_modules():
        is_wrapper = "_orig_mod" in module._modules
        if is_wrapper or is_compiled(vars(module).get("forward")):
            place = ".".join(filter(None, ("model", path, "" if is_wrapper else "forward")))
            value = module if is_wrapper else module.forward
            hint = "compile a module in place with module.compile()"
            raise ArgumentTypeError(place, value, "a part of minitx, not what torch.compile returns", hint)


def is_compiled(function: Any) -> bool:
    """Whether a function is what torch.compile returns."""
    return hasattr(function, "_torchdynamo_orig_callable")
