"""Projections of the same input as one product: queries, keys and values; gate and dense.

One product of three weights loads its input once and starts one kernel instead of three, which counts for few
rows and on a GPU. The parameters keep names and identity; they become views of one tensor, the weight of a
hidden `nn.Linear`. So what changes a parameter in place, such as an optimizer or `load_state_dict`, changes
that weight.

Each projection is computed by itself wherever the one product would miss something. A few comparisons per
layer decide:

- a projection has a hook (as `minitx.inspect` installs on `**.Q`), an adapter or a parametrisation, or was
  replaced;
- gradients of its parameters are recorded;
- a parameter is no view of the one tensor any more, as after `load_state_dict(assign=True)`. Conversions
  (`model.to`, `half`, `cuda`) and copies join the parameters again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from minitx.layers.attention import AttentionContext, CrossAttention, SelfAttention
from minitx.layers.disentangled import DisentangledSelfAttention
from minitx.layers.feed_forward import GatedIntermediate
from minitx.layers.rotary import apply_rotary_pos_emb
from minitx.optimize.classes import HidesModules, Module
from minitx.optimize.linear import FastLinear
from minitx.optimize.packed import PackedLinear
from minitx.validation import check_type


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


class _Fused(HidesModules):
    """Mixed into a module some of whose projections are one product.

    Attributes:
        names: of the projections.
        fused: the one product; None while the parameters cannot be joined.
        views: the parameters of the projections.
        sizes: numbers of their outputs.
    """

    names: ClassVar[tuple[str, ...]]
    fused: nn.Linear | None
    views: tuple[_View, ...]
    sizes: list[int]

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
            if (
                type(module) is not kind
                or module._forward_hooks
                or module._forward_pre_hooks
                or module._backward_hooks
                or module._backward_pre_hooks
                or "forward" in module.__dict__
            ):
                return False
        return True

    def has_views(self) -> bool:
        """Whether the projections have the parameters that were joined."""
        modules: dict[str, nn.Module] = vars(self)["_modules"]
        return all(modules[v.projection]._parameters.get(v.leaf) is v.parameter for v in self.views)

    def is_intact(self) -> bool:
        """Whether these parameters are views of the one tensor."""
        return self.fused is not None and all(view.is_intact() for view in self.views)

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
        vars(self).update(fused=fused.train(parts[0].training), views=tuple(views), sizes=sizes)

    def relink(self) -> None:
        """Makes the parameters views again, after they and the one product were copied or converted alike."""
        views: list[_View] = []
        for old in self.views:
            whole = None if self.fused is None else self.fused._parameters.get(old.leaf)
            own = vars(self)["_modules"][old.projection]._parameters.get(old.leaf)
            if whole is None or own is None or (own.dtype, own.device) != (whole.dtype, whole.device):
                vars(self).update(fused=None, views=())  # converted apart
                return
            views.append(view(old.projection, old.leaf, own, whole, old.row))
        self.views = tuple(views)

    def separate(self) -> None:
        """Gives each parameter memory of its own again."""
        with torch.inference_mode(False), torch.no_grad():
            for view in self.views:
                if view.is_intact():
                    view.parameter.data = view.parameter.detach().clone()
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


_JOINABLE = (nn.Linear, FastLinear, PackedLinear)
_STATE = ("fused", "views", "sizes")


def are_joinable(projections: Sequence[nn.Module]) -> bool:
    """Whether projections can be one product: plain parameters of one dtype, on one device, not on meta."""
    weights = [p._parameters.get("weight") for p in projections]
    biases = [p._parameters.get("bias") for p in projections]
    parameters = [p for p in (*weights, *biases) if p is not None]
    plain = all(
        type(p) is nn.Parameter
        and type(p.data) is Tensor
        and p.layout is torch.strided
        and not p.is_meta
        and (p.dtype, p.device) == (parameters[0].dtype, parameters[0].device)
        for p in parameters
    )
    inputs = {None if weight is None else weight.shape[1:] for weight in weights}
    return plain and len(inputs) == 1 and None not in inputs and len({bias is None for bias in biases}) == 1


class FusedSelfAttention(_Fused, SelfAttention):
    """SelfAttention with one product for queries, keys and values."""

    names = ("Q", "K", "V")

    def project(self, hidden: Tensor, context: AttentionContext) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, E) -> (B, H, T, D), (B, K, T, D) twice"""
        products = self.products(hidden)
        if products is None:
            return super().project(hidden, context)
        query, key = self.heads(products[0], self.q_norm), self.heads(products[1], self.k_norm)
        if context.rotary is not None:
            query, key = (apply_rotary_pos_emb(x, context.rotary) for x in (query, key))
        return query, key, self.heads(products[2])


