"""Lets the package be called: `minitx.optimize(model)`."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import TYPE_CHECKING

from minitx.optimize.auto import optimize as _optimize


class CallablePackage(ModuleType):
    """The class of the package `minitx.optimize`; a call is that of `minitx.optimize.auto.optimize`."""

    __call__ = staticmethod(_optimize)
    __signature__ = inspect.signature(_optimize)


def with_call(text: str | None) -> str:
    """Returns the docstring of the package with the call's signature and docstring, for `help`."""
    signature = str(inspect.signature(_optimize)).replace("'", "")
    return f"{text}\nminitx.optimize{signature}\n\n{inspect.getdoc(_optimize)}\n"


if TYPE_CHECKING:
    optimize: CallablePackage
