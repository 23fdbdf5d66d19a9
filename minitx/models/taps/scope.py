"""The functions at the places of one model, and what they know about the running forward."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from minitx.models.taps.attention import hide_attention, hide_routing, restore
from minitx.models.taps.places import INPUT, OUTPUT, ROUTING_POINTS, Place


@dataclass(frozen=True)
class Call:
    """What is known of a value besides its numbers.

    Attributes:
        place: where it is.
        start: position of its first token, after those in the cache.
        prompts: (B,) long, the prompt that each row continues in a generation; None: row i is prompt i.
        padding: (B,) long, number of padding tokens before each row in a generation; None: none known.
    """

    place: Place
    start: int = 0
    prompts: Tensor | None = None
    padding: Tensor | None = None


TapFunction = Callable[[Tensor, Call], Tensor | None]
_SCOPES: WeakKeyDictionary[nn.Module, Scope] = WeakKeyDictionary()


@dataclass(eq=False)
class _Tap:
    """A function at a place.

    Attributes:
        place: where.
        function: sees the value, and returns its replacement or None.
        runs: number of times that it ran.
    """

    place: Place
    function: TapFunction
    runs: int = 0


class Scope:
    """All functions at the places of one model; there while there are any.

    Attributes:
        rows: of the next forward, set by a generation before each: the prompt of each of its rows, and their
            lengths, (R,) long each; a prefill has one row per prompt instead. None: no generation.
        forwards: number of calls of stacks so far.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.rows: tuple[Tensor, Tensor] | None = None
        self.forwards: dict[str, int] = defaultdict(int)
        self._past = self._time = 0
        self._layers: dict[str, int] = {}  # of each stack, number of the layer that runs
        self._taps: dict[tuple[nn.Module, str], list[_Tap]] = {}
        self._undo: dict[nn.Module | tuple[nn.Module, str], Callable[[], None]] = {}
        self._general: list[Callable[[], None]] = []

    # --- adding and removing -------------------------------------------------------------------------------

    def add(self, place: Place, function: TapFunction) -> _Tap:
        """Installs a function at a place, after those that are there."""
        if not self._general:
            self._begin()
        tap = _Tap(place, function)
        taps = self._taps.setdefault((place.module, place.point), [])
        if not taps:
            self._install(place)
        taps.append(tap)
        return tap

    def remove(self, tap: _Tap) -> None:
        """Removes a function."""
        module, point = key = tap.place.module, tap.place.point
        self._taps[key].remove(tap)
        if self._taps[key]:
            return
        del self._taps[key]
        shared = point not in (OUTPUT, INPUT)
        if not shared:
            self._undo.pop(key)()
        elif not any(m is module and p not in (OUTPUT, INPUT) for m, p in self._taps):
            self._undo.pop(module)()
        if not self._taps:
            for undo in reversed(self._general):
                undo()
            self._general.clear()
            _SCOPES.pop(self.model, None)

    def _install(self, place: Place) -> None:
        """Makes a module run the functions of a point."""
        module, point = place.module, place.point
        if point == OUTPUT:
            hook = module.register_forward_hook(partial(self._after, place.stack))
            self._undo[module, point] = hook.remove
        elif point == INPUT:
            before = module.register_forward_pre_hook(partial(self._before, place.stack))
            self._undo[module, point] = before.remove
        elif module not in self._undo:
            hide = hide_routing if point in ROUTING_POINTS else hide_attention
            apply, wanted = partial(self.apply, place.stack, module), partial(self._wanted, module)
            self._undo[module] = partial(restore, module, hide(module, apply, wanted))

    def _begin(self) -> None:
        """Follows the forwards of the model, its stacks and its shared layers."""
        model = self.model
        self._general += [_run_uncompiled(module) for module in model.modules() if _compiled(module)]
        self._general.append(model.register_forward_pre_hook(self._enter, with_kwargs=True).remove)
        self._general.append(model.register_forward_hook(self._leave, always_call=True).remove)
        for name, stack in model.named_children():
            layers = getattr(stack, "layers", None)
            if isinstance(layers, nn.ModuleList):
                hook = stack.register_forward_pre_hook(partial(self._enter_stack, name))
                self._general.append(hook.remove)
                for layer in layers:
                    hook = layer.register_forward_pre_hook(partial(self._enter_layer, name), prepend=True)
                    self._general.append(hook.remove)

    # --- hooks ---------------------------------------------------------------------------------------------

    def _enter(self, module: nn.Module, args: Any, options: dict[str, Any]) -> None:
        cache = options.get("cache")
        self._past = 0 if cache is None else cache.length

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._past, self.rows = 0, None

    def _enter_stack(self, name: str, module: nn.Module, args: Any) -> None:
        self._layers[name], self._time = -1, args[0].shape[1]
        self.forwards[name] += 1

    def _enter_layer(self, name: str, module: nn.Module, args: Any) -> None:
        self._layers[name] = self._layers.get(name, -1) + 1

    def _after(self, stack: str, module: nn.Module, args: Any, output: Any) -> Any:
        return self.apply(stack, module, OUTPUT, output)

    def _before(self, stack: str, module: nn.Module, args: Any) -> Any:
        return (self.apply(stack, module, INPUT, args[0]), *args[1:])

    def _wanted(self, module: nn.Module, point: str) -> bool:
        return (module, point) in self._taps

    def apply(self, stack: str, module: nn.Module, point: str, value: Any) -> Any:
        """Runs the functions of a point, one after another; returns the value to continue with."""
        for tap in tuple(self._taps.get((module, point), ())):
            if tap.place.shared and tap.place.layer != self._layers.get(stack):
                continue
            tap.runs += 1
            replacement = tap.function(value, self._call(tap.place, value))
            value = value if replacement is None else replacement
        return value

    def _call(self, place: Place, value: Tensor) -> Call:
        """Describes a value."""
        if not place.decodes:
            return Call(place)
        start = self._past
        if place.name.startswith(("head", "logits")) and value.dim() > 2:  # perhaps of the final positions
            start += max(self._time - value.shape[1], 0)
        if self.rows is None:
            return Call(place, start)
        prompts, lengths = (x[:: max(len(x) // len(value), 1)] for x in self.rows)
        columns = max(self._past + self._time, int(lengths.max()))  # of a chunk of the prompt, more follow
        return Call(place, start, prompts, columns - lengths)


def _compiled(module: nn.Module) -> bool:
    """Whether `module.compile()` was called."""
    return getattr(module, "_compiled_call_impl", None) is not None


def _run_uncompiled(module: Any) -> Callable[[], None]:
    """Lets a compiled module run as it is written. Returns the function that undoes it."""
    compiled, module._compiled_call_impl = module._compiled_call_impl, None

    def _undo() -> None:
        module._compiled_call_impl = compiled

    return _undo


def scope_of(model: nn.Module) -> Scope | None:
    """Returns the scope of a model with taps, else None."""
    return _SCOPES.get(model)


@contextmanager
def tapped(
    model: nn.Module, taps: Sequence[tuple[Place, TapFunction]], *, required: bool = False
) -> Iterator[None]:
    """Installs functions at places of a model while the body runs.

    Args:
        model: the model.
        taps: places, at least one, with a function each.
        required: a value that was never computed, though its stack ran, is an error.

    Raises:
        ValueError: `required`, and there is one.
    """
    scope = _SCOPES.setdefault(model, Scope(model))
    before = dict(scope.forwards)
    added: list[_Tap] = []
    try:
        for place, function in taps:
            added.append(scope.add(place, function))
        yield
        ran = {stack for stack, count in scope.forwards.items() if count > before.get(stack, 0)}
        idle = [tap.place.name for tap in added if not tap.runs and tap.place.stack in ran]
        if required and idle:
            raise ValueError(f"{idle[0]} was not computed, though the model ran, so the edit had no effect.")
    finally:
        for tap in reversed(added):
            scope.remove(tap)
