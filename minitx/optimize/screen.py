"""An output head whose int8 copy finds the tokens that can be the most probable one.

Greedy decoding uses the place of the largest logit and nothing else, but a step reads a row of weights per
token of the vocabulary to find it: a third of all weights in GPT-2. A product with the weight in int8, which
reads a quarter of the bytes, gives every logit within a bound. Only tokens that reach the largest lower bound
can be the most probable one, often a few dozen; their logits are computed from the weight itself. So the
token is that of the whole product. It is a search of the largest inner product with quantised vectors.

By the inequality of Cauchy and Schwarz, for an input x and a row w, and x' and w' of which products are made:

    |x w - x' w'| <= |x| |w - w'| + |x - x'| |w'|

V tokens of the vocabulary, E features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from minitx.guarantees import is_argmax_alone
from minitx.optimize.applied import note_undone
from minitx.optimize.classes import Module, set_class
from minitx.optimize.linear import FastLinear
from minitx.optimize.packed import UNPACKED, Packed, PackedLinear
from minitx.optimize.quantize.products import quantize_rows, weight_levels
from minitx.validation import ArgumentValueError, check_type

SCREENED = 2**22  # weights of a head for which it pays: a smaller one is read in a tenth of a millisecond
_FEW = 4  # rows of an input; for more the packed product, which reads the weight once, is faster
_SMALLEST = 1e-37  # scale of an input of zeros
_MANY = 16  # a share of 1 / 16 of the rows of a weight is computed in no less time than all
_MARGIN = 1.001  # for the rounding of norms


class ScreenedWeight(Packed):
    """The packed copy of a weight, and one in int8 that rules out most outputs as the largest one."""

    def pack(self, weight: Tensor) -> Tensor:
        """Returns a copy of a weight: (V, E) -> (V, E)."""
        integers, scale, squared_error = quantize_rows(weight, weight_levels())
        self._integers, self._scale = integers.t(), scale
        error, size = squared_error.sqrt_(), torch.linalg.vector_norm(weight, dim=-1)
        rounding = weight.shape[1] * 2.0**-22  # of the sums in both products, relative to |x| |w|
        self._error, self._size = error + rounding * size, size + error
        return super().pack(weight)

    def multiply(
        self, x: Tensor, copy: Tensor, bias: Tensor | None, activation: tuple[str, str] = ("none", "")
    ) -> Tensor:
        """Returns x W^T + b, or an activation of it.

        Where the caller uses the argmax alone, outputs that cannot be the largest one are -inf.
        (..., E), (V, E), (V) -> (..., V)
        """
        weight = self.weight
        if is_argmax_alone() and weight is not None and x.numel() <= _FEW * x.shape[-1]:
            rows = [self._screened(row, weight.detach(), bias) for row in x.reshape(-1, x.shape[-1])]
            largest = [row for row in rows if row is not None]
            if len(largest) == len(rows):
                return torch.stack(largest).view(*x.shape[:-1], len(weight))
        return super().multiply(x, copy, bias, activation)

    def _screened(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
        """Returns the outputs that can be the largest one, -inf for others: (E), (V, E), (V) -> (V).

        None: there are many of them, or none, since the input or the weight is not finite.
        """
        step = x.abs().amax().div_(127).clamp_min_(_SMALLEST)
        integers = torch.div(x, step).round_()
        y = torch._int_mm(integers.to(torch.int8)[None], self._integers)[0].mul(self._scale).mul_(step)
        y = y if bias is None else y.add_(bias)
        lost = torch.linalg.vector_norm(x - integers * step)
        bound = (self._error * torch.linalg.vector_norm(x)).add_(self._size * lost).mul_(_MARGIN)
        places = ((y + bound) >= (y - bound).amax()).nonzero()[:, 0]
        if not 0 < len(places) <= len(y) // _MANY:
            return None
        largest = torch.mv(weight.index_select(0, places), x)
        largest = largest if bias is None else largest + bias[places]
        return torch.full_like(y, -torch.inf).index_copy_(0, places, largest)


class ScreenedLinear(PackedLinear):
    """nn.Linear by a `ScreenedWeight`; prints as nn.Linear."""

    @property
    def packed(self) -> Packed:
        """The copies of the weight."""
        copy: Packed = vars(self).setdefault("_packed", ScreenedWeight())
        return copy


UNPACKED[ScreenedLinear] = FastLinear


def screen_head(model: Module) -> Module:
    """Lets greedy decoding compute the logits of those tokens only that can be the most probable one.

    Changes the class of the head's projection in place; parameters, names and hooks stay. It serves steps of
    up to 4 rows of `Greedy` without processors, log-probabilities or functions inside the model; wherever
    other logits are used, all are computed.

    Exactness: greedy tokens are the same; a logit differs by the rounding of sums in another order.
    Cost: a byte of memory for each weight of the head, beside the copy of `pack_weights`.

    Args:
        model: one that predicts the next token, in float32, after `pack_weights`.

    Returns:
        The model.

    Raises:
        ArgumentTypeError: not a module.
        ArgumentValueError: not such a model, or a processor whose products of int8 are not exact.
        RuntimeError: there is no memory for the copies. The model is as before.
    """
    if refusal := not_screened(model):
        hint = "call pack_weights first; it packs large weights" if "packed" in refusal else ""
        raise ArgumentValueError("model", type(model), f"one to screen the head of: {refusal}", hint)
    weight_levels()
    projection: Any = _projection(model)
    set_class(projection, ScreenedLinear)
    try:
        projection.packed.of(projection.weight)
    except Exception:
        set_class(projection, PackedLinear)
        raise
    return model


def undo_screen_head(model: Module) -> Module:
    """Undoes `screen_head`: drops the copy in int8. Returns the model.

    Raises:
        ArgumentTypeError: not a module.
    """
    projection = _projection(check_type("model", model, nn.Module, "a module"))
    if type(projection) is ScreenedLinear:
        set_class(projection, PackedLinear)
    note_undone(model, "screen_head")
    return model


def not_screened(model: nn.Module) -> str | None:
    """Returns why `screen_head` does not serve a model; None: it does.

    Raises:
        ArgumentTypeError: not a module.
    """
    check_type("model", model, nn.Module, "a module")
    if reason := not_greedy(model):
        return reason
    projection: Any = _projection(model)
    if not isinstance(projection, PackedLinear) or projection.packed.of(projection.weight) is None:
        return "the weight of its head is not packed"
    return None if projection.weight.dtype == torch.float32 else f"the dtype is {projection.weight.dtype}"


def not_greedy(model: nn.Module) -> str | None:
    """Returns why a model has no use for a screened head; None: it has."""
    predicts = getattr(model, "task", None) in ("causal-lm", "seq2seq-lm")
    return None if predicts else "the model does not predict the next token"


def _projection(model: nn.Module) -> nn.Module | None:
    """Returns the projection of a model's head; None: it has none."""
    projection: nn.Module | None = getattr(getattr(model, "head", None), "projection", None)
    return projection
