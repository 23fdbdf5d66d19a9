"""Help and mistakes of commands, the options that several of them share, and the types of options' values.

Nothing heavy is imported here, so that --help is quick.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Sequence
from copy import copy
from difflib import get_close_matches
from functools import update_wrapper
from itertools import chain
from typing import Any

import click

from minitx.cli.source import Source

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 80}


class Help(click.Command):
    """Help as written in the docstring: its text first, its examples last; options in titled groups between.

    Attributes:
        notes: paragraph of a group of options, by its title.
    """

    notes: dict[str, str] = {}  # noqa: RUF012 - replaced, never changed

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the usage line: the arguments, then the options."""
        pieces = [*self.collect_usage_pieces(ctx)[1:], self.options_metavar or ""]
        formatter.write_usage(ctx.command_path, " ".join(filter(None, pieces)), "usage: ")

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the whole help."""
        text, mark, examples = inspect.cleandoc(self.help or "").partition("\n\nexamples:\n")
        formatter.write(f"{self.get_usage(ctx)}\n\n{text}\n")
        groups: dict[str, list[tuple[str, str]]] = {"arguments": [], "options": []}
        for param in self.get_params(ctx):
            spec, line = param.get_help_record(ctx) or ("", "")
            line = line.replace("Show this message and exit.", "show this message and exit")
            groups.setdefault(getattr(param, "group", "options"), []).append((spec, line))
        for title in filter(groups.get, groups):
            with formatter.section(title):
                formatter.write(indented(self.notes.get(title, "")))
                formatter.write_dl(groups[title], col_max=24)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)
        formatter.write(f"{mark[1:]}{examples}\n" if mark else "")


class Command(Help):
    """A command whose mistakes name options.

    Attributes:
        elsewhere: hint for an option that the command lacks, by its name.
        renamed: name of an option's parameter, by the name that errors have for it.
    """

    elsewhere: dict[str, str] = {}  # noqa: RUF012 - replaced, never changed
    renamed: dict[str, str] = {}  # noqa: RUF012

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; an error about one of its parameters names the option."""
        try:
            return super().invoke(ctx)
        except (TypeError, ValueError) as error:
            raise ValueError(self.in_options(error)) from error

    def in_options(self, error: Any) -> str:
        """An `ArgumentError` as "--top-p 2.0 must be in (0, 1]; hint."; other errors as they are."""
        name, bracket, key = getattr(error, "parameter", "").partition("[")
        name = self.renamed.get(name, name)
        options = [param for param in self.params if isinstance(param, click.Option) and param.name == name]
        text = str(error)
        if not options:
            return text
        option, value = options[0].opts[0], text[len(error.parameter) + 1 :].partition(" must be ")[0]
        value = "" if error.value is None or error.value is True else f" {value}"
        return f"{option}{bracket}{key}{value} must be {error.requirement}"


