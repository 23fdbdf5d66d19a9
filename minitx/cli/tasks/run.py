"""`minitx run`: the tasks of `minitx.pipeline`, each a command; and `minitx pipelines`, which lists them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from minitx.cli.options import (
    CONTEXT,
    PASSES,
    SOURCE,
    Argument,
    Command,
    Help,
    command,
    group,
    help_all,
    option,
    section,
    unknown,
)
from minitx.cli.render import colored, emit, note
from minitx.cli.source import Source, read_texts
from minitx.pipelines.registry import NAMES, SPECS, TaskSpec, find_task

USUAL = "usual"
PLACE = ("revision", "token", "offline", "dtype", "device", *PASSES)
MODEL = Argument("model", "MODEL", f"folder or Hub id; {USUAL}: the task's usual checkpoint")


class Tasks(Help, click.Group):
    """A group with a command per task."""

    def list_commands(self, ctx: click.Context | None = None) -> list[str]:
        """Returns the names and aliases of tasks."""
        return list(NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Makes the command of a task; a usage error names a similar one."""
        try:
            return task_command(cmd_name, *find_task(cmd_name))
        except ValueError:
            raise unknown("task", cmd_name, NAMES, "minitx run", ctx) from None


class TaskCommand(Command):
    """The command of a task."""

    most = 40
    renamed: Mapping[str, str] = {"num_samples": "num_return_sequences"}


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
    from minitx.cli.tasks.task_options import field_options, task_options

    task = spec.task_class()
    own = [*field_options(task), *task_options(task)]
    text, lines = section("run TASK")
    lines = [line.replace("FIELDS", ", ".join(task.fields)) for line in lines]
    further = [*map(option, lines), *group("the model", *PLACE), *group("output")]

    def _invoke(traceback: bool, **values: Any) -> None:
        options = stated | _used({str(param.name): values.pop(str(param.name)) for param in own})
        place = {name: values.pop(name) for name in SOURCE if name in values}
        source = Source(place.pop("model"), quiet=bool(values["json"]), **place)
        run_task(spec, source, options, values)

    example = spec.example.replace(" \\ ", " \\\n      ")
    text = f"{spec.summary[:1].upper()}{spec.summary[1:]}.\n\n{text}"
    text = text.replace("TASK", name).replace("TEXT ...", example)
    inputs = Argument(
        "texts", "[TEXT ...]", f"the {task.fields[0].replace('_', ' ')}, or several; none: lines of stdin"
    )
    params = [MODEL, inputs, *own, *further]
    params += [help_all()] if len(params) > TaskCommand.most else []
    return TaskCommand(spec.name, CONTEXT, _invoke, params, text, options_metavar="[options]")


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
    from minitx.pictures.drawings import check_drawing_path
    from minitx.pipelines.outputs import FORMATS, check_not_input, with_kept, write_results
    from minitx.validation import check_output

    output, picture = values["output"], values["picture"]
    path = None if output is None else check_output("output", output, FORMATS)
    if picture is not None:
        check_drawing_path(picture)
    task = spec.task_class()
    fields = {name: options.pop(name) for name in task.fields if name in options}
    sources = [values["input"], *(fields.get(name) for name in task.files)]
    for name in ("output", "picture"):
        check_not_input(name, values[name], filter(None, sources))
    lines = texts_of(spec, task, fields, values)
    source.calm_hub()
    source.check_device()
    loading: dict[str, Any] = {"dtype": source.dtype, "device": source.device, **source.hub}
    running = {"batch_size": values["batch_size"], "progress": False if source.quiet else None}
    model = None if source.name == USUAL else source.name
    pipe = minitx.pipeline(spec.full_name, model, details=True, **loading, **running, **options)
    source.optimized(pipe.model)
    results = results_of(pipe, lines, fields, values)
    if path is not None:
        count = write_results(path, results, picture=picture)
        record = {"output": output, "results": count}
        emit(values["json"], record, f"{count} result{'s' * (count != 1)} in {output}")
    else:
        for number, (result, kept) in enumerate(results):
            if picture is not None and number == 0:
                result.show(picture)
            text = result.show().text(colored) if hasattr(result, "show") else str(result)
            emit(
                values["json"],
                with_kept(result, kept),
                "\n" * (number > 0 and "\n" in text) + text,
                indent=None,
            )
    if picture is not None and not source.quiet:
        note(f"the first result is drawn in {picture}")


def texts_of(spec: TaskSpec, task: Any, fields: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """Returns the texts of the command line or of stdin; none with --input.

    Raises:
        UsageError, ValueError: no texts, two sources of them, or a field that is missing.
    """
    if values["input"] is not None:
        if values["keep"] and not (values["output"] or values["json"]):
            raise ValueError("--keep adds columns to files and to JSON; add --output FILE or --json.")
        if values["texts"]:
            raise ValueError("texts come both from the command line and from --input; give one of them.")
        return []
    for name in task.fields[1:]:
        if name not in fields and name not in task.optional:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{spec.name} needs {option}; --help has an example")
    for name in ("columns", "keep"):
        if values[name]:
            raise ValueError(f"--{name} names columns of --input, which is missing.")
    return read_texts(values["texts"], None)


def results_of(
    pipe: Any, lines: list[str], fields: dict[str, Any], values: dict[str, Any]
) -> Iterable[tuple[Any, dict[str, Any]]]:
    """Returns the results for the texts or the file of a command, each with the values that --keep names.

    Args:
        pipe: the pipeline.
        lines: texts; unused with --input.
        fields: further fields of the requests.
        values: of the options that all tasks have.
    """
    from minitx.pipelines.inputs import run_file

    if values["input"] is not None:
        path = Path("/dev/stdin" if values["input"] == "-" else values["input"])
        return run_file(pipe, path, values["columns"], fields=fields, keep=values["keep"] or ())
    if fields and pipe.task.files and not pipe.options.sequential:  # a list would be one request
        results = pipe({pipe.task.fields[0]: line, **fields} for line in lines)
    elif fields:
        result = pipe(**{pipe.task.fields[0]: lines[0] if len(lines) == 1 else lines, **fields})
        several = isinstance(result, list) and not hasattr(result, "show")  # of requests, not of one
        results = result if several else [result]
    else:  # a single text in the nesting of several; some tasks unwrap a list of one
        results = pipe(lines if len(lines) > 1 else iter(lines))
    return ((result, {}) for result in results)


@command()
def pipelines(source: Source, json: bool) -> None:
    """Lists the tasks."""
    import textwrap

    from minitx.architectures import REGISTRY, architecture

    heads = {name: {"none", *architecture(name).head_weights} for name in sorted(REGISTRY)}
    for number, spec in enumerate(SPECS):
        kinds = [name for name, available in heads.items() if available & set(spec.heads)]
        record = {"task": spec.name, "aliases": spec.aliases, "summary": spec.summary, "heads": spec.heads}
        record |= {"checkpoint": spec.checkpoint, "shipped": spec.shipped, "architectures": kinds}
        names = f"{spec.name} ({', '.join(spec.aliases)})" if spec.aliases else spec.name
        listed = textwrap.fill(" ".join(kinds), 76, initial_indent=" " * 17, subsequent_indent=" " * 17)
        lines = [colored(names), f"  {spec.summary}", f"  checkpoint     {spec.checkpoint}"]
        lines += [f"  without Hub    {spec.shipped}"] if spec.shipped else []
        lines += [f"  head           {' or '.join(spec.heads)}", f"  architectures  {listed.strip()}"]
        emit(json, record, "\n" * (number > 0) + "\n".join(lines), indent=None)
