"""Checks the shapes that docstrings state against the tensors of real calls.

A docstring states shapes in one of two ways, with the letters of `minitx/layers/__init__.py`:

    '''(B, T, E), (B, T) -> (B, T, E)'''        in the order of the tensor parameters

    Args:                                       or by name
        hidden: (B, T, E)
Returns:
        (B, T, E), normalized.

A dimension is a number, a name, a choice (`1 or B`) or a product or sum of those (`H * D`); `...` stands for
any dimensions. A name has one value within a call; `(B, T) or (B, T, S)` allows either shape, and
`twice (B, T)` stands for two.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, is_dataclass
from types import FunctionType
from typing import Any

from torch import Tensor

SHAPE = re.compile(r"\(([^()]*(?:\([^()]*\)[^()]*)*)\)")
Dims = tuple[str, ...]


@dataclass
class Stated:
    """The shapes of one function: per tensor parameter and per result its alternatives."""

    parameters: dict[str, list[Dims]] = field(default_factory=dict)
    results: list[list[Dims]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def stated(function: FunctionType) -> Stated:
    """The shapes that a function's docstring states, and which of its tensors it says nothing of."""
    doc, shapes = inspect.getdoc(function) or "", Stated()
    tensors = tensor_parameters(function)
    arrow = next((line for line in doc.splitlines() if re.search(r"\)[^()]*->", line)), None)
    if arrow is not None:
        left, right = (listed(side) for side in re.split(r"->", arrow, maxsplit=1))
        shapes.parameters = dict(zip(tensors, left, strict=False))
        shapes.results = right
    for name, text in section(doc, "Args"):
        for part in re.split(r",\s*", name):
            if alternatives := listed(re.split(r"(?<!\.)\.(?!\.)|;", text)[0]):
                shapes.parameters[part] = alternatives[0]
    for name, text in section(doc, "Returns"):
        if not shapes.results:
            shapes.results = listed(f"{name}: {text}" if text else name)
    shapes.missing = [name for name in tensors if name not in shapes.parameters]
    if returns_tensor(function) and not shapes.results:
        shapes.missing.append("return")
    return shapes


def listed(text: str) -> list[list[Dims]]:
    """The shapes in a text, each with its alternatives: "(B, T) or (T,), twice (B,)" has three."""
    found: list[list[Dims]] = []
    end = 0
    for match in SHAPE.finditer(text):
        dims = tuple(dim.strip() for dim in match[1].split(",") if dim.strip())
        if not all(is_dimension(dim) for dim in dims):
            continue
        before = text[end : match.start()]
        if found and re.search(r"\bor\s*$", before):
            found[-1].append(dims)
        else:
            found += [[dims]] * (2 if re.search(r"\b[Tt]wice\s*$", before) else 1)
        end = match.end()
    return found


def is_dimension(text: str) -> bool:
    return bool(re.fullmatch(r"\.\.\.|[\w']+(?:\s*(?:\*|\+|-|/|or)\s*[\w']+)*", text)) and " " not in re.sub(
        r"\s*(\*|\+|-|/|\bor\b)\s*", "", text
    )


def section(doc: str, title: str) -> list[tuple[str, str]]:
    """The entries of a section of a docstring: (name, text), continuation lines joined."""
    match = re.search(rf"^{title}:\n((?:[ ]+.*\n?|\n)*)", doc, re.MULTILINE)
    entries: list[tuple[str, str]] = []
    for line in match[1].splitlines() if match else ():
        if re.match(r" {4}\S", line):
            name, _, text = line.strip().partition(": ")
            entries.append((name, text))
        elif entries and line.strip():
            entries[-1] = (entries[-1][0], f"{entries[-1][1]} {line.strip()}")
    return entries


def annotations(function: FunctionType) -> dict[str, str]:
    return {name: str(hint) for name, hint in function.__annotations__.items()}


def tensor_parameters(function: FunctionType) -> list[str]:
    hints = annotations(function)
    return [name for name, hint in hints.items() if name != "return" and hint in ("Tensor", "Tensor | None")]


def returns_tensor(function: FunctionType) -> bool:
    return annotations(function).get("return") in ("Tensor", "Tensor | None", "tuple[Tensor, Tensor]")


# --- comparing -------------------------------------------------------------------------------------


def fits(shape: tuple[int, ...], dims: Dims, bound: dict[str, int]) -> dict[str, int] | None:
    """The names bound by a shape that fits, None if it does not."""
    if "..." in dims:
        place = dims.index("...")
        after = len(dims) - place - 1
        if len(shape) < place + after:
            return None
        shape = (*shape[:place], *shape[len(shape) - after :])
        dims = (*dims[:place], *dims[place + 1 :])
    if len(shape) != len(dims):
        return None
    bound = dict(bound)
    return (
        bound
        if all(fits_dimension(size, dim, bound) for size, dim in zip(shape, dims, strict=True))
        else None
    )


