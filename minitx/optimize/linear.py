"""Linear projections in float32 on a CPU, by the fastest product of the machine.

PyTorch multiplies float32 matrices on a CPU with MKL. Two other products of PyTorch are often faster:

- That of oneDNN, which takes less than half of the time on processors whose vector instructions MKL does not
  use, such as AMD's with AVX-512. A short measurement decides, once in a process.
- A product in parts: a decoding step multiplies each weight with one row per sequence, and takes the time of
  loading the weights. For so few rows MKL runs on one core, at half of the memory bandwidth. As a batch of
  products with equal parts of the weight it runs on all cores, and a large weight, such as a vocabulary's, is
  faster in smaller parts. On one thread only such a weight is multiplied in parts, and one row takes
  PyTorch's own product with a smaller one.

All three sum in float32, in another order. oneDNN can apply the activation of a feed-forward network too,
while the sums are in registers, which saves a tenth of the time of BERT-base on one core: GELU and ReLU, with
the same bits as PyTorch's. The tanh approximation of GELU would have others, so it stays PyTorch's.

`minitx.load` and `minitx.from_config` apply the pass. Other devices, dtypes and small products take PyTorch's
own. Where gradients are recorded, oneDNN computes them too: of the input, g W, and of the weight, g^T x.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, lru_cache
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minitx.layers.activation import Activation
from minitx.layers.experts import ExpertsLinear
from minitx.layers.feed_forward import Intermediate
from minitx.optimize.classes import InPlaceOf, Module, change_classes, is_watched
from minitx.validation import is_transformed, values_unavailable

FEW_ROWS, VERY_FEW_ROWS = 64, 4  # where the products were equally fast, on two x86-64 cores
LARGE, PART = 2**16, 2**20  # smallest weight for which a choice pays; best size of a part
VOCABULARY = 2**23  # numbers of a weight from which parts pay on one thread, too
MANY = 2**22  # products of numbers from which it pays for a smaller weight: 256 rows of 128 x 128
CLEARLY = (
    1.3  # where oneDNN is faster it is by 2 or more, elsewhere as fast: the choice is that of the machine
)
_MEASURING = RLock()
# The processor's time of one thread, without the time in which a busy machine runs others
_is_precise = time.get_clock_info("thread_time").resolution < 1e-6
_clock = time.thread_time if _is_precise else time.perf_counter


class FastLinear(InPlaceOf, nn.Linear):
    """nn.Linear with the fastest product; prints as nn.Linear."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)"""
        return linear(x, self.weight, self.bias)

    def activated(self, x: Tensor, activation: tuple[str, str]) -> Tensor | None:
        """Returns an activation of the output if oneDNN's product computes it; None for other products.

        (..., inputs) -> (..., outputs)
        """
        takes = takes_onednn(x, self.weight, self.bias)
        return onednn(x, self.weight, self.bias, *activation) if takes else None


class FastExpertsLinear(InPlaceOf, ExpertsLinear):
    """ExpertsLinear with the fastest product; prints as ExpertsLinear."""

    def forward(self, x: Tensor, expert: int) -> Tensor:
        """(tokens, inputs) -> (tokens, outputs), through one expert"""
        return linear(x, self.weight[expert], None if self.bias is None else self.bias[expert])


