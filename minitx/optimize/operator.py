"""The operator `minitx::linear`: a projection that compiled code leaves to the products of this package.

Compiled code would take PyTorch's own product, which for few rows is slow on many processors. The operator is
opaque to the compiler: when the code runs, it takes the packed copy of the weight where a pass made one, and
else the fastest product of the machine, as in a model that is not compiled.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minitx.optimize.linear import linear
from minitx.optimize.packed import packed_at, product

_LIBRARY = torch.library.Library("minitx", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor")  # type: ignore[no-untyped-call]


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(..., inputs), (outputs, inputs), (outputs) -> (..., outputs)"""
    found = packed_at(weight)
    return linear(x, weight, bias) if found is None else product(x, found[0], bias, found[1])


def _shape(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(..., inputs), (outputs, inputs), (outputs) -> (..., outputs), without values"""
    return x.new_empty(*x.shape[:-1], len(weight))


_LIBRARY.impl("linear", _linear, "CPU")  # type: ignore[no-untyped-call]
torch.library.register_fake("minitx::linear", _shape, lib=_LIBRARY)
