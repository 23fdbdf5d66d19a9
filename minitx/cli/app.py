"""The `minitx` command: a group whose commands are imported when they run, its errors and its exit codes.

Exit codes: 0 success, 1 a verification found a difference, 2 bad input, 129 the terminal was closed, 130
interrupted, 141 the reader of the output left, 143 terminated. Neither torch nor a command is imported here:
`minitx --help` is quick.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from minitx.cli.options import CONTEXT, Help, section, spelled, unknown, usage_message
from minitx.cli.render import note, show
from minitx.signals import CODES, INTERRUPT, WORDS, signals
from minitx.terminal import mend_streams, readable
from minitx.version import __version__

SUCCESS, DIFFERENT, BAD_INPUT, READER_LEFT = 0, 1, 2, 141

# Modules in minitx.cli of the commands that have no file of their own.
MODULES = dict.fromkeys(("inspect", "verify", "convert"), "checkpoint") | {"explain": "generate"}
MODULES |= dict.fromkeys(("embed", "score", "tokenize"), "texts") | {"models": "demo"}
MODULES |= dict.fromkeys(("run", "pipelines"), "tasks.run")
MODULES |= {"picture": "inside.picture"} | dict.fromkeys(("trace", "estimate"), "inside.trace")
MODULES |= dict.fromkeys(("view", "lab"), "inside.view")
MODULES |= {"strategies": "strategies.catalogue", "compare": "strategies.compare"}
MODULES |= dict.fromkeys(("answer", "infill"), "strategies.answer")
MODULES |= dict.fromkeys(("fill", "detect"), "strategies.fill")


class App(Help, click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context | None = None) -> list[str]:
        """Returns the names of all commands, in the order of the help."""
        return re.findall(r"^  (\w+)  ", self.help or "", re.MULTILINE)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Imports the command of that name; a usage error names the most similar one."""
        if cmd_name not in self.list_commands():
            raise unknown("command", cmd_name, self.list_commands(), "minitx", ctx)
        module = import_module(f"minitx.cli.{MODULES.get(cmd_name, cmd_name)}")
        command: click.Command = getattr(module, cmd_name)
        return command


@click.command(cls=App, context_settings=CONTEXT, options_metavar="COMMAND ...", subcommand_metavar="")
@click.version_option(__version__, message="minitx %(version)s", help="show the version and exit")
def app() -> None:
    """Lists the commands, or runs one of them."""


app.help = section("minitx")[0]


# --- running ---------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments; None takes those of the process.

    Returns:
        The exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    mend_streams()
    with signals() as stopped:
        try:
            code = run(arguments)
        except KeyboardInterrupt:
            stopped = stopped or [INTERRUPT]
        except Exception as error:  # some code changes an interruption into another error
            code = BAD_INPUT if stopped else explained(error, arguments)
        if stopped:  # also where something caught the interruption
            note(WORDS[stopped[-1]])
            return CODES[stopped[-1]]
    return code


def run(arguments: list[str]) -> int:
    """Runs one command; returns its exit code, or raises an error."""
    with clean_warnings():
        try:
            with app.make_context("minitx", arguments or ["--help"]) as ctx:
                code: int | None = app.invoke(ctx)
        except click.exceptions.Exit as leaving:  # --help, --version
            code = leaving.exit_code
        sys.stdout.flush()
    return code or SUCCESS


def explained(error: Exception, arguments: list[str]) -> int:
    """Prints an error; returns the exit code."""
    if isinstance(error, click.UsageError):
        ctx = error.ctx or click.Context(app, info_name="minitx")
        show(ctx.get_usage(), file=sys.stderr)
        note(f"error: {usage_message(error)}", ctx.command_path)
        return BAD_INPUT
    if isinstance(error, BrokenPipeError):
        # Whatever Python still flushes at exit goes nowhere.
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return READER_LEFT
    if "--traceback" in arguments or os.environ.get("MINITX_TRACEBACK"):
        show("".join(traceback.format_exception(error)), end="", file=sys.stderr)
    note(f"error: {readable(error)}")
    for remark in getattr(error, "__notes__", ()):
        note(remark)
    return BAD_INPUT


@contextmanager
def clean_warnings() -> Iterator[None]:
    """Shows a warning for users as one line on stderr, and hides those that libraries have for developers."""

    def _show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        ctx = click.get_current_context(silent=True)
        params = ctx.command.params if ctx else []
        options = {str(param.name): param.opts[0] for param in params if param.opts[0][0] == "-"}
        note(f"warning: {spelled(' '.join(str(message).split()), options)}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("default", UserWarning)
        # from torch where numpy is not installed; only .npy files need it
        warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
        warnings.showwarning = _show
        yield
