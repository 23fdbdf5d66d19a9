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
from minitx.layers.attention import BACKENDS, eager, sdpa
from minitx.layers.norm import identity
from minitx.models import Model
from minitx.optimize.few_rows import few_rows

# torch's own attributes of a module; a `forward` among them replaces that of the class
_TORCH = frozenset({*vars(nn.Module()), *dir(nn.Module)}) - {"forward"}
_HOOKS = {"_forward_pre_hooks": "forward pre-hook", "_forward_hooks": "forward hook"}
_TRAINING = (nn.Dropout, nn.Identity)  # replacing one by the other changes training only
_MISSING = "missing"


def check_unchanged(model: Model, checkpoint: Checkpoint) -> None:
    """Checks that config.json describes the model: weights that contradict it could not be loaded again.

    Raises:
        ValueError: a module was added, replaced, hooked or changed, or `model.checkpoint.config` was.
    """
    architecture = checkpoint.architecture
    task = task_of(model, architecture)
    model_config, heads = read_config(
        architecture, checkpoint.model_type, checkpoint.config, checkpoint.ignored_keys
    )
    by_config = task_config(architecture, model_config, task, pooler=model.config.pooler)
    head = None if model.head is None else model.head.config
    if (by_config, heads.get(task)) != (model.config, head):
        raise ValueError(
            f"model.checkpoint.config describes another model than model.config; {advice(checkpoint)}"
        )
    built = empty_model(architecture, model_config, heads, task, pooler=model.config.pooler)
    built.set_attention(checkpoint.attention)
    for place, now, before in differences(model, few_rows(built)):
        raise ValueError(f"the model's {place} is {now}, but by its config {before}; {advice(checkpoint)}")


def advice(checkpoint: Checkpoint) -> str:
    """Returns the ways to keep a model that differs from its config."""
    native = (
        ""
        if checkpoint.is_native
        else ('minitx.save(..., model_type="minitx") keeps a registered attention; ')
    )
    return (
        "build such a model with minitx.from_config(model.checkpoint.config | {...}) if config.json has keys "
        f"for it; {native}anything else is kept by torch.save(model.state_dict(), path) and the code that "
        "changes it."
    )


def differences(model: nn.Module, built: nn.Module) -> list[tuple[str, str, str]]:
    """Returns where a model differs from its config's: the place, its value, and that of the config."""
    modules, expected = dict(model.named_modules()), dict(built.named_modules())
    differing = []
    for path in sorted({*modules, *expected}, key=lambda path: (path in modules and path in expected, path)):
        module, other = modules.get(path), expected.get(path)
        if module is None or other is None:
            if not isinstance(module or other, _TRAINING):
                absent = _MISSING if module is None else "not a module"
                pair = (described(module, absent), described(other, absent))
                differing.append((path, *pair))
            continue
        label = path or "class"
        training = type(module) in _TRAINING and type(other) in _TRAINING
        if not training and described(module) != described(other):
            differing.append((label, described(module), described(other)))
        elif not training:
            differing += [(f"{path}.{name}".lstrip("."), *pair) for name, pair in changed(module, other)]
        differing += [(f"{path}.{name}".lstrip("."), *pair) for name, pair in hooks(module, other)]
    shapes = {name: tuple(x.shape) for name, x in built.state_dict().items()}
    for name, tensor in model.state_dict().items():
        if shapes.get(name, tensor.shape) != tensor.shape:
            differing.append((name, f"of shape {tuple(tensor.shape)}", f"of shape {shapes[name]}"))
    return differing


def described(module: nn.Module | None, absent: str = _MISSING) -> str:
    """Returns class and options of a module."""
    if module is None:
        return absent
    options = "" if [*module.children()] else module.extra_repr()
    name: str = module._get_name()  # type: ignore[no-untyped-call]
    return f"{name}({options})"


def changed(module: nn.Module, built: nn.Module) -> list[tuple[str, tuple[str, str]]]:
    """Returns the plain attributes that differ, with their values in both.

    An attribute that the config's module does not have in any form is not used by its class.
    """
    now = {name: value for name, value in vars(module).items() if name not in _TORCH}
    before = {name: value for name, value in vars(built).items() if name not in _TORCH}
    if isinstance(module, Model):
        now["checkpoint"] = before["checkpoint"] = None  # the record
    pairs = []
    for name in sorted({*now, *before}):
        if name not in before and not hasattr(built, name):
            continue
        if name not in now and before[name] is identity:
            continue  # a module in an empty slot, which is compared as such
        value, other = now.get(name, _MISSING), before.get(name, "not set")
        if not same(value, other):
            pairs.append((name, (text(value), text(other))))
    return pairs


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
    if isinstance(value, partial):
        value = value.args[0] if value.args and callable(value.args[0]) else value.func
    return str(getattr(value, "__name__", None) or f"{value!r:.60}" if not isinstance(value, str) else value)


def attention_name(model: nn.Module) -> str | None:
    """Returns the registered name of a model's attention; None if it has none, or several.

    The built-in ones are one formula, and "sdpa" stands for all.
    """
    backends = [vars(module)["backend"] for module in model.modules() if "backend" in vars(module)]
    functions = [b.args[0] if isinstance(b, partial) else sdpa if b is eager else b for b in backends]
    names = [name for name, function in BACKENDS.items() if all(function is f for f in functions)]
    return "sdpa" if not backends or "sdpa" in names else names[0] if names else None
