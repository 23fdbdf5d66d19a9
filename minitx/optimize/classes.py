"""How a pass changes modules: it gives them another class, so that parameters, names and hooks stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, TypeVar
from weakref import ref

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.nn.modules.module import (
    _global_backward_hooks,
    _global_backward_pre_hooks,
    _global_forward_hooks,
    _global_forward_pre_hooks,
)
from torch.optim.optimizer import register_optimizer_step_post_hook

from minitx.guarantees import is_own
from minitx.validation import check_type

Module = TypeVar("Module", bound=nn.Module)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class InPlaceOf:
    """Base of classes that take the place of the next one in their order, under whose name they print."""

    def _get_name(self) -> str:
        order = type(self).__mro__
        return order[order.index(InPlaceOf) + 1].__name__

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Returns what a copy is made from; pickle finds no class of `mix_in` by its name."""
        reduced: Any = super().__reduce_ex__(max(2, protocol))
        mixins, kind = _parts_of(type(self))
        if mixins and reduced[1] == (type(self),):
            return _new, (mixins, kind), *reduced[2:]
        return reduced


class HidesModules(InPlaceOf):
    """Base of classes with modules that are no submodules: they have no name and no entry in state_dict."""

    def hidden_modules(self) -> Iterator[nn.Module]:
        """Yields them."""
        raise NotImplementedError

    def covered_modules(self) -> Iterator[nn.Module]:
        """Yields the submodules whose work the hidden ones do."""
        raise NotImplementedError


class TracksWeight(InPlaceOf):
    """Base of projections with a copy of their weight that they use as long as it belongs to the weight."""

    def is_current(self) -> bool:
        """Whether the copy belongs to the weight as it is."""
        raise NotImplementedError

    def weight_moved(self) -> None:
        """Notes that a current weight lies in other memory now, with the same values."""
        raise NotImplementedError

    def change_former_class(self, choose: Callable[[Any], type[nn.Module] | None]) -> None:
        """Changes the class that the projection gets back when its pass is undone.

        Args:
            choose: returns the new class for a class; None: it stays.
        """
        raise NotImplementedError


def _count_writes(optimizer: Any, *arguments: Any) -> None:
    """Counts what fused optimizers write, which PyTorch does not."""
    for group in optimizer.param_groups:
        if group.get("fused"):
            increment_version([p for p in group["params"] if not p.is_inference()])


register_optimizer_step_post_hook(_count_writes)


class WeightIdentity:
    """Tells whether a weight is the one for which it was made, and still has its values.

    An address alone does not tell: a new weight may lie where an old one was. Copies and pickles of an
    identity are of no weight.

    Args:
        weight: any tensor; None: no weight is the one.
        owner: the parameter of which the weight is a view, made anew at each use; None: the weight itself.
    """

    __slots__ = ("_owner", "_values")

    def __init__(self, weight: Tensor | None = None, owner: Tensor | None = None) -> None:
        kept = weight if owner is None else owner
        self._owner = None if kept is None else ref(kept)
        self._values = () if weight is None else _values_of(weight)

    @property
    def owner(self) -> Tensor | None:
        """The parameter for which it was made; None: it has been freed."""
        return None if self._owner is None else self._owner()

    def is_of(self, weight: Tensor, owner: Tensor | None = None) -> bool:
        """Whether a weight is the one, with the same values.

        False for weights made in inference mode, whose changes PyTorch does not count, unless they are on the
        meta device and have no values.
        """
        kept = weight if owner is None else owner
        same = self._owner is not None and self._owner() is kept and self._values == _values_of(weight)
        return same and (weight.is_meta or not weight.is_inference())

    def __deepcopy__(self, memo: dict[int, Any]) -> WeightIdentity:
        return type(self)()

    def __reduce__(self) -> tuple[type[WeightIdentity], tuple[()]]:
        return type(self), ()


def _values_of(weight: Tensor) -> tuple[Any, ...]:
    """Returns what changes when a tensor is changed in place, converted or moved."""
    version = None if weight.is_inference() else weight._version
    return weight.data_ptr(), version, weight.dtype, weight.shape


class ModelState:
    """What a model computes: its tensors, writes to them that PyTorch counts, classes of modules, autocast.

    Args:
        model: with a parameter or buffer.
    """

    def __init__(self, model: nn.Module) -> None:
        tensors = (*model.parameters(), *model.buffers())
        self.tensors = [*map(ref, tensors)]  # a new tensor may have the id and the address of an old one
        written = ((x.data_ptr(), x.dtype, 0 if x.is_inference() else x._version) for x in tensors)
        modules = [*model.modules()]
        computed = ((type(m), vars(m).get("backend"), vars(m).get("forward")) for m in modules)
        self.values = (*written, *computed, _autocast_dtype(tensors[0].device.type))

    def is_that_of(self, earlier: ModelState) -> bool:
        """Whether nothing has changed since an earlier state."""
        if self.values != earlier.values:
            return False
        return all(new() is old() for new, old in zip(self.tensors, earlier.tensors, strict=True))