class FastIntermediate(InPlaceOf, Intermediate):
    """Intermediate whose activation oneDNN's product computes, where it is taken; prints as Intermediate."""

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, F)"""
        dense, names = self.dense, _ACTIVATIONS.get(getattr(self.activation, "function", None))
        is_plain = type(self.activation) is Activation and [*self._modules][:2] == ["dense", "activation"]
        is_plain = is_plain and not is_watched(dense) and not is_watched(self.activation)
        activated = None
        if is_plain and names and isinstance(dense, FastLinear):
            activated = dense.activated(hidden, names)
        if activated is None:
            output: Tensor = super().forward(hidden)  # type: ignore[no-untyped-call]
            return output
        hidden = activated
        for module in [*self][2:]:  # a dropout
            hidden = module(hidden)
        return hidden


_ACTIVATIONS: dict[Any, tuple[str, str]] = {
    F.gelu: ("gelu", "none"),
    F.relu: ("relu", ""),
}
_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: FastLinear,
    ExpertsLinear: FastExpertsLinear,
    Intermediate: FastIntermediate,
}


def fast_linear(model: Module) -> Module:
    """Lets every linear projection choose the fastest product of the machine.

    Changes the class of the modules in place; parameters, names and hooks stay.

    Args:
        model: any module; only `nn.Linear` itself, experts and `Intermediate` are changed, not their
            subclasses.

    Returns:
        The model.

    Raises:
        ArgumentTypeError: not a module.
    """
    return change_classes(model, _CLASSES.get)


def undo_fast_linear(model: Module) -> Module:
    """Undoes `fast_linear`: every projection takes PyTorch's own product again. Returns the model.

    Needed before transformations that choose layers by their exact type, such as
    `torch.ao.quantization.quantize_dynamic(model, {nn.Linear})`: the type of a fast layer is `FastLinear`.

    Raises:
        ArgumentTypeError: not a module.
    """
    return change_classes(model, {faster: plain for plain, faster in _CLASSES.items()}.get)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Returns x W^T + b: (..., inputs), (outputs, inputs), (outputs) -> (..., outputs).

    Takes PyTorch's own product for other tensors than plain ones in float32 on a CPU, in transforms such as
    `torch.func.vmap`, and under modes such as a counter of operations.
    """
    if is_left_to_operator(x, weight, bias):
        compiled: Tensor = torch.ops.minitx.linear(x, weight, bias)
        return compiled
    if values_unavailable(x) or not _is_large(x, weight) or is_transformed():
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)):
        if not onednn_is_faster():
            return F.linear(x, weight, bias)
        y: Tensor = _Recorded.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return y
    parts = _parts(x, weight)
    if parts:
        return _in_parts(x, weight, bias, parts)
    if onednn_is_faster() and not _is_one_row(x, weight):
        return onednn(x, weight, bias)
    return F.linear(x, weight, bias)


class Operators:
    """Whether products are traced as operators, which have no derivatives: where steps are compiled."""

    traced = 0  # how many steps may be compiling


def is_left_to_operator(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether `minitx.optimize.operator` computes a product in compiled code.

    Args:
        x: (..., inputs)
        weight: (outputs, inputs)
        bias: (outputs), or None.
    """
    if not torch.compiler.is_dynamo_compiling() or not Operators.traced:
        return False
    large = weight.numel() >= LARGE and x.is_cpu and weight.is_cpu
    return large and x.dtype == weight.dtype and x.dtype in (torch.float32, torch.bfloat16)


def takes_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether `linear` takes oneDNN's product, and no gradient is recorded.

    Args:
        x: (..., inputs)
        weight: (outputs, inputs)
        bias: (outputs), or None.
    """
    if values_unavailable(x) or not _is_large(x, weight) or is_transformed() or not onednn_is_faster():
        return False
    records = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias))
    return not records and not _parts(x, weight) and not _is_one_row(x, weight)


def _is_one_row(x: Tensor, weight: Tensor) -> bool:
    """Whether it is the product of one row and no vocabulary on one thread: PyTorch's own is the fastest."""
    return x.numel() == x.shape[-1] and weight.numel() < VOCABULARY and torch.get_num_threads() == 1


