"""Lets the package be called: `minitx.optimize(model)`."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from minitx.optimize.auto import optimize as _optimize


class CallablePackage(ModuleType):
    """The class of the package `minitx.optimize`; a call is that of `minitx.optimize.auto.optimize`."""

    __call__ = staticmethod(_optimize)


if TYPE_CHECKING:
    optimize: CallablePackage