def _autocast_dtype(device: str) -> torch.dtype | None:
    """Returns the dtype to which autocast converts on a type of device; None: it is off."""
    is_on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if is_on else None


def all_modules(model: nn.Module) -> Iterator[nn.Module]:
    """Yields the modules of a model, and those that passes such as `fuse_projections` keep hidden in them."""
    for module in model.modules():
        yield module
        if isinstance(module, HidesModules):
            yield from module.hidden_modules()


def working_modules(model: nn.Module) -> Iterator[nn.Module]:
    """Yields the modules of `all_modules` but for those whose work hidden ones do."""
    covered = {
        part
        for module in model.modules()
        if isinstance(module, HidesModules)
        for part in module.covered_modules()
    }
    return (module for module in all_modules(model) if module not in covered)


def change_classes(model: Module, choose: Callable[[Any], type[nn.Module] | None]) -> Module:
    """Changes the classes of a model's modules in place, of hidden ones too. Returns the model.

    In a module with mixins, the class that they were put in front of is changed; of a quantised projection,
    the class that it gets back. A packed copy of a weight, which was made for another class, is dropped.

    Args:
        model: any module.
        choose: returns the new class for a class; None: it stays.

    Raises:
        ArgumentTypeError: not a module.
    """
    check_type("model", model, nn.Module, "a module")
    for module in all_modules(model):
        if isinstance(module, TracksWeight):
            module.change_former_class(choose)
            continue
        mixins, kind = _parts_of(type(module))
        if chosen := choose(kind):
            set_class(module, _with(mixins, chosen))
    return model


def set_class(module: nn.Module, kind: type[nn.Module]) -> None:
    """Changes a class in place; the module then loses its packed copy, which was made for the other one."""
    if type(module) is not kind:
        vars(module).pop("_packed", None)
        module.__class__ = kind


def has_hooks(module: nn.Module) -> bool:
    """Whether a call of a module, or its backward, runs hooks, its own or those of all modules."""
    own = module.__dict__  # faster than attributes, and every fused projection asks at every step
    return any(map(own.__getitem__, HOOKS)) or has_global_hooks()


def has_global_hooks() -> bool:
    """Whether a call of any module, or its backward, runs hooks."""
    return bool(
        _global_forward_hooks
        or _global_forward_pre_hooks
        or _global_backward_hooks
        or _global_backward_pre_hooks
    )


def is_unmodified(module: nn.Module) -> bool:
    """Whether a call of a module runs a class of minitx alone: no hooks, no subclass, no other forward."""
    return is_own(former_class(type(module))) and not is_watched(module)


def is_watched(module: nn.Module) -> bool:
    """Whether a module has hooks or another forward."""
    return "forward" in vars(module) or has_hooks(module)


def mix_in(module: nn.Module, mixin: Any) -> None:
    """Puts a mixin in front of the class of a module, in place, unless it is there already.

    Args:
        module: any module.
        mixin: an `InPlaceOf` named _Word; the class is then called Word and the former name.
    """
    if not isinstance(module, mixin):
        kind: Any = type(module)
        module.__class__ = _mixed(mixin, kind)


def take_out(module: nn.Module, mixin: type[InPlaceOf]) -> None:
    """Undoes `mix_in` in place, whichever mixins came after it; does nothing if the mixin is not there."""
    if isinstance(module, mixin):
        mixins, kind = _parts_of(type(module))
        module.__class__ = _with(tuple(each for each in mixins if each is not mixin), kind)


@cache
def _mixed(mixin: Any, kind: Any) -> Any:
    """Returns a class with a mixin in front of it."""
    return type(f"{mixin.__name__.strip('_')}{kind.__name__}", (mixin, kind), {"_mixed_from": (mixin, kind)})


def _parts_of(kind: Any) -> tuple[tuple[Any, ...], Any]:
    """Returns the mixins of a class, the first one first, and the class that they were put in front of."""
    mixins = []
    while made := vars(kind).get("_mixed_from"):
        mixins.append(made[0])
        kind = made[1]
    return tuple(mixins), kind


def former_class(kind: Any) -> Any:
    """Returns the class that mixins were put in front of; a class without mixins as it is."""
    return _parts_of(kind)[1]


def _with(mixins: tuple[Any, ...], kind: Any) -> Any:
    """Returns a class with mixins in front of it, the inverse of `_parts_of`."""
    for mixin in reversed(mixins):
        kind = _mixed(mixin, kind)
    return kind


def _new(mixins: tuple[Any, ...], kind: Any) -> Any:
    """Returns an object without attributes, of a class with mixins."""
    return object.__new__(_with(mixins, kind))
