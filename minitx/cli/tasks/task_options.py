"""Options of `minitx run TASK`, made from the fields and the options of the task.

The type of a field of its dataclass chooses how a value is read, and its docstring is the help.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import click

from minitx.cli.options import heading, option
from minitx.pipelines.describe import attributes_of
from minitx.values import READERS, Reader, integer, number


def field_options(task: Any) -> Iterator[click.Option]:
    """Yields an option for each further field of a request."""
    for name in task.fields[1:]:
        if name not in {field.name for field in fields(task.Options)}:
            text = f"TEXT...  the {name.replace('_', ' ')}; one for all, or one per text (repeat)"
            text = f"TEXT...  one of the {name} (repeat)" if name in task.lists else text
            text = f"FILE  {task.files[name]}" if name in task.files else text
            reader = Path if name in task.files else None
            field = option(f"{_spelled(name)} {text}", heading("the task"), reader)
            yield _as_list(field) if name in task.lists else field


def task_options(task: Any) -> Iterator[click.Option]:
    """Yields the options of a task but those that only Python can express."""
    hints, texts = get_type_hints(task.Options), attributes_of(task.Options)
    for field in fields(task.Options):
        declared = _declaration(field.name, hints[field.name])
        if declared is not None and field.name in texts:
            spec, read = declared
            text = re.sub(r"\bNone\b", "none", texts[field.name])
            again = " (repeat)" * spec.endswith("...")
            line = option(f"{spec}  {text}{again}", heading("the task"), read)
            yield _as_list(line) if again and str not in _members(hints[field.name]) else line


def _as_list(declared: click.Option) -> click.Option:
    """Returns an option whose value is a list, also if it is used once."""
    declared.callback = lambda ctx, param, values: list(values)
    return declared


def _spelled(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _flag(name: str) -> str:
    return f"{_spelled(name)}/--no-{_spelled(name)[2:]}"


def _declaration(name: str, annotation: Any) -> tuple[str, Reader | None] | None:
    """Returns spelling and metavar of an option, and the reader of its value; None if it has no text form."""
    if annotation is Any:
        return _strategy_field(name)
    kinds = _members(annotation)
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    if bool in kinds:
        return _flag(name), None
    if int in kinds or float in kinds:
        values: dict[str, Any] = {str(word): word for word in words}
        values |= {"none": None} if types.NoneType in kinds else {}
        read = number if float in kinds else integer
        return f"{_spelled(name)} {'X' if float in kinds else 'N'}", _reader(values, read)
    if words and str not in kinds:
        return f"{_spelled(name)} {'|'.join(map(str, words))}", None
    if str in kinds or Sequence[str] in kinds:
        several = any(get_origin(kind) not in (None, Literal) for kind in kinds)
        return f"{_spelled(name)} TEXT{'...' * several}", None
    return None


def _reader(values: dict[str, Any], read: Reader) -> Reader:
    """Returns a reader of numbers that knows some words too."""
    return lambda text: values[text] if text in values else read(text)


def _members(annotation: Any) -> list[Any]:
    """Returns the members of a union, and of unions in it."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [annotation]


def _strategy_field(name: str) -> tuple[str, Reader | None] | None:
    """Returns the declaration of a field of strategies, which its `parameter(...)` describes."""
    from minitx.decoding.parameters import parameters_of
    from minitx.decoding.search.beam_sample import BeamSample

    declared = parameters_of(BeamSample).get(name)
    if declared is None or (declared.metavar is None and declared.off is not False):
        return None
    if declared.metavar is None:
        return _flag(name), None
    return f"{_spelled(name)} {declared.metavar}", READERS.get(declared.metavar.removesuffix("..."))
