"""`minitx.register_task`: custom tasks in the table of tasks."""

from __future__ import annotations

import re

from minitx.pipelines.registry import NAMES, SPECS, TASKS, TRANSLATION, TaskSpec
from minitx.pipelines.show import DRAWINGS
from minitx.pipelines.task import Task
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_choice, check_type


def register_task(spec: TaskSpec) -> None:
    """Makes a custom task known under its name and aliases, for `minitx.pipeline`.

    Args:
        spec: of the task; its `path` is a subclass of `Task`. Registering a name again replaces it.

    Raises:
        ArgumentTypeError: not a `TaskSpec`, or a path that is not a `Task`.
        ArgumentValueError: a name that minitx itself has, a head that has a default task already, or a kind
            of picture that minitx does not have.

    Example:
        >>> spec = TaskSpec(name="shout", summary="...", path=Shout, heads=("causal-lm",), checkpoint="gpt2")
        >>> minitx.register_task(spec)
        >>> pipe = minitx.pipeline("shout", "folder")
    """
    check_type("spec", spec, TaskSpec, "a TaskSpec")
    if not (isinstance(spec.path, type) and issubclass(spec.path, Task)):
        raise ArgumentTypeError("path", spec.path, "a subclass of Task")
    check_choice("picture", spec.picture, tuple(DRAWINGS))
    names = (spec.name, *spec.aliases)
    own = {name for known in SPECS for name in (known.name, *known.aliases)}
    for name in names:
        if name in own or re.fullmatch(TRANSLATION, name):
            raise ArgumentValueError("name", name, "a new name", "minitx has this task itself")
    if any(known.default_of == spec.default_of != "" for known in SPECS):
        hint = "minitx has a task for it itself"
        raise ArgumentValueError("default_of", spec.default_of, "a head of another task", hint)
    TASKS[spec.name] = spec
    NAMES.update(dict.fromkeys(names, spec.name))
