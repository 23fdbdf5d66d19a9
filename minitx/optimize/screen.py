"""An output head whose int8 copy finds the tokens that can be the most probable one.

Greedy decoding uses only the argmax of the logits, but to find it a step reads a row of weights per token of
the vocabulary: a third of all weights in GPT-2. A product with an int8 copy, which reads a quarter of the
bytes, approximates every logit, with a bound on the error. Only tokens that reach the largest lower bound can
be the most probable one; their logits are computed from the weight itself. This is a search of the largest
inner product with quantised vectors.

For an input x and a row w of the weight, and the x' and w' of which the int8 product is made, the bound is
that of Cauchy and Schwarz:

    |x w - x' w'| <= |x| |w - w'| + |x - x'| |w'|

V tokens of the vocabulary, E features.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from minitx.guarantees import is_only_argmax_used, is_own
from minitx.layers.heads import Head
from minitx.optimize.applied import note_undone
from minitx.optimize.classes import Module, former_class
from minitx.optimize.linear import FastLinear
from minitx.optimize.packed import Packed, PackedLinear
from minitx.optimize.quantize.products import quantize_rows, weight_levels
from minitx.validation import ArgumentValueError, check_type

SMALLEST_HEAD = 2**22  # weights of a head for which it pays: a smaller one takes little of a step
_MOST_ROWS = 2  # of an input; for more the packed product, which reads the weight once, is faster
_MOST_LOGITS = 1 / 64  # of the vocabulary: to gather more rows takes as long as the whole product
_PAUSE = 16  # products without a screen after one whose bound excluded too few tokens
_OUTLIER = 8  # features of x beyond this multiple of their root mean square are not rounded to int8
_MOST_OUTLIERS = 4
_TINY = 1e-18  # squares of smaller numbers lose digits in float32
_ROUNDING = 2.0**-22  # of an operation in float32, four times its largest relative error
_MARGIN = 1.001  # for the rounding of norms
_BLOCK = 2**12  # rows that are quantised at once: the temporary copies are in float32


class ScreenedWeight(Packed):
    """The packed copy of a weight, and one in int8 that excludes most outputs as the largest one."""

    pause = 0

    def pack(self, weight: Tensor) -> Tensor:
        """Returns a copy of a weight: (V, E) -> (V, E)."""
        if weight.dtype != torch.float32:  # as after `model.bfloat16()`, whose logits are rounded further
            self.pause = sys.maxsize
            return super().pack(weight)
        self.pause, levels, inputs = 0, weight_levels(), weight.shape[1]
        blocks = [quantize_rows(rows, levels) for rows in torch.split(weight, _BLOCK)]
        integers, scale, squared_error = map(torch.cat, zip(*blocks, strict=True))
        error, norm = squared_error.sqrt_(), torch.linalg.vector_norm(weight, dim=-1)
        tiny = scale < _TINY
        error, norm = error.where(~tiny, inputs * scale), norm.where(~tiny, inputs * levels * scale)
        self._integers, self._scale = integers.t(), scale
        self._error, self._norm = error.add_(norm, alpha=inputs * _ROUNDING), norm.add_(error)
        for bound in (self._error, self._norm):
            bound.mul_(_MARGIN)
        return super().pack(weight)

    def multiply(
        self, x: Tensor, copy: Tensor, bias: Tensor | None, activation: tuple[str, str] = ("none", "")
    ) -> Tensor:
        """Returns x W^T + b, or an activation of it.

        Where the caller uses only the argmax, outputs that cannot be the largest one are -inf.
        (..., E), (V, E), (V) -> (..., V)
        """
        weight, few = self.weight, 0 < x.numel() <= _MOST_ROWS * x.shape[-1]
        if few and activation[0] == "none" and weight is not None and is_only_argmax_used(self):
            if self.pause:
                self.pause -= 1
            elif (y := self.screened(x.reshape(-1, x.shape[-1]), weight.detach(), bias)) is not None:
                return y.view(*x.shape[:-1], len(weight))
            else:
                self.pause = _PAUSE
        return super().multiply(x, copy, bias, activation)

    def screened(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
        """Returns the outputs that can be the largest one of their row, and -inf for the others.

        None: there are many of them, or none, since the input or the weight is not finite.

        Args:
            x: (rows, E)
            weight: (V, E)
            bias: (V), or None.

        Returns:
            (rows, V)
        """
        logits = x.new_full((len(x), len(weight)), -torch.inf)
        for row, target in zip(x, logits, strict=True):
            y, bound = self.bounded(row, bias)
            candidates = (y + bound >= (y - bound).amax()).nonzero()[:, 0]
            if not 0 < len(candidates) <= _MOST_LOGITS * len(weight):
                return None
            exact = (weight.index_select(0, candidates) * row).sum(-1)  # equal for equal rows, as `mv` is not
            target.index_copy_(0, candidates, exact if bias is None else exact + bias[candidates])
        return logits

    def bounded(self, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns approximate outputs, and a bound on the error of each: (E), (V) -> (V), (V).

        The bound is NaN if the input is not finite, or so small that its square has no digits.
        """
        norm, rest, outliers = torch.linalg.vector_norm(x), x, None
        if float(x.abs().amax()) > _OUTLIER * float(norm) * x.numel() ** -0.5:
            outliers = x.abs().topk(min(_MOST_OUTLIERS, x.numel())).indices
            rest = x.index_fill(0, outliers, 0.0)
        step = rest.abs().amax().div_(127)
        step = step.where(norm >= _TINY, torch.nan).clamp_min_(_TINY / 127)
        integers = torch.div(rest, step).round_()
        y = torch._int_mm(integers.to(torch.int8)[None], self._integers)[0].mul(step)
        if outliers is not None:
            y += torch.mv(self._integers.index_select(0, outliers).t().float(), x[outliers])
        y.mul_(self._scale)
        input_error = torch.linalg.vector_norm(rest - integers * step)
        bound = torch.mul(self._error, norm).add_(self._norm, alpha=float(input_error))
        if bias is not None:
            y += bias
            bound.add_(y.abs(), alpha=_ROUNDING)
        return y, bound


