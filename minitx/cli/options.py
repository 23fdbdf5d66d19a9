"""Help and mistakes of commands, the options that several of them share, and the types of options' values.

Nothing heavy is imported here, so that --help is quick.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from functools import update_wrapper
from itertools import chain
from typing import Any

import click

from minitx.cli.source import Source

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 80}
DTYPES = ("float32", "float16", "bfloat16", "float64")


class Help(click.Command):
    """Help as written in the docstring: its text first, its examples last; options in titled groups between.

    Attributes:
        notes: paragraph of a group of options, by its title.
    """

    notes: dict[str, str] = {}  # noqa: RUF012 - replaced, never changed

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the usage line."""
        formatter.write_usage(ctx.command_path, " ".join(self.collect_usage_pieces(ctx)), "usage: ")

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Returns the arguments, then the options."""
        return [*super().collect_usage_pieces(ctx)[1:], self.options_metavar or ""]

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the docstring up to the examples."""
        formatter.write(f"\n{self._parts()[0]}\n")

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the examples, and whatever follows them in the docstring."""
        formatter.write("\n".join(["", *self._parts()[1:], ""]))

    def format_arguments(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Leaves arguments to `format_options`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes arguments and options by their groups."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(param, "group", "options"), []).append(record)
        for title in sorted(groups, key=["arguments", "options"].__contains__, reverse=True):
            formatter.write(f"\n{title}:\n")
            formatter.write("".join(f"  {line}\n" for line in self.notes.get(title, "").splitlines()))
            with formatter.indentation():
                formatter.write_dl(groups[title], col_max=24)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)

    def _parts(self) -> tuple[str, ...]:
        text, mark, examples = inspect.cleandoc(self.help or "").partition("\n\nexamples:\n")
        return (text, mark.strip() + "\n" + examples) if mark else (text,)


class Command(Help):
    """A command whose mistakes name options.

    Attributes:
        elsewhere: hint for an option that the command lacks, by its name.
    """

    elsewhere: dict[str, str] = {}  # noqa: RUF012 - replaced, never changed

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; an error about one of its parameters names the option."""
        try:
            return super().invoke(ctx)
        except (TypeError, ValueError) as error:
            if not hasattr(error, "requirement"):
                raise
            raise ValueError(self.in_options(error)) from error

    def in_options(self, error: Any) -> str:
        """An `ArgumentError` as "--top-p 2.0 must be in (0, 1]; hint."."""
        name, bracket, key = error.parameter.partition("[")
        option = self.option_of(name)
        if option is None:
            return str(error)
        from minitx.validation import shorten

        value = error.value if isinstance(error.value, str) else shorten(error.value)
        given = "" if error.value in (None, True) else f" {value}"
        return f"{option}{bracket}{key}{given} must be {error.requirement}"

    def option_of(self, parameter: str) -> str | None:
        """The first spelling of the option of a parameter; None if the command has none."""
        options = (param for param in self.params if isinstance(param, click.Option))
        return next((option.opts[0] for option in options if option.name == parameter), None)


class Option(click.Option):
    """An option in a group of the help."""

    def __init__(self, *args: Any, group: str = "options", **more: Any) -> None:
        super().__init__(*args, **more)
        self.group = group


class Argument(click.Argument):
    """An argument with a line in the help."""

    group = "arguments"

    def __init__(self, *args: Any, text: str, **more: Any) -> None:
        super().__init__(*args, **more)
        self.text = text

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """Returns the name and the line."""
        return self.human_readable_name, self.text


def usage_message(error: click.UsageError) -> str:
    """The message of a usage error, with the option or hint that may help."""
    command = None if error.ctx is None else error.ctx.command
    if isinstance(error, click.NoSuchOption) and command is not None:
        option, known = error.option_name, [name for param in command.params for name in param.opts]
        hint = getattr(command, "elsewhere", {}).get(option)
        longer = [name for name in known if name.startswith(option) and len(option) > 3]
        similar = longer or get_close_matches(option, [name for name in known if name[:2] == "--"], n=1)
        hint = hint or (f"did you mean {similar[0]}?" if similar else "--help lists the options")
        return f"there is no option {option}; {hint}"
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return f"{error.param.human_readable_name} is missing"
    if isinstance(error, click.BadParameter) and error.param is not None:
        return f"{error.param.opts[0]}: {error.message}"
    message = error.format_message().rstrip(".")
    return message[:1].lower() + message[1:]