def _parts(x: Tensor, weight: Tensor) -> int | None:
    """Returns in how many parts few rows are multiplied; None for one product.

    Args:
        x: (..., inputs)
        weight: (outputs, inputs)
    """
    outputs, inputs = weight.shape
    rows, threads = x.numel() // inputs, torch.get_num_threads()
    if threads == 1 and weight.numel() < VOCABULARY:
        return None
    # A part of W x^T with several columns is slow where it sums over more numbers than there are outputs.
    quick = rows <= VERY_FEW_ROWS and (rows == 1 or outputs >= inputs)
    if quick or (rows <= FEW_ROWS and not onednn_is_faster()):
        return divisor(outputs, min(max(2, threads), 32), min(weight.numel() // PART, 32))
    return None


def _is_large(x: Tensor, weight: Tensor) -> bool:
    """Whether a choice of products pays, and all of them can be chosen."""
    return bool(
        (weight.numel() >= LARGE or x.numel() * weight.shape[0] >= MANY)
        and type(x) is Tensor  # a DTensor, for example, has another product
        and type(weight) in (Tensor, nn.Parameter)
        and x.is_cpu
        and x.dtype == weight.dtype == torch.float32
        and weight.layout == torch.strided
        and weight.is_contiguous()
        and x.shape[-1] == weight.shape[1]
        and x.numel() > 0
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
    )


class _Recorded(torch.autograd.Function):
    """A linear projection whose gradients are oneDNN's products too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(..., inputs), (outputs, inputs), (outputs) -> (..., outputs)"""
        to_x, to_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if to_weight else None, weight if to_x else None)
        return onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """(..., outputs) -> (..., inputs), (outputs, inputs), (outputs)"""
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad
        # The gradient of a gradient is recorded in PyTorch's own products.
        plain = torch.is_grad_enabled() or is_transformed() or type(grad) is not Tensor
        product = F.linear if plain else onednn
        rows = grad.reshape(-1, grad.shape[-1]).contiguous()
        grad_x = product(rows, weight.t(), None).view(*grad.shape[:-1], -1) if to_x else None
        grad_weight = _transposed_product(product, rows, x.reshape(-1, x.shape[-1])) if to_weight else None
        return grad_x, grad_weight, rows.sum(0) if to_bias else None


def _transposed_product(product: Callable[..., Tensor], grad: Tensor, x: Tensor) -> Tensor:
    """Returns g^T x: (rows, outputs), (rows, inputs) -> (outputs, inputs).

    The first factor of a product is copied in its transposed order, so that is the smaller one.
    """
    if grad.shape[1] > x.shape[1]:
        return product(x.t(), grad.t(), None).t()
    return product(grad.t(), x.t(), None)


def _in_parts(x: Tensor, weight: Tensor, bias: Tensor | None, parts: int) -> Tensor:
    outputs, inputs = weight.shape
    flat, split = x.reshape(-1, inputs), weight.view(parts, -1, inputs)
    if len(flat) <= VERY_FEW_ROWS:  # each part of W x^T: (parts, outputs / parts, rows)
        column = flat.t().expand(parts, -1, -1)
        y = split.bmm(column) if bias is None else torch.baddbmm(bias.view(parts, -1, 1), split, column)
        y = y.flatten(0, 1).t().contiguous()  # without it the next product would be slow
    else:  # each part of x W^T: (parts, rows, outputs / parts)
        row, transposed = flat.expand(parts, -1, -1), split.mT
        y = row.bmm(transposed) if bias is None else torch.baddbmm(bias.view(parts, 1, -1), row, transposed)
        y = y.transpose(0, 1)
    return y.reshape(*x.shape[:-1], outputs)


def onednn(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none", kind: str = ""
) -> Tensor:
    """Returns oneDNN's product, of a plain or a packed weight, and an activation of it.

    (..., inputs), (outputs, inputs), (outputs) -> (..., outputs)
    """
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], kind)
    return y


def onednn_is_faster() -> bool:
    """Whether oneDNN's product is clearly faster on this machine; measured once, in a few milliseconds."""
    with _MEASURING:  # threads that change their number at once could not restore it
        return _onednn_is_faster()


@cache
def _onednn_is_faster() -> bool:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    times = measure(F.linear, onednn)
    return times[1] * CLEARLY < times[0]


@torch.inference_mode()
def measure(
    *products: Callable[..., Tensor], rows: int = 64, dtype: torch.dtype = torch.float32, size: int = 512
) -> list[float]:
    """Returns the shortest time of each product in seconds; they run alternately on the same matrices.

    They run on one thread: several would wait for each other on a busy machine.

    Args:
        products: functions of (x, weight, bias).
        rows: of x.
        dtype: of x and weight.
        size: of the square weight.
    """
    with torch.inference_mode(False):  # weights made in inference mode are not packed
        x, weight = (torch.ones(number, size, dtype=dtype, device="cpu") for number in (rows, size))
    seconds: list[list[float]] = [[] for _ in products]
    with _MEASURING:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for _ in range(5):
                for product, measured in zip(products, seconds, strict=True):
                    start = _clock()
                    product(x, weight, None)
                    measured.append(_clock() - start)
        finally:
            torch.set_num_threads(threads)
    return [min(measured) for measured in seconds]


@lru_cache
def divisor(number: int, least: int, preferred: int) -> int | None:
    """Returns a divisor of `number`.

    It is the smallest from max(preferred, least) to 64, else the largest from `preferred` down to `least`.
    Returns None if `number` has neither.
    """
    up, down = range(max(preferred, least), 65), range(preferred, least - 1, -1)
    return next((n for n in (*up, *down) if number % n == 0), None)
