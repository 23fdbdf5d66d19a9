"""`minitx run`: the tasks of `minitx.pipeline`, each a command; and `minitx pipelines`, which lists them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import click

from minitx.cli.options import (
    CONTEXT,
    SOURCE,
    TEXTS,
    Argument,
    Command,
    Help,
    command,
    group,
    help_all,
    option,
    section,
)
from minitx.cli.render import colored, emit
from minitx.cli.source import Source, read_texts
from minitx.pipelines.registry import NAMES, SPECS, TaskSpec, find_task

USUAL = "usual"
PLACE = ("revision", "token", "offline", "dtype", "device")
MODEL = Argument("model", "MODEL", f"folder or Hub id; {USUAL}: the task's usual checkpoint")


class Tasks(Help, click.Group):
    """A group with a command per task."""

    def list_commands(self, ctx: click.Context | None = None) -> list[str]:
        """Returns the names and aliases of tasks."""
        return list(NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Makes the command of a task; a usage error names a similar one."""
        try:
            spec, stated = find_task(cmd_name)
        except ValueError as error:
            raise click.UsageError(str(error).rstrip("."), ctx) from None
        return task_command(cmd_name, spec, stated)


class Task(Command):
    """The command of a task."""

    most = 40


@click.command(cls=Tasks, context_settings=CONTEXT, options_metavar="TASK MODEL ...", subcommand_metavar="")
def run() -> None:
    """Runs a task."""


_LINES = "\n".join(f"  {spec.name:<26}{spec.summary}" for spec in SPECS)
run.help = section("run")[0].replace("TASKS", _LINES)


def task_command(name: str, spec: TaskSpec, stated: dict[str, Any]) -> Command:
    """Returns the command of a task, with the options of the task.

    Args:
        name: as typed; an alias, or one with languages.
        spec: of the task.
        stated: options that the name states.
    """
    from minitx.cli.task_options import field_options, task_options

    task = spec.task_class()
    own = [*field_options(task), *task_options(task)]
    text, lines = section("run TASK")
    further = [*map(option, lines), *group("the model", *PLACE), *group("output")]

    def _invoke(traceback: bool, **values: Any) -> None:
        names = [str(parameter.name) for parameter in own]
        options = stated | _used({name: values.pop(name) for name in names})
        place = {name: values.pop(name) for name in SOURCE if name in values}
        source = Source(place.pop("model"), quiet=bool(values["json"]), **place)
        run_task(spec, source, options, values)

    text = f"{spec.summary[:1].upper()}{spec.summary[1:]}.\n\n{text}".replace("TASK", name)
    params = [MODEL, TEXTS, *own, *further]
    params += [help_all()] if len(params) > Task.most else []
    return Task(spec.name, CONTEXT, _invoke, params, text, options_metavar="[options]")


def _used(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that are used; a repeatable one that is used once has a single value."""
    context, default = click.get_current_context(), click.core.ParameterSource.DEFAULT
    used = {n: v for n, v in values.items() if context.get_parameter_source(n) is not default}
    return {n: (v[0] if len(v) == 1 else list(v)) if isinstance(v, tuple) else v for n, v in used.items()}


def run_task(spec: TaskSpec, source: Source, options: dict[str, Any], values: dict[str, Any]) -> None:
    """Runs a task on texts or a file, and prints or writes the results.

    Args:
        spec: of the task.
        source: the model.
        options: of the task, and fields of its requests.
        values: of the options that all tasks have.
    """
    import minitx
    from minitx.pipelines.outputs import check_output, plain, write_results

    output, json = values["output"], values["json"]
    path = None if output is None else check_output(Path(output))
    if values["texts"] and values["input"] is not None:
        raise ValueError("texts come both from the command line and from --input; give one of them.")
    task = spec.task_class()
    fields = {name: options.pop(name) for name in task.fields if name in options}
    source.calm_hub()
    source.check_device()
    model = None if source.name == USUAL else source.name
    loading: dict[str, Any] = {"dtype": source.dtype, "device": source.device, **source.hub}
    running: dict[str, Any] = {
        "batch_size": values["batch_size"],
        "progress": False if source.quiet else None,
    }
    pipe = minitx.pipeline(spec.full_name, model, details=True, **loading, **running, **options)
    results = results_of(pipe, values, fields)
    if path is not None:
        count = write_results(path, results, picture=values["picture"])
        emit(json, {"output": output, "results": count}, f"{count} results in {output}")
        return
    for number, result in enumerate(results):
        if values["picture"] is not None and number == 0:
            result.show(values["picture"])
        text = "" if json else result.show().text(colored) if hasattr(result, "show") else str(result)
        emit(json, plain(result), "\n" * (number > 0 and "\n" in text) + text, indent=None)


def results_of(pipe: Any, values: dict[str, Any], fields: dict[str, Any]) -> Iterable[Any]:
    """Returns the results for the texts or the file of a command.

    Args:
        pipe: the pipeline.
        values: of the options that all tasks have.
        fields: further fields of the requests.
    """
    from minitx.pipelines.inputs import read_file

    names = pipe.task.fields
    if values["input"] is not None:
        read = read_file(Path(values["input"]), names, values["columns"] or None)
        rows = (row if isinstance(row, dict) else {names[0]: row} for row in read)
        return cast(Iterable[Any], pipe({**fields, **row} for row in rows))
    lines = read_texts(values["texts"], None)
    if fields:
        texts: Any = lines[0] if len(lines) == 1 else lines
        result = pipe(**{names[0]: texts, **fields})
        several = len(lines) > 1 and not hasattr(result, "show")  # of several requests, not of one
        return result if several else [result]
    # A single text in the nesting of several; some tasks unwrap a list of one.
    return cast(Iterable[Any], pipe(lines if len(lines) > 1 else iter(lines)))


@command()
def pipelines(source: Source, json: bool) -> None:
    """Lists the tasks."""
    import textwrap

    from minitx.architectures import REGISTRY, architecture

    heads = {name: {"none", *architecture(name).head_weights} for name in sorted(REGISTRY)}
    for number, spec in enumerate(SPECS):
        kinds = [name for name, available in heads.items() if available & set(spec.heads)]
        record = {"task": spec.name, "aliases": spec.aliases, "summary": spec.summary, "heads": spec.heads}
        record |= {"checkpoint": spec.checkpoint, "architectures": kinds}
        names = f"{spec.name} ({', '.join(spec.aliases)})" if spec.aliases else spec.name
        listed = textwrap.fill(" ".join(kinds), 76, initial_indent=" " * 17, subsequent_indent=" " * 17)
        lines = [colored(names), f"  {spec.summary}", f"  checkpoint     {spec.checkpoint}"]
        lines += [f"  head           {' or '.join(spec.heads)}", f"  architectures  {listed.strip()}"]
        emit(json, record, "\n" * (number > 0) + "\n".join(lines), indent=None)