def as_command(*params: click.Parameter, **attributes: Any) -> Callable[[Callable[..., Any]], Command]:
    """Makes a function a command: its docstring is the help, its parameters are named as the options'.

    Args:
        params: arguments and options in the order of the help; `SOURCE` and the like are lists of them.
        attributes: of the command: `notes`, `elsewhere`.
    """

    def decorate(function: Callable[..., Any]) -> Command:
        common = [
            Option(["--json"], is_flag=True, help="machine-readable output, and nothing else"),
            Option(["--traceback"], is_flag=True, expose_value=False, help="show where in the code an error arose"),
        ]

        def run(model: str | None, revision: str, token: str | None, offline: bool, **values: Any) -> Any:
            own = {name: values.pop(name) for name in ("model_type", "dtype", "device") if name in values}
            source = Source(model, revision, token, offline, quiet=values["json"], **own)
            return function(source, **values)

        made = Command(
            None,
            callback=update_wrapper(run, function),
            help=function.__doc__,
            params=[*params, *common],
            context_settings=CONTEXT,
            options_metavar="[options]",
        )
        for name, value in attributes.items():
            setattr(made, name, value)
        return made

    return decorate


# --- shared options --------------------------------------------------------------------------------


def model_argument(name: str = "MODEL", text: str = "folder or Hub id", **more: Any) -> Argument:
    """The argument that names the model."""
    return Argument(["model"], metavar=name, text=text, **more)


def text_options(name: str, text: str) -> list[click.Parameter]:
    """Texts from the command line, a file or stdin."""
    return [
        Argument(["texts"], nargs=-1, metavar=name, text=text),
        Option(["--file"], metavar="PATH", help=f"a text file, one {name.lower()} per line"),
    ]


def source_options(group: str = "the model") -> list[click.Parameter]:
    """Where a model comes from."""
    return [
        Option(["--revision"], default="main", metavar="NAME", help="Hub branch, tag or commit (default: main)", group=group),
        Option(["--token"], metavar="TOKEN", help="Hub access token, for gated or private models", group=group),
        Option(["--offline"], is_flag=True, help="use only files on this machine", group=group),
        Option(["--model-type"], metavar="TYPE", help="for a config.json without one, such as bert", group=group),
    ]


def head_option(group: str = "the model") -> Option:
    """Which head is loaded."""
    return Option(["--head"], metavar="TASK", help="such as masked-lm, or none (default: the checkpoint's)", group=group)


def dtype_option(group: str = "the model") -> Option:
    """The dtype of the weights."""
    kinds = click.Choice(DTYPES)
    return Option(["--dtype"], type=kinds, metavar="TYPE", help=f"{', '.join(DTYPES)} (default: as stored)", group=group)


def device_option(group: str = "the model") -> Option:
    """The device of the model."""
    return Option(["--device"], default="cpu", metavar="NAME", help="such as cuda (default: cpu)", group=group)


# --- types of values -------------------------------------------------------------------------------


class Parsed(click.ParamType):
    """A type whose values a function reads; the message of its ValueError is that of the mistake."""

    name = "text"

    def __init__(self, read: Callable[[str], Any]) -> None:
        self.read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Reads a text; a default is a value already."""
        if not isinstance(value, str):
            return value
        try:
            return self.read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def number(text: str) -> float:
    """A number; "nan" and "inf" are numbers too."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number{_one_for_all(text)}") from None


def integer(text: str) -> int:
    """An integer of any sign."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an integer{_one_for_all(text)}") from None


def _one_for_all(text: str) -> str:
    return "; give one, for all prompts" if "," in text.strip(",") else ""


def positive(text: str) -> int:
    """An integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is not an integer of at least 1")
    return int(text)


def byte_size(text: str) -> int:
    """500MB -> 500,000,000; decimal units, as Hugging Face uses them."""
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "B": 1}
    plain = text.strip().upper()
    unit = next((unit for unit in units if plain.endswith(unit)), "")
    try:
        size = int(float(plain.removesuffix(unit)) * units.get(unit, 1))
    except (ValueError, OverflowError):
        size = 0
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
    for sequence, equals, bias in pairs:
        if not equals:
            raise ValueError(f"{sequence!r} is not of the form ID=BIAS, such as 464=-5")
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


def switch(text: str) -> bool:
    """ "true" or "false"."""
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def word_or_switch(text: str) -> bool | str:
    """ "true" -> True, "never" -> "never"."""
    return {"true": True, "false": False}.get(text.lower(), text)


def joined(ctx: click.Context, param: click.Parameter, values: tuple[list[Any], ...]) -> list[Any] | None:
    """Callback that joins the lists of an option that is given several times."""
    return list(chain.from_iterable(values)) or None
