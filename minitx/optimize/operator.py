"""Operators that compiled steps leave to the products of this package.

`torch.compile` would take PyTorch's own product, which for few rows is slow on many processors. These are
opaque to the compiler: when the code runs, `minitx::packed_linear` takes the packed copy of the weight that a
pass made, and `minitx::linear` the fastest product of the machine, as in a model that is not compiled.
"""

from __future__ import annotations

from torch import Tensor, library

from minitx.optimize.bfloat16 import PackedBfloat16
from minitx.optimize.linear import linear
from minitx.optimize.packed import packed_at, product

_ARGUMENTS = "Tensor x, Tensor weight, Tensor? bias"


def _packed_linear(x: Tensor, weight: Tensor, bias: Tensor | None, narrow: bool) -> Tensor:
    """(..., inputs), (outputs, inputs), (outputs) -> (..., outputs)"""
    parameter, packed = packed_at(weight, narrow) or (weight, None)
    copy = None if packed is None else packed.of(parameter)
    if packed is not None and copy is not None:
        return packed.multiply(x, copy, bias)
    return product(x, weight, bias, PackedBfloat16()) if narrow else linear(x, weight, bias)


def _shape(x: Tensor, weight: Tensor, bias: Tensor | None, narrow: bool = False) -> Tensor:
    """(..., inputs), (outputs, inputs), (outputs) -> (..., outputs), without values"""
    return x.new_empty(*x.shape[:-1], len(weight))


for _name, _operator, _more in (("linear", linear, ""), ("packed_linear", _packed_linear, ", bool narrow")):
    library.define(f"minitx::{_name}", f"({_ARGUMENTS}{_more}) -> Tensor")
    library.impl(f"minitx::{_name}", "cpu", _operator)
    library.register_fake(f"minitx::{_name}", _shape)
