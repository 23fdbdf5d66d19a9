"""Parameters of several projections that are views of one, for `fuse_projections`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from minitx.optimize.classes import HidesModules, TracksWeight, has_hooks


@dataclass(frozen=True, eq=False)
class _View:
    """A parameter that is a range of rows of another.

    Attributes:
        projection: name of the projection that has it.
        leaf: its name there, "weight" or "bias".
        parameter: itself.
        whole: the parameter of the fused projection.
        row: the first row.
        start: number of bytes before it.
        size: its number of elements.
    """

    projection: str
    leaf: str
    parameter: nn.Parameter
    whole: nn.Parameter
    row: int
    start: int
    size: int

    def is_intact(self) -> bool:
        """Whether it still is part of the other."""
        address = self.whole.data_ptr() + self.start
        return self.parameter.data_ptr() == address and self.parameter.numel() == self.size


def view(projection: str, leaf: str, parameter: nn.Parameter, whole: nn.Parameter, row: int) -> _View:
    """Makes a parameter a range of rows of another, in place."""
    with torch.inference_mode(False), torch.no_grad():
        rows = whole.detach()[row : row + len(parameter)]
        parameter.data = rows
    start = row * (whole.numel() // len(whole)) * whole.element_size()
    return _View(projection, leaf, parameter, whole, row, start, parameter.numel())


class Joined(HidesModules):
    """Mixed into a module some of whose projections are one product.

    Attributes:
        names: of the projections.
        fused: the one product; None while the parameters cannot be joined.
        views: the parameters of the projections.
        sizes: numbers of their outputs.
        versions: of the parameters, counted by PyTorch, when they were last used.
    """

    names: ClassVar[tuple[str, ...]]
    fused: nn.Linear | None
    views: tuple[_View, ...]
    sizes: list[int]
    versions: list[int]

    def hidden_modules(self) -> Iterator[nn.Module]:
        """Yields the one product."""
        if self.fused is not None:
            yield self.fused

    def covered_modules(self) -> Iterator[nn.Module]:
        """Yields the projections that the one product serves."""
        if self.fused is not None:
            yield from (vars(self)["_modules"][name] for name in self.names)

    def products(self, x: Tensor) -> tuple[Tensor, ...] | None:
        """Returns the outputs of the projections, or None where each is to be computed by itself.

        (..., inputs) -> (..., outputs) for each
        """
        fused = self.fused
        if fused is None or not self.is_plain(type(fused)) or not self.has_views() or not self.is_intact():
            return None
        if torch.is_grad_enabled() and any(view.parameter.requires_grad for view in self.views):
            return None
        outputs: tuple[Tensor, ...] = fused(x).split(self.sizes, dim=-1)
        return outputs

    def is_plain(self, kind: type[nn.Module]) -> bool:
        """Whether the projections are of one class and have no hooks."""
        modules: dict[str, nn.Module] = vars(self)["_modules"]
        for name in self.names:
            module = modules[name]
            if type(module) is not kind or has_hooks(module) or "forward" in module.__dict__:
                return False
        return True

    def has_views(self) -> bool:
        """Whether the projections have the parameters that were joined."""
        modules: dict[str, nn.Module] = vars(self)["_modules"]
        return all(modules[v.projection]._parameters.get(v.leaf) is v.parameter for v in self.views)

    def is_intact(self) -> bool:
        """Whether these parameters are views of the one tensor, whose version changes with theirs."""
        if self.fused is None or not all(view.is_intact() for view in self.views):
            return False
        versions = [view.parameter._version for view in self.views]
        if versions != self.versions:  # a copy of the weight, as a pass may keep, is outdated
            increment_version({view.whole for view in self.views})
            self.versions = versions
        return True

    # torch.compile calls it once, while it traces: an address is no value of a graph.
    is_intact._dynamo_marked_constant = True  # type: ignore[attr-defined]

    def join(self) -> None:
        """Makes the parameters views of new ones, which are those of the one product."""
        parts: list[Any] = [vars(self)["_modules"][name] for name in self.names]
        sizes, leaves = [len(part.weight) for part in parts], ["weight", "bias"]
        if parts[0].bias is None:
            leaves.remove("bias")
        fused = nn.Linear(parts[0].in_features, sum(sizes), bias="bias" in leaves, device="meta")
        fused.__class__ = type(parts[0])
        views: list[_View] = []
        for leaf in leaves:
            own = [part._parameters[leaf] for part in parts]
            with torch.inference_mode(False), torch.no_grad():
                whole = nn.Parameter(torch.cat([p.detach() for p in own]), requires_grad=False)
            setattr(fused, leaf, whole)
            rows = accumulate(sizes, initial=0)
            views += [view(n, leaf, p, whole, row) for n, p, row in zip(self.names, own, rows, strict=False)]
        vars(self).update(fused=fused.train(parts[0].training), views=tuple(views), sizes=sizes, versions=[])

    def relink(self) -> None:
        """Makes the parameters views again, after they and the one product were copied or converted alike."""
        tracked = self.tracking()
        views: list[_View] = []
        for old in self.views:
            whole = None if self.fused is None else self.fused._parameters.get(old.leaf)
            own = vars(self)["_modules"][old.projection]._parameters.get(old.leaf)
            if (
                whole is None
                or own is None
                or (own.dtype, own.device) != (whole.dtype, whole.device)  # converted apart
                or own.is_inference()  # copied in inference mode: changes are not counted
            ):
                vars(self).update(fused=None, views=())
                return
            views.append(view(old.projection, old.leaf, own, whole, old.row))
        self.views = tuple(views)
        self.versions = [each.parameter._version for each in views]
        for module in tracked:
            module.weight_moved()

    def tracking(self) -> list[TracksWeight]:
        """Returns the modules with a copy of their weight, such as a quantised one, that belongs to it."""
        parts = [vars(self)["_modules"][name] for name in self.names]
        return [m for m in (self.fused, *parts) if isinstance(m, TracksWeight) and m.is_current()]

    def separate(self) -> None:
        """Gives each parameter memory of its own again."""
        tracked = self.tracking()
        with torch.inference_mode(False), torch.no_grad():
            for view in self.views:
                if view.is_intact():
                    view.parameter.data = view.parameter.detach().clone()
        for module in tracked:
            module.weight_moved()
        for name in _STATE:
            vars(self).pop(name, None)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        fused = self.fused
        joined = fused is not None and self.has_views() and (fused.weight.is_meta or self.is_intact())
        super()._apply(fn, recurse)  # type: ignore[misc]
        if fused is not None and joined:
            fused._apply(fn)  # type: ignore[no-untyped-call]
            self.relink()
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Returns the attributes for a copy, without a product whose parameters are other ones by now."""
        state = dict(vars(self))
        if self.fused is None or not self.has_views() or not self.is_intact():
            state.update(fused=None, views=())
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        if self.fused is not None and not self.is_intact():
            self.relink()


_STATE = ("fused", "views", "sizes", "versions")


def are_joinable(projections: Sequence[nn.Module]) -> bool:
    """Whether projections can be one product: of plain parameters of one dtype, on one device but meta."""
    weights = [p._parameters.get("weight") for p in projections]
    biases = [p._parameters.get("bias") for p in projections]
    parameters = [p for p in (*weights, *biases) if p is not None]
    plain = all(
        type(p) is nn.Parameter
        and type(p.data) is Tensor
        and p.layout is torch.strided
        and not (p.is_meta or p.is_inference())
        and (p.dtype, p.device) == (parameters[0].dtype, parameters[0].device)
        for p in parameters
    )
    inputs = {None if weight is None else weight.shape[1:] for weight in weights}
    return plain and len(inputs) == 1 and None not in inputs and len({bias is None for bias in biases}) == 1
