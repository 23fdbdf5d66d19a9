"""`minitx.register_task`: custom tasks in the table of tasks."""

from __future__ import annotations

import re

from minitx.architectures.declaration import TASK_SUFFIX
from minitx.pipelines.registry import NAMES, SPECS, TASKS, TRANSLATION, TaskSpec
from minitx.pipelines.show import DRAWINGS
from minitx.pipelines.task import Task
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_choice, check_strings, check_type


def register_task(spec: TaskSpec) -> None:
    """Makes a custom task known under its name and aliases, for `minitx.pipeline`.

    Args:
        spec: of the task; its `path` is a subclass of `Task`. Registering a name again replaces it.

    Raises:
        ArgumentTypeError: not a `TaskSpec`, a path that is not a `Task`, or another value of the wrong type.
        ArgumentValueError: a name or alias that another task has, a head that has a default task already, or
            a head or kind of picture that minitx does not have.

    Example:
        >>> spec = TaskSpec(name="shout", summary="...", path=Shout, heads=("causal-lm",), checkpoint="gpt2")
        >>> minitx.register_task(spec)
        >>> pipe = minitx.pipeline("shout", "folder")
    """
    check_type("spec", spec, TaskSpec, "a TaskSpec")
    check_strings(name=spec.name, summary=spec.summary, checkpoint=spec.checkpoint)
    for parameter in ("heads", "aliases"):
        names = check_type(parameter, getattr(spec, parameter), tuple, "a tuple of strings")
        check_strings(**{f"{parameter}[{index}]": name for index, name in enumerate(names)})
    if not spec.heads:
        raise ArgumentValueError("heads", spec.heads, "at least one head", '"none" is a model without a head')
    for index, head in enumerate(spec.heads):
        check_choice(f"heads[{index}]", head, (*TASK_SUFFIX, "none"))
    if not (isinstance(spec.path, type) and issubclass(spec.path, Task)):
        raise ArgumentTypeError("path", spec.path, "a subclass of Task")
    check_choice("picture", spec.picture, tuple(DRAWINGS))
    own = {name for known in SPECS for name in (known.name, *known.aliases)}
    for parameter, name in (("name", spec.name), *(("aliases", alias) for alias in spec.aliases)):
        if not name or name in own or re.fullmatch(TRANSLATION, name):
            hint = "minitx has this task itself" if name else ""
            raise ArgumentValueError(parameter, name, "a new name", hint)
        if NAMES.get(name, spec.name) != spec.name:
            raise ArgumentValueError(parameter, name, "a new name", f"{NAMES[name]!r} has it")
    if any(known.default_of == spec.default_of != "" for known in SPECS):
        hint = "minitx has a task for it itself"
        raise ArgumentValueError("default_of", spec.default_of, "a head of another task", hint)
    for name in [name for name, task in NAMES.items() if task == spec.name]:
        del NAMES[name]  # an alias that the task had before
    TASKS[spec.name] = spec
    NAMES.update(dict.fromkeys((spec.name, *spec.aliases), spec.name))