def screen_head(model: Module) -> Module:
    """Lets greedy decoding compute the logits of those tokens only that can be the most probable one.

    The head's projection gets an int8 copy of its weight; class, parameters, names and hooks stay. It serves
    steps of one or two rows of `Greedy`, in `generate` and `stream`, without processors, log-probabilities,
    hooks and taps. Where other logits are used, all are computed; so they are where many tokens could be the
    most probable one.

    Exactness: equal up to rounding, so two tokens with nearly the same logit can change places.
    Cost: a byte of memory for each weight of the head, beside the copy of `pack_weights`.

    Args:
        model: a decoder or encoder-decoder of minitx that predicts the next token, in float32 on a CPU, after
            `pack_weights`.

    Returns:
        The model.

    Raises:
        ArgumentTypeError: not a module.
        ArgumentValueError: not such a model, or a processor whose products of int8 are not exact.
        RuntimeError: there is no memory for the copies. The model is as before.
    """
    checked: Any = check_type("model", model, nn.Module, "a module")
    if reason := no_screen(checked):
        raise ArgumentValueError("model", type(model), "one whose head can be screened", reason)
    weight_levels()
    projection = checked.head.projection
    if type(projection) is not PackedLinear or projection.packed.of(projection.weight) is None:
        other = type(projection) not in (nn.Linear, FastLinear, PackedLinear)
        undo = "undo the pass that computes the head in another way, then " if other else ""
        hint = f"{undo}call pack_weights first; it packs large weights"
        raise ArgumentValueError("model", type(model), "one with a packed weight in its head", hint)
    screened = ScreenedWeight()
    screened.of(projection.weight)
    vars(projection)["_packed"] = screened
    return model


def undo_screen_head(model: Module) -> Module:
    """Undoes `screen_head`: drops the int8 copy; the weight is packed again. Returns the model.

    Raises:
        ArgumentTypeError: not a module.
    """
    checked: Any = check_type("model", model, nn.Module, "a module")
    if screened_weight(checked) is not None:
        del vars(checked.head.projection)["_packed"]
    note_undone(model, "screen_head")
    return model


def screened_weight(model: nn.Module) -> ScreenedWeight | None:
    """Returns the copies of the weight of a screened head; None: the head is not screened."""
    projection = getattr(getattr(model, "head", None), "projection", None)
    weight = None if projection is None else vars(projection).get("_packed")
    return weight if isinstance(weight, ScreenedWeight) else None


def usable_screen(model: nn.Module) -> ScreenedWeight | None:
    """Returns the copies of a screened head's weight; None: it has none, or they cannot serve."""
    weight = screened_weight(model)
    return None if weight is None or no_screen(model) is not None else weight


def no_screen(model: Any) -> str | None:
    """Returns why a head cannot be screened, whether its weight is packed or not; None: it can.

    Args:
        model: any module.
    """
    if getattr(model, "task", None) not in ("causal-lm", "seq2seq-lm"):
        return "the model does not predict the next token"
    classes = (former_class(type(module)) for module in model.modules())
    functions = (vars(module).get("backend", Head) for module in model.modules())
    if not all(is_own(part, "torch.") for part in (*classes, *functions)):
        return "a part of the model is of another class than those of minitx, and may use the logits"
    if model.head.config.softcap is not None:
        return "the head caps its logits, so that large ones are equal"
    weight = model.head.projection.weight
    if weight.dtype != torch.float32:
        return f"its head is in {weight.dtype}; load it with dtype='float32', or call model.float()"
    return None if weight.is_cpu else f"its head is on {weight.device}, not on a CPU"