def indented(note: str) -> str:
    """A paragraph of the help, with the empty line after it."""
    text = textwrap.fill(note, 78, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    return f"{text}\n\n" if note else ""


class Argument(click.Argument):
    """An argument with a line in the help."""

    group = "arguments"

    def __init__(self, name: str, metavar: str, text: str, **more: Any) -> None:
        super().__init__([name], metavar=metavar, **more)
        self.text = text

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """Returns the name and the line."""
        return self.human_readable_name.strip("[.] "), self.text


def usage_message(error: click.UsageError) -> str:
    """The message of a usage error, with the option or hint that may help."""
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


# --- making commands and options -------------------------------------------------------------------


def as_command(*params: click.Parameter, **attributes: Any) -> Callable[[Callable[..., Any]], Command]:
    """Makes a function a command: its docstring is the help, its parameters are named as the options.

    The options on the model become its first parameter, a `Source`; `json` is whether --json is given.

    Args:
        params: arguments and options in the order of the help.
        attributes: of the command: `notes`, `elsewhere`.
    """
    json = option("--json", "machine-readable output, and nothing else", default=False)
    trace = option("--traceback", "show where in the code an error arose", expose_value=False)

    def decorate(function: Callable[..., Any]) -> Command:
        def run(**values: Any) -> Any:
            own = {name: values.pop(name) for name in SOURCE if name in values}
            return function(Source(own.pop("model") or "", quiet=values["json"], **own), **values)

        settings: dict[str, Any] = {"context_settings": CONTEXT, "options_metavar": "[options]"}
        callback = update_wrapper(run, function)
        command = Command(
            None, callback=callback, help=function.__doc__, params=[*params, json, trace], **settings
        )
        vars(command).update(attributes)
        return command

    return decorate


def option(
    spec: str,
    text: str,
    read: Callable[[str], Any] | Sequence[str] | None = None,
    *,
    name: str | None = None,
    joined: bool = False,
    **more: Any,
) -> click.Option:
    """An option of a command.

    Args:
        spec: spellings and metavar, as in the help: "--beams,--num-beams N"; without a metavar it is a flag.
        text: of the help.
        read: turns the text of the value into the value; or the values to choose from.
        name: of the parameter, where it is not the longest spelling.
        joined: the value is a list; those of an option that is repeated are joined.
        more: arguments of click.Option.
    """
    spellings, _, metavar = spec.partition(" ")
    if metavar:
        more["metavar"] = metavar
        more["type"] = Parsed(read) if callable(read) else click.Choice(read) if read else str
    else:
        more["is_flag"] = True
    if joined:
        more |= {
            "multiple": True,
            "callback": lambda ctx, param, lists: list(chain.from_iterable(lists)) or None,
        }
    declarations = [*spellings.split(","), *([] if name is None else [name])]
    return click.Option(declarations, help=text, **{"default": None, **more})


def grouped(title: str, *params: click.Parameter) -> list[click.Parameter]:
    """Copies of options in a group of the help."""
    copies = [copy(param) for param in params]
    for param in copies:
        vars(param)["group"] = title
    return copies


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


# --- values ----------------------------------------------------------------------------------------


def number(text: str) -> Any:
    """A number; "nan" and "inf" are numbers too."""
    return _converted(text, float, "a number")


def integer(text: str) -> Any:
    """An integer of any sign."""
    return _converted(text, int, "an integer")


def _converted(text: str, kind: Callable[[str], Any], description: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        hint = "; give one, for all prompts" if "," in text.strip(",") else ""
        raise ValueError(f"{text!r} is not {description}{hint}") from None


def positive(text: str) -> int:
    """An integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is not an integer of at least 1")
    return int(text)


def byte_size(text: str) -> int:
    """500MB -> 500,000,000; decimal units, as Hugging Face uses them."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?)B?", text.strip().upper())
    size = int(float(match[1]) * 1000 ** " KMGT".index(match[2] or " ")) if match else 0
    if size < 1:
        raise ValueError(f"{text!r} is not a size such as 500MB or 5GB")
    return size


def ids(text: str) -> list[int]:
    """Token ids: "1,2 3" -> [1, 2, 3]."""
    return [integer(part) for part in text.replace(",", " ").split()]


def sequences(text: str) -> list[tuple[int, ...]]:
    """Sequences of token ids, separated by commas: "1 2,3" -> [(1, 2), (3,)]."""
    try:
        return [tuple(ids(part)) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(f"{error}; minitx tokenize MODEL {text!r:.40} shows ids") from None


def sequence_biases(text: str) -> list[tuple[tuple[int, ...], float]]:
    """Biases of sequences: "1 2=-5,3=1" -> [((1, 2), -5), ((3,), 1)]."""
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(equals for _, equals, _ in pairs):
        raise ValueError(f"{text!r} is not of the form ID=BIAS, such as 464=-5")
    return [(tuple(ids(sequence)), number(bias)) for sequence, _, bias in pairs]


def biases(text: str) -> list[tuple[int, float]]:
    """Biases of single tokens: "1=-5,3=1" -> [(1, -5), (3, 1)]."""
    pairs = sequence_biases(text)
    if any(len(sequence) != 1 for sequence, _ in pairs):
        raise ValueError(f"{text!r} is not of the form ID=BIAS; sequences: --sequence-bias")
    return [(sequence[0], bias) for sequence, bias in pairs]


def start_and_factor(text: str) -> tuple[int, float]:
    """An integer and a number: "20,1.05" -> (20, 1.05)."""
    start, comma, factor = text.partition(",")
    if not comma:
        raise ValueError(f"{text!r} is not of the form START,FACTOR, such as 20,1.05")
    return integer(start), number(factor)


def switch(text: str) -> bool | str:
    """Reads true and false; other words stay: "true" -> True, "never" -> "never"."""
    return {"true": True, "false": False}.get(text.lower(), text)


# --- options of several commands -------------------------------------------------------------------

SOURCE = ("model", "revision", "token", "offline", "model_type", "dtype", "device")
DTYPES = ("float32", "float16", "bfloat16", "float64")
MODEL = Argument("model", "MODEL", "folder or Hub id")
HUB = [
    option("--revision NAME", "Hub branch, tag or commit (default: main)", default="main"),
    option("--token TOKEN", "Hub access token, for gated or private models"),
    option("--offline", "use only files on this machine", default=False),
    option("--model-type TYPE", "for a config.json without one, such as bert"),
]
HEAD = option("--head TASK", "such as masked-lm, or none (default: the checkpoint's)")
DTYPE = option("--dtype TYPE", f"{', '.join(DTYPES)} (default: as stored)", DTYPES)
DEVICE = option("--device NAME", "such as cuda (default: cpu)", default="cpu")
FILE = option("--file PATH", "a text file, one text per line")


def batch_size(size: int) -> click.Option:
    """How many texts are computed together."""
    return option("--batch-size N", f"texts per batch (default: {size})", positive, default=size)


def texts(name: str = "TEXT", text: str = "texts; none: lines of stdin") -> Argument:
    """Texts from the command line."""
    return Argument("texts", f"[{name} ...]", text, nargs=-1)
