"""The JSON form of configs: plain dicts and lists that json.dump takes, and back without a difference.

A config becomes an object of all its fields, with its class under "class"; tuples and frozensets
become lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from minitx.config.base import ValidatedConfig, alternatives, element_hints
from minitx.validation import ArgumentTypeError, ArgumentValueError

CLASS = "class"
Config = TypeVar("Config", bound=ValidatedConfig)


def to_json(config: ValidatedConfig) -> dict[str, Any]:
    """Returns the JSON form of a config.

    Raises:
        ArgumentTypeError: not a config, or one with a field that JSON cannot hold.
    """
    if not isinstance(config, ValidatedConfig):
        raise ArgumentTypeError("config", config, "a config", "such as the config of a model")
    form: dict[str, Any] = {CLASS: type(config).__name__}
    for field in fields(config):  # type: ignore[arg-type] # every config is a dataclass
        form[field.name] = _plain(f"{type(config).__name__}.{field.name}", getattr(config, field.name))
    return form


def from_json(kind: type[Config], form: Any, where: str = "config") -> Config:
    """Returns the config of a JSON form.

    Args:
        kind: its class, or a base of it.
        form: as `to_json` returns it; fields with a default may be missing.
        where: name of the form in messages.

    Raises:
        ArgumentTypeError, ArgumentValueError: an unknown class or key, a missing field, or a wrong value.
    """
    if not _is_config(kind):
        raise ArgumentTypeError("kind", kind, "a class of configs", "such as minitx.ModelConfig")
    if not isinstance(form, Mapping):
        raise ArgumentTypeError(where, form, "an object", f"the JSON form of a {kind.__name__}")
    chosen = _class_of((kind,), form, where)
    hints = get_type_hints(chosen)
    names = {field.name: field for field in fields(chosen) if field.init}
    for key in form:
        if key not in names and key != CLASS:
            near = get_close_matches(str(key), names, n=1, cutoff=0.0)
            expected = f"a field of {chosen.__name__}"
            hint = f"the nearest is {near[0]!r}" if near else "it has none"
            raise ArgumentValueError(f"{where}.{key}", form[key], expected, hint)
    for name, field in names.items():
        if name not in form and field.default is MISSING and field.default_factory is MISSING:
            raise ArgumentValueError(f"{where}.{name}", None, f"present in a {chosen.__name__}")
    values = {name: _value(hints[name], form[name], f"{where}.{name}") for name in names if name in form}
    config: Config = chosen(**values)
    return config


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, ValidatedConfig):
        return to_json(value)
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(f"{name}[{key!r}]", part) for key, part in value.items()}
    if isinstance(value, tuple | frozenset):
        parts = sorted(value) if isinstance(value, frozenset) else value
        return [_plain(f"{name}[{i}]", part) for i, part in enumerate(parts)]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    hint = "the JSON form holds configs, numbers, strings, None, and tuples of these"
    raise ArgumentTypeError(name, value, "a value with a JSON form", hint)


def _value(hint: Any, value: Any, where: str) -> Any:
    """Returns the value of a field from its JSON form; the config checks plain values itself."""
    choices = alternatives(hint)
    if isinstance(value, Mapping):
        configs = tuple(part for part in choices if _is_config(part))
        if configs:
            return from_json(_class_of(configs, value, where), value, where)
        for part in choices:
            if get_origin(part) is not None and issubclass(get_origin(part), Mapping):
                inner = get_args(part)[1]
                return {key: _value(inner, item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list):
        for part in choices:
            if get_origin(part) in (tuple, frozenset):
                hints = element_hints(part, len(value))
                hints += (Any,) * (len(value) - len(hints))  # the config refuses another number
                places = [f"{where}[{i}]" for i in range(len(value))]
                return get_origin(part)(map(_value, hints, value, places))
    return value


def _is_config(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, ValidatedConfig)


def _class_of(kinds: tuple[type, ...], form: Mapping[str, Any], where: str) -> Any:
    """Returns the class that a form names: one of `kinds` or their subclasses."""
    name, known = form.get(CLASS), {kind.__name__: kind for kind in _with_subclasses(kinds)}
    if not isinstance(name, str) or name not in known:
        hint = "a custom class must be defined before its config is read"
        raise ArgumentValueError(f"{where}.{CLASS}", name, f"one of {', '.join(sorted(known))}", hint)
    return known[name]


def _with_subclasses(kinds: tuple[type, ...]) -> Iterator[type]:
    for kind in kinds:
        yield kind
        yield from _with_subclasses(tuple(kind.__subclasses__()))
