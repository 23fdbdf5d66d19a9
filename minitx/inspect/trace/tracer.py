"""The state of a trace while its steps are described: recorded values, and how a step is put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from minitx.inspect.taps.record import Record
from minitx.inspect.trace.step import UNKNOWN, Entry, Step
from minitx.layers.embedder import Embedder
from minitx.layers.heads import Head
from minitx.models import Model

Hand = Callable[[], Tensor | None]  # recomputes a value in float64; None: it cannot
SHOWN = 3  # of the largest numbers


@dataclass
class Side:
    """The tokens of one stack.

    Attributes:
        ids: (B, T).
        mask: (B, T), False at padding; None without padding.
        names: of the tokens of each row.
    """

    ids: Tensor
    mask: Tensor | None
    names: list[list[str]]


@dataclass
class Calls:
    """Arguments of forwards that are not values of the model, by the module's path.

    Attributes:
        layers: by stack, those of each layer in the order in which they run, without the hidden states.
        others: of embedders and of the head.
    """

    layers: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    others: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    @contextmanager
    def collected(self, model: Model) -> Any:
        """Collects the arguments while the body runs the model."""
        hooks = []
        for name, stack in model.named_children():
            layers = getattr(stack, "layers", None)
            if isinstance(layers, nn.ModuleList):
                self.layers[name] = []
                hooks += [layer.register_forward_pre_hook(self._layer(name)) for layer in layers]
            elif isinstance(stack, Embedder | Head):
                hooks.append(stack.register_forward_pre_hook(self._other(name)))
        try:
            yield self
        finally:
            for hook in hooks:
                hook.remove()

    def _layer(self, name: str) -> Callable[[nn.Module, Any], None]:
        return lambda module, inputs: self.layers[name].append(tuple(inputs[1:]))

    def _other(self, name: str) -> Callable[[nn.Module, Any], None]:
        return lambda module, inputs: self.others.__setitem__(name, tuple(inputs))


@dataclass
class Tracer:
    """Describes steps.

    Attributes:
        model: the model.
        record: values of its places.
        calls: arguments of its forwards.
        sides: by stack.
        table: how the forward of a class of modules is described.
        check: whether the steps are recomputed.
        names: of the tokens of queries and keys, while a stack is described.
        word: returns the token of an id; None without a tokenizer.
    """

    model: Model
    record: Record
    calls: Calls
    sides: Mapping[str, Side]
    table: Mapping[type, Callable[..., Step]]
    check: bool
    names: tuple[list[list[str]], list[list[str]]] = ((), ())  # type: ignore[assignment]
    word: Callable[[int], str] | None = None

    def out(self, path: str) -> Tensor:
        """Returns the recorded value of a place: of its first call, if a module runs twice."""
        return self.record.calls(path)[0]

    def describe(self, module: nn.Module, path: str, *inputs: Any) -> Step:
        """Describes the forward of a module by the entry of its class, or of the nearest base class."""
        for kind in type(module).__mro__:
            if kind in self.table:
                return self.table[kind](self, module, path, *inputs)
        return self.step(path, f"{UNKNOWN}{type(module).__name__}", self.out(path), parameters=count(module))

    def step(
        self,
        name: str,
        equation: str,
        value: Tensor | None = None,
        axes: str = "",
        hand: Hand | None = None,
        **more: Any,
    ) -> Step:
        """Returns a step without parts.

        Args:
            name: path.
            equation: with the numbers of this model.
            value: (...), as the model computed it.
            axes: names of its dimensions, separated by spaces; none: numbers.
            hand: recomputes it.
            **more: parameters, flops and note of the step.
        """
        if value is None:
            return Step(name=name, equation=equation, **more)
        names = axes.split() or [f"axis_{i}" for i in range(value.dim())]
        sizes = tuple((axis.replace("_", " "), size) for axis, size in zip(names, value.shape, strict=True))
        absolute = relative = None
        if self.check and hand is not None and (expected := hand()) is not None:
            absolute, relative = differences(value, expected)
        return Step(
            name=name,
            equation=equation,
            axes=sizes,
            largest=self._largest(value, names),
            difference=absolute,
            relative=relative,
            **more,
        )

    def group(
        self, name: str, equation: str, value: Tensor, axes: str, steps: Sequence[Step], note: str = ""
    ) -> Step:
        """Returns a step that consists of others; its costs and its difference are theirs."""
        own = self.step(name, equation, value, axes)
        checked = [step for step in steps if step.difference is not None]
        return Step(
            name=name,
            equation=equation,
            axes=own.axes,
            parameters=sum(step.parameters for step in steps),
            flops=sum(step.flops for step in steps),
            largest=own.largest,
            note=note,
            difference=largest(step.difference for step in checked),
            relative=largest(step.relative for step in checked),
            steps=tuple(steps),
        )

    def _largest(self, value: Tensor, names: Sequence[str]) -> tuple[Entry, ...]:
        """Returns the finite numbers with the largest magnitude."""
        flat = value.detach().double().flatten()
        size = torch.where(flat.isfinite(), flat.abs(), -1.0)
        best = size.topk(min(SHOWN, len(size))).indices.tolist()
        best = [index for index in best if flat[index].isfinite()]
        entries = []
        for index in best:
            where = [int(i) for i in torch.unravel_index(torch.tensor(index), value.shape)]
            entries.append(
                Entry(float(flat[index]), self._place(dict(zip(names, where, strict=True)), value))
            )
        return tuple(entries)

    def _place(self, where: dict[str, int], value: Tensor) -> str:
        """Returns where a number is, in words."""
        row = where.get("batch", 0)
        words = [f"row {row}"] if "batch" in where and value.shape[0] > 1 else []
        for axis, index in where.items():
            if axis in ("queries", "tokens"):
                words.append(quoted(self.names[0], row, index))
            elif axis == "keys":
                start = words.pop() if "queries" in where else ""
                words.append(f"{start} to {quoted(self.names[1], row, index)}".strip())
            elif axis == "vocabulary" and self.word is not None:
                words.append(f"'{self.word(index)}'")
            elif axis != "batch":
                words.append(f"{SINGULAR.get(axis, axis.replace('_', ' '))} {index}")
        return ", ".join(words)


SINGULAR = {"heads": "head", "width": "feature", "head_dim": "feature", "inner_width": "neuron"}
SINGULAR |= {"experts": "expert", "vocabulary": "id", "labels": "label", "key_heads": "head"}


def quoted(names: Sequence[Sequence[str]], row: int, index: int) -> str:
    """Returns a token in quotes, or its number where it has no name."""
    if row < len(names) and index < len(names[row]):
        return f"'{names[row][index]}'"
    return f"token {index}"


def largest(values: Any) -> float | None:
    """Returns the largest of some numbers, NaN if one is; None without any."""
    numbers = [*values]
    return float(torch.tensor(numbers, dtype=torch.float64).max()) if numbers else None


def differences(value: Tensor, expected: Tensor) -> tuple[float, float]:
    """Returns the largest difference, and its share of the largest magnitude; infinities may be equal."""
    value, expected = value.detach().double().cpu(), expected.double().cpu()
    if value.shape != expected.shape:
        expected = expected.expand_as(value)
    if not value.numel():
        return 0.0, 0.0
    gap = torch.where(value == expected, 0.0, (value - expected).abs())
    size = torch.where(expected.isfinite(), expected.abs(), 0.0).max()
    return float(gap.max()), float(gap.max() / size.clamp(min=1.0))


def count(module: nn.Module) -> int:
    """Returns the number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
