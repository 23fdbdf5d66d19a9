"""The check before saving: the model computes what the one of its config computes.

The config's model is built once more without weights, and everything that a forward uses is compared:
classes, options and plain attributes of the modules, replaced methods, hooks, and shapes of the parameters.
So nothing is recorded while a model is loaded, and a forward costs no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from minitx.checkpoint.build import empty_model, read_config, task_config, task_of
from minitx.checkpoint.record import Checkpoint
from minitx.checkpoint.resolve import is_adapter
from minitx.layers.attention import BACKENDS, eager, sdpa
from minitx.layers.norm import identity
from minitx.models import Model
from minitx.models.compiled import check_not_compiled, is_compiled
from minitx.optimize.linear import fast_linear
from minitx.optimize.quantize.passes import check_weights_kept
from minitx.validation import ArgumentValueError

# torch's own attributes of a module; any other name of torch's replaces a method
_COMPILED = "_compiled_call_impl"  # set by module.compile()
_TORCH = frozenset({*vars(nn.Module())} - {_COMPILED})
_HOOKS = {
    "_forward_pre_hooks": "forward pre-hook",
    "_forward_hooks": "forward hook",
    "_state_dict_hooks": "state dict hook",
    "_state_dict_pre_hooks": "state dict pre-hook",
}
_TRAINING = (nn.Dropout, nn.Identity)  # replacing one by the other changes training only
_TRAINING_OPTIONS = frozenset(("p", "inplace"))
_PASSES = "minitx.optimize."
_MISSING = "missing"


def check_unchanged(model: Model, checkpoint: Checkpoint) -> None:
    """Checks that config.json describes the model: weights that contradict it could not be loaded again.

    Raises:
        ArgumentTypeError: a module is in the wrapper of torch.compile.
        ArgumentValueError: the model has LoRA adapters.
        ValueError: a module was added, replaced, hooked or changed, or `model.checkpoint.config` was.
    """
    check_not_compiled(model, parts=True)
    if adapters := [name for name, _ in model.named_parameters() if is_adapter(name)]:
        hint = "minitx.training: save_adapter writes them, merge_lora merges them into the weights"
        raise ArgumentValueError("model", adapters[0], "a model without LoRA adapters", hint)
    architecture = checkpoint.architecture
    task = task_of(model, architecture)
    model_config, heads = read_config(
        architecture, checkpoint.model_type, checkpoint.config, checkpoint.ignored_keys
    )
    by_config = task_config(architecture, model_config, task, pooler=model.config.pooler)
    head = None if model.head is None else model.head.config
    if (by_config, heads.get(task)) != (model.config, head):
        raise ValueError(
            "model.checkpoint.config describes another model than model.config; build such a model with "
            "minitx.from_config(model.checkpoint.config | {...})."
        )
    built = empty_model(architecture, model_config, heads, task, pooler=model.config.pooler)
    built.set_attention(checkpoint.attention)
    for place, now, before in differences(model, fast_linear(built)):
        raise ValueError(f"the model's {place} is {now}, but by its config {before}; {advice(place)}")


def check_whole(model: Model) -> None:
    """Checks that each parameter is whole: not the part of one process, nor dropped after quantising.

    Raises:
        ArgumentValueError: a model that several processes train, or one without its weights.
    """
    check_weights_kept(model)
    for name, parameter in model.named_parameters():
        if hasattr(parameter, "full_tensor"):
            hint = "minitx.training.distributed.gather(model) returns a whole copy"
            raise ArgumentValueError("model", name, "one with whole parameters", hint)


def advice(place: str) -> str:
    """Returns how to keep a model that differs from its config in one place."""
    if place.endswith("backend"):
        return 'minitx.save(..., model_type="minitx") keeps the name of a registered attention.'
    return (
        "use a config that describes it, or keep torch.save(model.state_dict(), path) and the code of the "
        "change."
    )


def differences(model: nn.Module, built: nn.Module) -> list[tuple[str, str, str]]:
    """Returns where a model differs from its config's: the place, its value, and that of the config."""
    modules, expected = (dict(each.named_modules(remove_duplicate=False)) for each in (model, built))
    differing = []
    for path in sorted({*modules, *expected}, key=lambda path: (path in modules and path in expected, path)):
        module, other = modules.get(path), expected.get(path)
        if module is None or other is None:
            if type(module or other) not in _TRAINING:
                absent = _MISSING if module is None else "not a module"
                pair = (described(module, absent), described(other, absent))
                differing.append((path, *pair))
            continue
        label = path or "class"
        training = type(module) in _TRAINING and type(other) in _TRAINING
        if not training and kind(module) is not kind(other):
            pair = (described(module), described(other))
            differing.append(
                (label, *(pair if pair[0] != pair[1] else (full_name(module), full_name(other))))
            )
        elif not training and described(module) != described(other):
            differing.append((label, described(module), described(other)))
        pairs = changed(module, other, _TRAINING_OPTIONS if training else frozenset())
        differing += [(f"{path}.{name}".lstrip("."), *pair) for name, pair in pairs]
        differing += [(f"{path}.{name}".lstrip("."), *pair) for name, pair in hooks(module, other)]
    return differing + repeated(modules, expected) + changed_tensors(model.state_dict(), built.state_dict())


def repeated(
    modules: Mapping[str, nn.Module], expected: Mapping[str, nn.Module]
) -> list[tuple[str, str, str]]:
    """Returns the modules that are in two places, where the config has two modules."""
    first: dict[int, str] = {}
    differing = []
    for path, module in modules.items():
        owner = first.setdefault(id(module), path)
        other, here = expected.get(owner), expected.get(path)
        if other is not here and None not in (other, here):
            differing.append((path, f"the same module as {owner}", "another module"))
    return differing


