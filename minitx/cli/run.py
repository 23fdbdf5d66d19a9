"""`minitx run`: the tasks of `minitx.pipeline`, each a command; and `minitx pipelines`, which lists them."""

from __future__ import annotations

import csv
import json as jsonlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

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
    option,
    section,
)
from minitx.cli.render import colored, emit, show
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
        options = _used({name: values.pop(name) for name in names})
        place = {name: values.pop(name) for name in SOURCE if name in values}
        source = Source(place.pop("model"), quiet=bool(values["json"]), **place)
        run_task(spec, source, stated | options, **values)

    help_text = f"{spec.summary[:1].upper()}{spec.summary[1:]}.\n\n{text}".replace("TASK", name)
    params = [MODEL, TEXTS, *own, *further]
    return Command(spec.name, CONTEXT, _invoke, params, help_text, options_metavar="[options]")


def _used(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that are used; a repeatable one that is used once has a single value."""
    context, default = click.get_current_context(), click.core.ParameterSource.DEFAULT
    used = {n: v for n, v in values.items() if context.get_parameter_source(n) is not default}
    return {n: (v[0] if len(v) == 1 else list(v)) if isinstance(v, tuple) else v for n, v in used.items()}


def run_task(
    spec: TaskSpec,
    source: Source,
    options: dict[str, Any],
    *,
    texts: tuple[str, ...],
    input: str | None,
    columns: tuple[str, ...],
    output: str | None,
    picture: str | None,
    batch_size: int | None,
    json: bool,
) -> None:
    """Runs a task on texts or a file, and prints or writes the results.

    Args:
        spec: of the task.
        source: the model.
        options: of the task, and fields of its requests.
        texts, input: the requests; lines of stdin without either.
        columns: names of the columns of a file.
        output: a .jsonl or .csv file for the results.
        picture: a file for the picture of the first result.
        batch_size: as for `minitx.pipeline`.
        json: print a line of JSON for each result.
    """
    import minitx
    from minitx.pipelines.inputs import read_file

    if output is not None and Path(output).suffix.lower() not in (".jsonl", ".csv"):
        raise ValueError(f"--output {output}: results are written to .jsonl or .csv files.")
    if texts and input is not None:
        raise ValueError("texts come both from the command line and from --input; give one of them.")
    task = spec.task_class()
    fields = {name: options.pop(name) for name in task.fields if name in options}
    source.calm_hub()
    source.check_device()
    model = None if source.name == USUAL else source.name
    loading: dict[str, Any] = {"dtype": source.dtype, "device": source.device, **source.hub}
    running: dict[str, Any] = {"batch_size": batch_size, "progress": False if source.quiet else None}
    pipe = minitx.pipeline(spec.name, model, details=True, **loading, **running, **options)
    if input is not None:
        results: Iterable[Any] = pipe(read_file(Path(input), task.fields, columns or None))
    else:
        lines = read_texts(texts, None)
        named = {task.fields[0]: lines[0] if len(lines) == 1 else lines, **fields}
        several = lines if len(lines) > 1 else iter(lines)  # some tasks unwrap a list of one text
        result = pipe(several) if not fields else pipe(**named)
        results = result if (isinstance(result, list) and len(lines) > 1) or not fields else [result]
    written = _printed(results, json=json or output is not None, picture=picture, quiet=output is not None)
    if output is not None:
        write_results(Path(output), written)
        show(f"{len(written)} results in {output}")


def _printed(results: Iterable[Any], *, json: bool, picture: str | None, quiet: bool) -> list[Any]:
    """Prints results one by one, and draws the first; returns them."""
    written = []
    for number, result in enumerate(results):
        if picture is not None and number == 0:
            result.show(picture)
        text = "" if json else (str(result) if not hasattr(result, "show") else result.show().text(colored))
        if not quiet:
            emit(json, plain(result), ("\n" if number and "\n" in text else "") + text, indent=None)
        written.append(plain(result))
    return written


def plain(result: Any) -> Any:
    """Returns a result as values of JSON."""
    if isinstance(result, dict):
        return {str(name): plain(value) for name, value in result.items()}
    if isinstance(result, list | tuple):
        return [plain(value) for value in result]
    return result.tolist() if hasattr(result, "tolist") else result


def write_results(path: Path, results: list[Any]) -> None:
    """Writes results to a .jsonl or .csv file, all or nothing; a .csv has a row per answer."""
    from minitx.io import write_atomically

    def _write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            if path.suffix.lower() == ".jsonl":
                file.writelines(jsonlib.dumps(result, ensure_ascii=False) + "\n" for result in results)
                return
            rows = [
                {"input": index} | (answer if isinstance(answer, dict) else {"result": jsonlib.dumps(answer)})
                for index, result in enumerate(results)
                for answer in (result if isinstance(result, list) else [result])
            ]
            writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
            writer.writeheader()
            writer.writerows(rows)

    write_atomically(path, _write)


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
