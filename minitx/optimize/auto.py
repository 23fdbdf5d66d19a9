"""`minitx.optimize(model)`: applies the passes that pay on this machine, and reports what it did."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from minitx.optimize.applied import REPORT, AppliedPass, Report
from minitx.optimize.bfloat16 import (
    NARROWED,
    bfloat16_is_faster,
    bfloat16_weights,
    undo_bfloat16_weights,
)
from minitx.optimize.classes import Module
from minitx.optimize.fuse import fuse_projections, undo_fuse_projections
from minitx.optimize.graphs.compiled import compiled_steps, no_compiled_steps, undo_compiled_steps
from minitx.optimize.graphs.model import cuda_graphs, no_graphs, undo_cuda_graphs
from minitx.optimize.packed import (
    PACKED,
    has_weights_to_pack,
    pack_weights,
    packed_is_faster,
    undo_pack_weights,
)
from minitx.optimize.quantize.passes import int8_dynamic, undo_quantization
from minitx.optimize.quantize.products import int8_is_faster
from minitx.optimize.screen import SMALLEST_HEAD, no_screen, screen_head, undo_screen_head
from minitx.optimize.unpadded import first_stack, obstacle, undo_unpadded, unpadded
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_choice, check_flags, check_type

_OTHER_DTYPE = "the model is in"  # begins the reason of a pass for models of another dtype


@dataclass(frozen=True)
class Pass:
    """A pass that `optimize` knows.

    Attributes:
        apply: the pass.
        undo: its inverse, a public function of `minitx.optimize` or a package in it.
        does: what it does.
        exactness: how its outputs differ.
        cost: memory that it takes.
        unsuitable: returns why it does not pay for a model on this machine; None: it does.
        needs: name of a pass without which it cannot be applied.
    """

    apply: Callable[[Any], Any]
    undo: Callable[[Any], Any]
    does: str
    exactness: str
    cost: str
    unsuitable: Callable[[Any], str | None]
    needs: str | None = None


def _always(model: nn.Module) -> str | None:
    return None


def _no_padding(model: nn.Module) -> str | None:
    if "encoder" not in getattr(model, "families", ()):
        return "the model has no encoder"
    return obstacle(first_stack(model))


def _no_packing(model: nn.Module) -> str | None:
    if reason := _not_on_cpu(model, (torch.float32, torch.bfloat16), PACKED):
        return reason
    return None if packed_is_faster(dtype_of(model)) else "not faster on this processor"


def _no_screen(model: nn.Module) -> str | None:
    if reason := no_screen(model):
        return reason
    projection: Any = getattr(model.head, "projection", None)
    small = projection.weight.numel() < SMALLEST_HEAD
    return f"its head has fewer than {SMALLEST_HEAD:,} weights" if small else _no_int8(model)


def _no_bfloat16(model: nn.Module) -> str | None:
    if reason := _not_on_cpu(model, (torch.float32,), NARROWED):
        return reason
    return None if bfloat16_is_faster() else "products in bfloat16 are not faster on this processor"


def _no_int8(model: nn.Module) -> str | None:
    if any(not parameter.is_cpu for parameter in model.parameters()):
        return "the model is not on a CPU"
    return None if int8_is_faster() else "products of int8 are not faster on this processor"


def _not_on_cpu(
    model: nn.Module, dtypes: Sequence[torch.dtype], kinds: Collection[type[nn.Module]]
) -> str | None:
    """Returns why oneDNN has no products for a model; None: it has."""
    parameters = [*model.parameters()]
    if any(not parameter.is_cpu for parameter in parameters):
        return "the model is not on a CPU"
    if dtype_of(model) not in dtypes:
        return f"{_OTHER_DTYPE} {dtype_of(model)}"
    return None if has_weights_to_pack(model, kinds) else "the model has no large weights"


def dtype_of(model: nn.Module) -> torch.dtype:
    """Returns the dtype of most of the numbers in a model."""
    sizes: dict[torch.dtype, int] = {torch.float32: 0}
    for parameter in model.parameters():
        sizes[parameter.dtype] = sizes.get(parameter.dtype, 0) + parameter.numel()
    return max(sizes, key=lambda dtype: sizes[dtype])


PASSES: dict[str, Pass] = {  # in the order in which they are applied
    "fuse_projections": Pass(
        fuse_projections,
        undo_fuse_projections,
        "Q, K and V as one product, gate and dense as one",
        "equal up to rounding",
        "as much memory as the joined weights, if they were mapped from a file; else none",
        _always,
    ),
    "unpadded": Pass(
        unpadded,
        undo_unpadded,
        "no computation of padding in the encoder",
        "equal up to rounding, zeros at padding",
        "none",
        _no_padding,
    ),
    "pack_weights": Pass(
        pack_weights,
        undo_pack_weights,
        "copies of the weights in the order in which oneDNN reads them",
        "equal up to rounding",
        "as much memory as the weights",
        _no_packing,
    ),
    "screen_head": Pass(
        screen_head,
        undo_screen_head,
        "greedy steps compute logits only for tokens that can be the most probable one",
        "equal up to rounding; all logits are computed where they are used",
        "a byte of memory for each weight of the head",
        _no_screen,
        needs="pack_weights",
    ),
    "bfloat16_weights": Pass(
        bfloat16_weights,
        undo_bfloat16_weights,
        "products of projections in bfloat16",
        "inputs and outputs of projections rounded to 3 digits",
        "half as much memory as the weights",
        _no_bfloat16,
    ),
    "int8_dynamic": Pass(
        int8_dynamic,
        undo_quantization,
        "products of projections in int8",
        "weights and inputs of projections rounded to 8 bits; minitx.optimize.quantize.quality measures",
        "a byte of memory for each weight: a quarter of float32, half of bfloat16",
        _no_int8,
    ),
    "cuda_graphs": Pass(
        cuda_graphs,
        undo_cuda_graphs,
        "each step of a generation launched as one CUDA graph",
        "equal up to rounding",
        "a cache for each of up to 4 recorded steps",
        no_graphs,
    ),
    "compiled_steps": Pass(
        compiled_steps,
        undo_compiled_steps,
        "each step of a generation compiled with torch.compile when it first runs",
        "equal up to rounding",
        "half a minute or less when a step first runs, for one row and for several",
        no_compiled_steps,
    ),
}
_OPTIONAL = {  # option of `optimize` that asks for a pass
    "bfloat16_weights": ("dtype", "dtype=torch.bfloat16"),
    "int8_dynamic": ("int8", "int8=True"),
    "compiled_steps": ("compile", "compile=True"),
}
_PRODUCTS = ("pack_weights", "bfloat16_weights", "int8_dynamic")  # of which a projection has one


def optimize(
    model: Module,
    *,
    dtype: torch.dtype | None = None,
    int8: bool = False,
    compile: bool = False,
    passes: Sequence[str] | None = None,
    verbose: bool | None = None,
) -> Module:
    """Applies the passes that pay for a model on this machine, in place.

    Without options the outputs stay equal up to rounding; `dtype` and `int8` trade digits for speed. What
    pays is measured once in a process, in some ten milliseconds. Parameters keep values and names:
    `minitx.save` writes the model as it was loaded, and `minitx.optimize.undo_optimize(model)` undoes the
    passes. A call that follows another replaces its passes.

    Args:
        model: any module.
        dtype: torch.bfloat16: products of a float32 model in bfloat16. None: they stay as they are.
        int8: products of integers, by `minitx.optimize.quantize.int8_dynamic`.
        compile: compile the steps of a generation, by `compiled_steps`, which takes up to half a minute
            when a step first runs, for one row and for several.
        passes: names of the passes to apply, whether they pay or not, instead of a choice; () for none.
        verbose: print the report to stderr. None: at a terminal only.

    Returns:
        The model. `minitx.optimize.report(model)` returns what was done, what each pass costs and why others
        were left out.

    Raises:
        ArgumentTypeError: not a module, or names that are none.
        ArgumentValueError: an unknown pass, options that exclude each other, or one that this processor or
            this model cannot serve or that would not be faster. The passes of an earlier call are then
            applied again; those of the failed one are undone, as `undo_optimize` does.
        RuntimeError, MemoryError: there is no memory for the copies, or no compiler. Likewise.

    Example:
        >>> model = minitx.optimize(minitx.load("minitx/tiny-decoder"))
        >>> print(minitx.optimize.report(model))
    """
    check_type("model", model, nn.Module, "a module")
    check_flags(int8=int8, compile=compile, **({} if verbose is None else {"verbose": verbose}))
    earlier = report(model)
    undo_optimize(model)  # the choice is that for the model without its earlier passes
    try:
        names, left = chosen(model, {"dtype": dtype, "int8": int8, "compile": compile}, passes)
        applied = apply_all(model, names)
    except Exception:
        if earlier is not None:
            apply_all(model, [step.name for step in earlier.applied])
            vars(model)[REPORT] = earlier
        raise
    threads, processor = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    result = Report(type(model).__name__, str(dtype_of(model)), processor, threads, tuple(applied), left)
    vars(model)[REPORT] = result
    if sys.stderr.isatty() if verbose is None else verbose:
        sys.stderr.write(f"{result}\n")
    return model


def apply_all(model: nn.Module, names: Sequence[str]) -> list[AppliedPass]:
    """Applies passes; if one fails, undoes those before it. Returns what was applied."""
    applied: list[AppliedPass] = []
    try:
        for name in names:
            step = PASSES[name]
            step.apply(model)
            undo = f"{step.undo.__module__.rpartition('.')[0]}.{step.undo.__name__}"
            applied.append(AppliedPass(name, step.does, step.exactness, step.cost, undo))
    except Exception:
        for done in reversed(applied):
            PASSES[done.name].undo(model)
        raise
    return applied


def optimize_as(model: Module, kind: str | None, compile: bool, quiet: bool) -> Module:
    """Applies `optimize` as --optimize of the command line asks for it. Returns the model.

    Args:
        model: any module.
        kind: "exact", "bfloat16" or "int8"; None: nothing is applied, or with `compile` the same as "exact".
        compile: whether steps of a generation are compiled.
        quiet: show nothing; else, at a terminal, one line with the names of the passes.

    Raises:
        ArgumentValueError: as `optimize`.
    """
    if kind is None and not compile:
        return model
    dtype = torch.bfloat16 if kind == "bfloat16" else None
    try:
        optimize(model, dtype=dtype, int8=kind == "int8", compile=compile, verbose=False)
    except ArgumentValueError as error:
        if error.parameter not in ("dtype", "int8"):
            raise
        hint = "choose exact, or load it with --dtype float32" if _OTHER_DTYPE in error.expected else ""
        raise ArgumentValueError("optimize", kind, error.expected, hint) from None
    done = report(model)
    if done is not None and not quiet and sys.stderr.isatty():
        sys.stderr.write(f"optimized: {', '.join(step.name for step in done.applied) or 'nothing applies'}\n")
    return model


def undo_optimize(model: Module) -> Module:
    """Undoes the passes that `optimize` applied, the last first. Returns the model.

    Parameters, and the outputs of a model of `minitx.load`, are those from before, bit for bit. A plain
    `nn.Linear` that was packed or computed in bfloat16 becomes one of `fast_linear`, which
    `undo_fast_linear` makes plain again. Each pass is undone for the whole model, so also where it was
    applied by its own function before `optimize` was called.

    Raises:
        ArgumentTypeError: not a module.
    """
    done = report(model)
    for applied in reversed(done.applied if done else ()):
        PASSES[applied.name].undo(model)
    vars(model).pop(REPORT, None)
    return model


def report(model: nn.Module) -> Report | None:
    """Returns what `optimize` did to a model; None if it was not applied, or undone.

    A pass that was undone by its own function since is listed among those that were left out.

    Raises:
        ArgumentTypeError: not a module.
    """
    found: Report | None = vars(check_type("model", model, nn.Module, "a module")).get(REPORT)
    return found


def chosen(
    model: nn.Module, options: Mapping[str, Any], passes: Sequence[str] | None
) -> tuple[list[str], dict[str, str]]:
    """Returns the names of the passes to apply, in their order, and why each other one is left out.

    Args:
        model: any module.
        options: `dtype`, `int8` and `compile` of `optimize`.
        passes: likewise.

    Raises:
        ArgumentTypeError, ArgumentValueError: as `optimize`.
    """
    dtype = options["dtype"]
    if dtype not in (None, torch.bfloat16):
        hint = "model.to(dtype) converts the parameters"
        raise ArgumentValueError("dtype", dtype, "torch.bfloat16 or None", hint)
    if dtype is not None and options["int8"]:
        raise ArgumentValueError("dtype", dtype, "None with int8=True", "a projection has one product")
    if passes is not None:
        return named(passes, options), {name: "not in passes" for name in PASSES if name not in passes}
    asked = {name for name, (option, _) in _OPTIONAL.items() if options[option]}
    product = next((name for name in _PRODUCTS if name in asked), "pack_weights")
    names, left = [], {}
    for name, step in PASSES.items():
        if name in _PRODUCTS and product not in (name, "pack_weights"):
            left[name] = f"{product} has another product"
        elif reason := step.unsuitable(model):
            if name in asked:
                option = _OPTIONAL[name][0]
                raise ArgumentValueError(option, options[option], f"left out: {reason}", _hint(name, reason))
            left[name] = reason
        elif name in _OPTIONAL and name not in asked:
            left[name] = f"{_OPTIONAL[name][1]} asks for it"
        elif step.needs and step.needs not in names:
            left[name] = f"{step.needs} is left out"
        else:
            names.append(name)
    return names, left


def _hint(name: str, reason: str) -> str:
    """Returns what to do where a pass that was asked for does not pay."""
    if reason.endswith("processor"):
        return f"minitx.optimize(model, passes=[{name!r}]) applies it all the same"
    return "model.float() converts it to float32" if reason.startswith(_OTHER_DTYPE) else ""


def named(passes: Sequence[str], options: Mapping[str, Any]) -> list[str]:
    """Returns the passes of a list in the order in which they are applied.

    Args:
        passes: their names.
        options: as for `chosen`.

    Raises:
        ArgumentTypeError, ArgumentValueError: as `optimize`.
    """
    if isinstance(passes, str) or not isinstance(passes, Sequence):
        raise ArgumentTypeError("passes", passes, "a sequence of names", f"such as {[*PASSES][:1]}")
    for name in passes:
        check_choice("passes", name, PASSES)
    if given := next((option for option, value in options.items() if value), None):
        hint = "the passes are those listed"
        raise ArgumentValueError(given, options[given], "left out with passes=", hint)
    products = [name for name in _PRODUCTS if name in passes]
    if len(products) > 1:
        raise ArgumentValueError("passes", [*passes], f"a list with one of {' and '.join(products)}")
    for name in passes:
        needed = PASSES[name].needs
        if needed is not None and needed not in passes:
            raise ArgumentValueError("passes", [*passes], f"a list with {needed}, which {name} needs")
    return [name for name in PASSES if name in passes]