def changed_tensors(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> list[tuple[str, str, str]]:
    """Returns the names of stored tensors that differ in their presence, shape or form."""
    differing = []
    for name in sorted(tensors.keys() | expected.keys()):
        tensor, other = tensors.get(name), expected.get(name)
        if tensor is None or other is None:
            present, absent = "a stored tensor", "not one that is stored"
            differing.append((name, *((absent, present) if tensor is None else (present, absent))))
        elif tensor.is_meta or tensor.layout is not torch.strided:
            form = "on the meta device, without values" if tensor.is_meta else f"of layout {tensor.layout}"
            differing.append((name, form, "a dense tensor"))
        elif tensor.shape != other.shape:
            differing.append((name, f"of shape {tuple(tensor.shape)}", f"of shape {tuple(other.shape)}"))
    return differing


def kind(module: nn.Module) -> type[nn.Module]:
    """Returns the class of a module without the passes of minitx, which compute the same."""
    return next(base for base in type(module).__mro__ if not base.__module__.startswith(_PASSES))


def full_name(module: nn.Module) -> str:
    """Returns the name of a class with its module."""
    return f"{kind(module).__module__}.{kind(module).__qualname__}"


def described(module: nn.Module | None, absent: str = _MISSING) -> str:
    """Returns class and options of a module."""
    if module is None:
        return absent
    options = "" if [*module.children()] else module.extra_repr()
    name: str = module._get_name()  # type: ignore[no-untyped-call]
    return f"{name}({options})"


def changed(
    module: nn.Module, built: nn.Module, ignored: frozenset[str]
) -> list[tuple[str, tuple[str, str]]]:
    """Returns the plain attributes that differ, with their values in both.

    An attribute that the config's module does not have in any form is not used by its class.
    """
    ignored = ignored | _TORCH
    now = {name: value for name, value in vars(module).items() if name not in ignored}
    before = {name: value for name, value in vars(built).items() if name not in ignored}
    if isinstance(module, Model):
        now["checkpoint"] = before["checkpoint"] = None  # the record
    pairs = []
    for name in sorted({*now, *before}):
        if name not in before and not hasattr(built, name):
            continue
        if name not in now and before[name] is identity:
            continue  # a module in an empty slot, which is compared as such
        if name == _COMPILED:
            if not is_call(now[name], module):
                pairs.append((name, (text(now[name]), "not set")))
            continue
        if name in built._parameters and name not in module._parameters:
            pairs.append((name, ("a plain tensor", "a parameter")))
            continue
        value, other = now.get(name, _MISSING), before.get(name, "not set")
        if not same(value, other):
            pairs.append((name, (text(value), text(other))))
    return pairs


def is_call(value: Any, module: nn.Module) -> bool:
    """Whether a function is the call of a module, compiled or not: what `module.compile()` sets."""
    function = value._torchdynamo_orig_callable if is_compiled(value) else value
    return function is None or bool(function == module._call_impl)


def hooks(module: nn.Module, built: nn.Module) -> list[tuple[str, tuple[str, str]]]:
    """Returns the hooks of a forward that the config's module does not have: they may change its output."""
    pairs = []
    for name, kind in _HOOKS.items():
        now, before = ([*getattr(each, name).values()] for each in (module, built))
        if not same(now, before):
            extra = next((hook for hook in now if not any(same(hook, other) for other in before)), _MISSING)
            pairs.append(
                (kind, (text(extra), "none; remove it with its handle" if extra != _MISSING else "set"))
            )
    return pairs


def same(a: Any, b: Any) -> bool:
    """Whether two attributes compute the same; the built-in attentions are one formula."""
    built_in = (eager, sdpa)
    if a is b or (any(a is x for x in built_in) and any(b is x for x in built_in)):
        return True
    if isinstance(a, partial) and isinstance(b, partial):
        return all(same(x, y) for x, y in zip(vars_of(a), vars_of(b), strict=True))
    if isinstance(a, MethodType) and isinstance(b, MethodType):
        return a.__func__ is b.__func__ and type(a.__self__) is type(b.__self__)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    if type(a) is type(b) and isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    try:
        return bool(a == b)
    except Exception:
        return False


def vars_of(function: partial[Any]) -> tuple[Any, ...]:
    """Returns function, arguments and keywords of a partial."""
    return function.func, function.args, function.keywords


def text(value: Any) -> str:
    """Returns an attribute for a message: the name of a function, else its repr, shortened."""
    if isinstance(value, Tensor):
        return "a plain tensor"
    if isinstance(value, partial):
        value = value.args[0] if value.args and callable(value.args[0]) else value.func
    if isinstance(value, str):
        return value
    name = str(getattr(value, "__name__", None) or f"{value!r:.60}")
    return f"{name}, compiled" if is_compiled(value) else name


def attention_name(model: nn.Module) -> str | None:
    """Returns the registered name of a model's attention; None if it has none, or several.

    The built-in ones are one formula, and "sdpa" stands for all.
    """
    backends = [vars(module)["backend"] for module in model.modules() if "backend" in vars(module)]
    functions = [b.args[0] if isinstance(b, partial) else sdpa if b is eager else b for b in backends]
    names = [name for name, function in BACKENDS.items() if all(function is f for f in functions)]
    return "sdpa" if not backends or "sdpa" in names else names[0] if names else None