def fits_dimension(size: int, dim: str, bound: dict[str, int]) -> bool:
    choices = re.split(r"\s+or\s+", dim)
    if len(choices) > 1:
        return any(fits_dimension(size, choice, bound) for choice in sorted(choices, key=str.isalpha))
    if dim.isdigit():
        return size == int(dim)
    if re.fullmatch(r"[\w']+", dim):
        return bound.setdefault(dim, size) == size
    names = re.findall(r"[^\W\d][\w']*", dim)
    if any(name not in bound for name in names):
        return True  # nothing to compare with
    values = re.sub(r"[^\W\d][\w']*", lambda match: str(bound[match[0]]), dim)
    return bool(size == eval(values, {"__builtins__": {}}))


def violation(function: FunctionType, shapes: Stated, arguments: dict[str, Any], result: Any) -> str | None:
    bound: dict[str, int] = {}
    checks = [(name, arguments.get(name), dims) for name, dims in shapes.parameters.items()]
    results = result if isinstance(result, tuple) and not hasattr(result, "_fields") else (result,)
    if len(shapes.results) == len(results):
        checks += [(f"result {i}", *pair) for i, pair in enumerate(zip(results, shapes.results, strict=True))]
    for name, value, alternatives in checks:
        if not isinstance(value, Tensor):
            continue
        fitting = (fits(tuple(value.shape), dims, bound) for dims in alternatives)
        new = next((names for names in fitting if names is not None), None)
        if new is None:
            wanted = " or ".join(f"({', '.join(dims)})" for dims in alternatives)
            return f"{function.__qualname__}: {name} is {tuple(value.shape)}, not {wanted} with {bound}"
        bound = new
    return None


# --- watching --------------------------------------------------------------------------------------


def public_tensor_functions(prefixes: tuple[str, ...]) -> Iterator[tuple[Any, str, FunctionType]]:
    """Owner (module or class), name and function of everything public that takes or returns tensors."""
    for name, module in sorted(sys.modules.items()):
        if not name.startswith(prefixes):
            continue
        for attribute, value in list(vars(module).items()):
            if getattr(value, "__module__", None) != name or attribute.startswith("_"):
                continue
            members = vars(value).items() if inspect.isclass(value) else [(attribute, value)]
            owner = value if inspect.isclass(value) else module
            for member, function in list(members):
                plain = isinstance(function, FunctionType) and not member.startswith("_")
                if not plain or getattr(value, "_is_protocol", False):
                    continue
                if tensor_parameters(function) or returns_tensor(function):
                    yield owner, member, function


@contextmanager
def watched(prefixes: tuple[str, ...]) -> Iterator[tuple[set[str], list[str]]]:
    """Compares every call in the block; yields the functions that were called and what did not fit."""
    called: set[str] = set()
    violations: list[str] = []
    undo: list[Callable[[], None]] = []
    for owner, name, function in list(public_tensor_functions(prefixes)):
        wrapper = watch(function, stated(function), called, violations)
        places = (
            [owner]
            if inspect.isclass(owner)
            else [m for n, m in sys.modules.items() if n.startswith("minitx")]
        )
        for place in places:
            for key, value in list(vars(place).items()):
                if value is function:
                    setattr(place, key, wrapper)
                    undo.append(functools.partial(setattr, place, key, function))
                elif isinstance(value, dict) and not inspect.isclass(place):
                    for inner, other in list(value.items()):
                        if other is function:
                            value[inner] = wrapper
                            undo.append(functools.partial(value.__setitem__, inner, function))
                        for part, held in getattr(other, "__dict__", {}).items():  # such as a Task's loss
                            if held is function and is_dataclass(other):
                                object.__setattr__(other, part, wrapper)
                                undo.append(functools.partial(object.__setattr__, other, part, function))
        del name
    try:
        yield called, violations
    finally:
        for step in undo:
            step()


def shape_of(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def watch(
    function: FunctionType, shapes: Stated, called: set[str], violations: list[str]
) -> Callable[..., Any]:
    signature = inspect.signature(function)
    checked: set[Any] = set()

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        results = result if isinstance(result, tuple) else (result,)
        # The comparison depends on the shapes alone, and most calls repeat those of another.
        key = (*map(shape_of, args), *((k, shape_of(x)) for k, x in kwargs.items()), *map(shape_of, results))
        if (call := (len(args), type(result), key)) in checked:
            return result
        checked.add(call)
        called.add(f"{function.__module__}.{function.__qualname__}")
        arguments = signature.bind(*args, **kwargs).arguments
        problem = violation(function, shapes, arguments, result)
        if problem is not None and problem not in violations:
            violations.append(problem)
        return result

    return wrapper
