"""Commands and options: their declaration, values, help and mistakes.

help.txt has the texts of the help and the lines that declare options, in sections: one for each command and
one for each group of options. `option` reads such a line.

Nothing heavy is imported here, so that --help is quick.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from itertools import chain, takewhile
from typing import Any

import click

from minitx.cli.source import Source
from minitx.values import LISTS, READERS, Reader

OPTIONS = ("options", "")  # title and paragraph of the options without a group
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 80}
MOST = 25  # of more options --help shows those of the section "usual", and --help-all shows all


class Help(click.Command):
    """Help as in help.txt: the text first, the examples last; options in titled groups between.

    Attributes:
        most: of more options the help shows the usual ones.
    """

    most = MOST

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the usage line: the arguments, then the options."""
        pieces = [*self.collect_usage_pieces(ctx)[1:], self.options_metavar or ""]
        formatter.write_usage(ctx.command_path, " ".join(filter(None, pieces)), "usage: ")

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the help, of a command with many options the usual ones only."""
        params = self.get_params(ctx)
        spellings = {param.name or "": param.opts[0] for param in params if param.opts[0][:2] == "--"}
        if short := len(params) > self.most and "help-all" not in ctx.meta:
            usual = sections()["usual"].split()
            options = sorted((p for p in params if p.opts[0] in usual), key=lambda p: usual.index(p.opts[0]))
            params = [*(p for p in params if isinstance(p, Argument)), *options]
        text, mark, examples = (self.help or "").partition("\n\nexamples:\n")
        examples, _, notes = examples.partition("\n\n")  # on the options that are not usual
        formatter.write(f"{self.get_usage(ctx)}\n\n{text}\n")
        groups: dict[tuple[str, str], list[tuple[str, str]]] = {("arguments", ""): [], OPTIONS: []}
        for param in params:
            spec, line = param.get_help_record(ctx) or ("", "")
            line = line.replace("Show this message and exit.", "show this message and exit")
            line = spelled(line, spellings)
            title = OPTIONS if short and isinstance(param, click.Option) else getattr(param, "group", OPTIONS)
            groups.setdefault(title, []).append((spec, line))
        for title, note in filter(groups.get, groups):
            with formatter.section(title):
                text = textwrap.fill(note, 76, break_on_hyphens=False)
                formatter.write(textwrap.indent(f"{text}\n\n", "  ") if note else "")
                formatter.write("".join(_columns(groups[title, note], formatter.width)))
        formatter.write(f"{mark[1:]}{examples}\n" + (f"\n{notes}\n" if notes and not short else ""))


def _columns(rows: list[tuple[str, str]], width: int) -> Iterator[str]:
    """Yields lines of a name and a text each, as click writes them, but without breaks within options."""
    column = min(max(len(name) for name, _ in rows), 24) + 4
    for name, text in rows:
        start = f"  {name}".ljust(column) if len(name) <= column - 4 else f"  {name}\n{' ' * column}"
        lines = textwrap.wrap(text, width - column, break_on_hyphens=False)
        yield start + f"\n{' ' * column}".join(lines) + "\n"


class Command(Help):
    """A command whose mistakes name options.

    Attributes:
        elsewhere: hint for an option that the command lacks, by its spelling.
        renamed: name of an option's parameter, by the name that errors have for it.
    """

    elsewhere: Mapping[str, str] = {}
    renamed: Mapping[str, str] = {}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the arguments, after a check of the values of options.

        An option is not the value of another one: `--stop --json` lacks a value. Nor is an argument after
        the value of a list, as in `TEXT --stop a b`, its second value; it may follow MODEL alone.
        """
        params = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        options = {name: param for param in params for name in param.opts + param.secondary_opts}
        count, listed = int("--input" in args or "--file" in args), ""
        for word in takewhile("--".__ne__, words := iter(args)):
            param = options.get(word)
            value = "" if param is None or param.is_flag else next(words, "")
            if value.partition("=")[0] in options:
                raise click.UsageError(f"{word} needs a value; if it is {value}: {word}={value}", ctx)
            count += word[0:1] != "-"
            if word[0:1] != "-" and listed and count > 2:
                hint = f"{listed} {shlex.quote(word)}; a text belongs before the options"
                raise click.UsageError(f"{listed.split()[0]} takes one value at a time: {hint}", ctx)
            listed = f"{word} {shlex.quote(value)} {word}" if param is not None and param.multiple else ""
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; an error about one of its parameters names the option."""
        try:
            return super().invoke(ctx)
        except (TypeError, ValueError) as error:
            raise ValueError(self.in_options(error)) from error

    def in_options(self, error: Any) -> str:
        """Returns the message with option names: `top_p=2.0 must ...` as "--top-p 2.0 must ..."."""
        name, bracket, key = getattr(error, "parameter", "").partition("[")
        values = click.get_current_context().params
        options = {param.name: param.opts[0] for param in self.params if param.opts[0][0] == "-"}
        other = {
            name: used for name, used in self.renamed.items() if values.get(used) and not values.get(name)
        }
        options |= {name: options[used] for name, used in other.items()}
        if name not in options:
            return spelled(str(error), options)
        from minitx.validation import shorten

        value = "" if error.value is None or error.value is True else f" {shorten(error.value)}"
        requirement = re.sub("^None ", "left out ", error.requirement)
        return f"{options[name]}{bracket}{key}{value} must be {spelled(requirement, options)}"


def spelled(text: str, options: Mapping[str, str]) -> str:
    """Replaces parameter names in a message by option names: "top_p=2 must" -> "--top-p 2 must".

    A flag has no value: "do_sample=False" -> "--no-do-sample".
    Those of calls, of formulas and of files, whose names are those of Python, stay.
    """
    if ".json" in text:
        return re.sub(r"ignore_keys=\((.*?),?\)", _ignored, text)

    def _spell(match: re.Match[str]) -> str:
        name, equals, value = match.groups()
        if value:
            return options[name] if value == "True" else f"--no-{options[name][2:]}"
        return options[name] + " " * (value is not None) if "_" in name or equals else name

    names, ends = "|".join(map(re.escape, options)), r"True\b|False\b|(?=[^\s.;,])"
    pattern = rf"(?<![\w.\"'/-])(?<!\w\()(?<!\* )({names})(?:(=)({ends})?|\b(?![.(\[\"'/]))"
    return re.sub(r"pass \[\[(\d+)\]\]", r"pass --ids \1", re.sub(pattern, _spell, text))


def _ignored(match: re.Match[str]) -> str:
    """Returns keys to ignore as options: "ignore_keys=('a', 'b')" -> "--ignore-key a --ignore-key b"."""
    return " ".join(f"--ignore-key {key}" for key in re.findall(r"[^\s,']+", match[1]))


def unknown(kind: str, name: str, known: Iterable[str], place: str, ctx: click.Context) -> click.UsageError:
    """Returns the error about an unknown command or task, with the most similar one."""
    similar = get_close_matches(name, [*known], n=1)
    hint = f"did you mean {similar[0]}?" if similar else f"{place} --help lists the {kind}s"
    return click.UsageError(f"there is no {kind} {name}; {hint}", ctx)


class Argument(click.Argument):
    """An argument with a line in the help; its metavar has brackets where it may be absent."""

    group = ("arguments", "")

    def __init__(self, name: str, metavar: str, text: str) -> None:
        count = -1 if "..." in metavar else 1
        super().__init__([name], metavar=metavar, nargs=count, required=metavar[0] != "[")
        self.text = text

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """Returns the name and the line."""
        return self.human_readable_name.strip("[.] "), self.text


def usage_message(error: click.UsageError) -> str:
    """Returns the message of a usage error, with the option or hint that may help."""
    command = None if error.ctx is None else error.ctx.command
    if isinstance(error, click.NoSuchOption) and command is not None:
        option, known = error.option_name, [name for param in command.params for name in param.opts]
        longer = [name for name in known if name.startswith(option) and len(option) > 3]
        similar = longer or get_close_matches(option, [name for name in known if name[:2] == "--"], n=1)
        hint = f"did you mean {similar[0]}?" if similar else "--help lists the options"
        return f"there is no option {option}; {getattr(command, 'elsewhere', {}).get(option, hint)}"
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return f"{error.param.human_readable_name} is missing"
    if isinstance(error, click.BadParameter) and error.param is not None:
        return f"{error.param.opts[0]}: {error.message}"
    message = error.format_message().rstrip(".")
    return message[:1].lower() + message[1:]


# --- declarations ----------------------------------------------------------------------------------


def command(*params: click.Parameter, **attributes: Any) -> Callable[[Callable[..., Any]], Command]:
    """Makes a function a command: its help and its own options are in the section of its name in help.txt.

    The options on the model become its first parameter, a `Source`; `json` is whether --json is used.

    Args:
        params: arguments, and options beside those of the section.
        attributes: of the command: `elsewhere`, `renamed`.
    """

    def _decorate(function: Callable[..., Any]) -> Command:
        def _run(traceback: bool, **values: Any) -> Any:
            own = {name: values.pop(name) for name in SOURCE if name in values}
            return function(Source(own.pop("model", None) or "", quiet=bool(values["json"]), **own), **values)

        text, lines = section(function.__name__)
        options = [*params, *map(option, lines), *group("output")]
        options += [help_all()] if len(options) >= MOST else []
        declared = Command(None, CONTEXT, _run, options, text, options_metavar="[options]")
        vars(declared).update(attributes)
        return declared

    return _decorate


def help_all() -> click.Option:
    """Returns the option that shows all options."""

    def _show(ctx: click.Context, param: click.Parameter, value: bool | None) -> None:
        if value:
            ctx.meta["help-all"] = True
            click.echo(ctx.get_help())
            ctx.exit()

    declared = option("--help-all  show all options and exit")
    declared.callback, declared.is_eager, declared.expose_value = _show, True, False
    return declared


@cache
def sections() -> dict[str, str]:
    """Returns the sections of help.txt by their titles."""
    parts = re.split(r"^\[(.+)\]\n", files("minitx.cli").joinpath("help.txt").read_text("utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def section(name: str) -> tuple[str, list[str]]:
    """Returns the text of a section of help.txt, and the lines of its options."""
    lines = sections()[name].splitlines()
    options = [line for line in lines if re.match(r"--\S+( \S+)?  \S", line)]
    text = "\n".join(line for line in lines if line not in options)
    return re.sub(r"\n{3,}", "\n\n", text).strip(), options


def heading(title: str) -> tuple[str, str]:
    """Returns title and paragraph of a group of options."""
    return title, " ".join(section(title)[0].split())


def group(title: str, *names: str) -> list[click.Option]:
    """Returns the options of a section of help.txt, or those with these names; the section is their group."""
    place = OPTIONS if title == "output" else heading(title)
    options = [option(line, place) for line in section(title)[1]]
    return [option for option in options if not names or option.name in names]


def option(line: str, group: tuple[str, str] = OPTIONS, read: Reader | None = None) -> click.Option:
    """Returns an option, declared by its line in the help.

    Args:
        line: spellings, metavar and, after two spaces, the text: "--beams,--num-beams N  number of beams".
            The last spelling names the parameter. Without a metavar it is a flag; with "A|B" these are the
            choices; with "..." the option may be repeated. "(default: X)" at the end is the default.
        group: title and paragraph of its group in the help.
        read: reads the value; None for the reader of the metavar. Lists of an option that is repeated are
            joined, unless there is "...".
    """
    spec, _, text = line.partition("  ")
    spellings, _, metavar = spec.partition(" ")
    names, default = spellings.split(","), re.search(r"\(default: (\S+)\)$", text)
    read = read or READERS.get(metavar.removesuffix("..."))
    repeated, joined = "..." in metavar, read in LISTS and "..." not in metavar
    more: dict[str, Any] = {"multiple": repeated or joined} if metavar else {"is_flag": True, "default": None}
    if metavar:
        choices = metavar.split("|") if "|" in metavar else DTYPES if metavar == "DTYPE" else None
        more["type"] = click.Choice(choices) if choices else Parsed(read) if read else str
    if default and metavar:
        more["default"] = default[1]
    if joined:
        more["callback"] = lambda ctx, param, lists: [*chain(*lists)] or None
    parameter = names[-1].partition("/")[0].strip("-").replace("-", "_")
    declared = click.Option([*names, parameter], metavar=metavar or None, help=text, **more)
    vars(declared)["group"] = group
    return declared


class Parsed(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A type whose values a function reads; the message of its ValueError is that of the mistake."""

    name = "text"

    def __init__(self, read: Callable[[str], Any]) -> None:
        self.read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Reads a text; a default is a value already."""
        try:
            return self.read(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


DTYPES = ("float32", "float16", "bfloat16", "float64")

# --- options of several commands -------------------------------------------------------------------

PASSES = ("optimize", "compile")
SOURCE = ("model", "revision", "token", "offline", "model_type", "ignore_keys", "dtype", "device", *PASSES)
HUB = SOURCE[1:6]
LANGUAGES = ("src_lang", "tgt_lang")
MODEL = Argument("model", "MODEL", "folder or Hub id")
TEXTS = Argument("texts", "[TEXT ...]", "texts; none: lines of stdin")