class FusedCrossAttention(_Fused, CrossAttention):
    """CrossAttention with one product for keys and values."""

    names = ("K", "V")

    def keys_and_values(self, encoder_hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """(B', S, E) -> (B', K, S, D) twice"""
        products = self.products(encoder_hidden_states)
        if products is None:
            return super().keys_and_values(encoder_hidden_states)
        key, value = products
        return self.heads(key, self.k_norm), self.heads(value)


class FusedDisentangledSelfAttention(_Fused, DisentangledSelfAttention):
    """DisentangledSelfAttention with one product for queries, keys and values."""

    names = ("Q", "K", "V")

    def project(self, hidden: Tensor, context: AttentionContext) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, E) -> (B, H, T, D) three times"""
        products = self.products(hidden)
        if products is None:
            return super().project(hidden, context)
        query, key, value = map(self.heads, products)
        return query, key, value


class FusedGatedIntermediate(_Fused, GatedIntermediate):
    """GatedIntermediate with one product for gate and dense."""

    names = ("gate", "dense")

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, F)"""
        products = self.products(hidden)
        if products is None:
            return super().forward(hidden)
        gate, dense = products
        output: Tensor = self.dropout(self.activation(gate) * dense)
        return output


_CLASSES: dict[type[nn.Module], type[_Fused]] = {
    SelfAttention: FusedSelfAttention,
    CrossAttention: FusedCrossAttention,
    DisentangledSelfAttention: FusedDisentangledSelfAttention,
    GatedIntermediate: FusedGatedIntermediate,
}


def fuse_projections(model: Module) -> Module:
    """Computes projections of the same input as one product: Q, K and V; K and V across; gate and dense.

    Changes the classes of attentions and gated feed-forward networks in place. Parameters keep their names,
    hooks stay, and `minitx.save` writes what it writes without the pass. Projections that are trained,
    hooked, adapted or replaced are computed by themselves, so the outputs are always those of the model as it
    is. A conversion of one projection alone, or a parameter assigned anew, ends the one product of its
    module; the pass, applied again, joins them again.

    Exactness: equal up to rounding, as the sums may have another order. Cost: the weights are copied once,
    module by module. Left as they are: experts, projections of several dtypes, parameters that several
    modules share, and other modules than those of minitx.

    Args:
        model: any module.

    Returns:
        The model.

    Raises:
        ArgumentTypeError: not a module.

    Example:
        >>> model = minitx.optimize.fuse_projections(minitx.load("minitx/tiny-decoder"))
    """
    check_type("model", model, nn.Module, "a module")
    shared = shared_parameters(model)
    for module in model.modules():
        kind: type[_Fused] | None = type(module) if isinstance(module, _Fused) else _CLASSES.get(type(module))
        if kind is None:
            continue
        parts = [vars(module)["_modules"].get(name) for name in kind.names]
        alike = type(parts[0]) in _JOINABLE and len(set(map(type, parts))) == 1
        own = {id(p) for part in parts if part is not None for p in part.parameters()}
        if not alike or own & shared or not are_joinable(parts):
            continue
        if not isinstance(module, _Fused):
            module.__class__ = kind  # type: ignore[assignment]
            vars(module).update(fused=None, views=())
        assert isinstance(module, _Fused)
        if not (module.has_views() and module.is_intact() and type(module.fused) is type(parts[0])):
            module.join()
    return model


def unfuse_projections(model: Module) -> Module:
    """Undoes `fuse_projections`: each parameter has memory of its own again. Returns the model.

    Raises:
        ArgumentTypeError: not a module.
    """
    plain = {fused: kind for kind, fused in _CLASSES.items()}
    for module in check_type("model", model, nn.Module, "a module").modules():
        if isinstance(module, _Fused):
            module.separate()
            module.__class__ = plain[type(module)]  # type: ignore[assignment]
    return model


def shared_parameters(model: nn.Module) -> set[int]:
    """Returns the ids of the parameters that are in several places."""
    counts = Counter(id(p) for module in model.modules() for p in module._parameters.values())
    return {key for key, count in counts.items() if count > 1}
