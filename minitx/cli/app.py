"""The `minitx` command: a group whose commands are imported when they run, its errors and its exit codes.

Exit codes: 0 success, 1 a verification found a difference, 2 bad input, 130 interrupted, 141 the reader of
the output left, 143 terminated. Neither torch nor a command is imported here: `minitx --help` is quick.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from minitx import __version__
from minitx.cli.options import CONTEXT, Help, usage_message

SUCCESS, DIFFERENT, BAD_INPUT, INTERRUPTED, READER_LEFT, TERMINATED = 0, 1, 2, 130, 141, 143

# Name of a command and of its module in minitx.cli -> its line in `minitx --help`.
COMMANDS = {
    "demo": "sentences, vectors and a picture, with a real model",
    "inspect": "the modules of a model with shapes and sizes",
    "verify": "compare a checkpoint with transformers",
    "embed": "texts to vectors",
    "generate": "continue texts, translate, summarize",
    "chat": "a conversation with a chat model",
    "explain": "how the next token is chosen",
    "score": "how probable texts are",
    "tokenize": "texts to tokens and ids",
    "convert": "write a checkpoint as safetensors",
}


class App(Help, click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of all commands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Imports the command of that name; a usage error names the most similar one."""
        if cmd_name not in COMMANDS:
            similar = get_close_matches(cmd_name, COMMANDS, n=1)
            hint = f"did you mean {similar[0]}?" if similar else "minitx --help lists the commands"
            raise click.UsageError(f"there is no command {cmd_name}; {hint}", ctx)
        command: click.Command = import_module(f"minitx.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the table of commands."""
        with formatter.section("commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=App, context_settings=CONTEXT, options_metavar="COMMAND ...", subcommand_metavar="")
@click.version_option(__version__, message="minitx %(version)s", help="show the version and exit")
def app() -> None:
    """Real transformer checkpoints in small, readable PyTorch: look into them, check
    them against transformers, embed, continue, score and convert.

    examples:
      minitx demo                           sentences, vectors, a picture
      minitx inspect bert-base-uncased      every module with its shape and size
      minitx verify ./my-model              does transformers compute the same?
      minitx embed ./my-model "one" "two"   how similar are they?
      minitx generate gpt2 "Once upon"      continue a text, token by token
      minitx chat ./my-chat-model           talk to a model
      minitx explain gpt2 "Once upon"       how the next token is chosen
      minitx score gpt2 "Once upon a time"  how probable is the text?
      minitx tokenize gpt2 "Once upon"      the tokens of a text
      minitx convert ./old ./new            pytorch_model.bin to safetensors

    MODEL is a folder with config.json and weights, or a Hugging Face Hub id.
    minitx COMMAND --help explains each command.
    """


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
    stopped: list[int] = []
    try:
        with signals(stopped), clean_warnings():
            try:
                with app.make_context("minitx", arguments or ["--help"]) as ctx:
                    code: int | None = app.invoke(ctx)
            except click.exceptions.Exit as leaving:  # --help, --version
                code = leaving.exit_code
            sys.stdout.flush()
        return code or SUCCESS
    except click.UsageError as error:
        ctx = error.ctx or click.Context(app, info_name="minitx")
        print(f"{ctx.get_usage()}\n{ctx.command_path}: error: {usage_message(error)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return interrupted(stopped)
    except BrokenPipeError:
        # Whatever Python still flushes at exit goes nowhere.
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return READER_LEFT
    except Exception as error:
        if stopped:  # some imports turn an interruption into another error
            return interrupted(stopped)
        if "--traceback" in arguments or os.environ.get("MINITX_TRACEBACK"):
            traceback.print_exc()
        complain(f"error: {readable(error)}")
        return BAD_INPUT


def interrupted(stopped: list[int]) -> int:
    """Reports the signal that ended the command and returns its exit code."""
    terminated = signal.SIGTERM in stopped
    complain("terminated" if terminated else "interrupted")
    return TERMINATED if terminated else INTERRUPTED


def mend_streams() -> None:
    """Opens streams that the shell closed (`>&-`), and escapes characters that their encodings lack."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, for good
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def signals(stopped: list[int]) -> Iterator[None]:
    """Raises KeyboardInterrupt at Ctrl-C and SIGTERM, so that temporary files go; records which it was."""

    def stop(number: int, frame: object) -> None:
        stopped.append(number)
        raise KeyboardInterrupt(number)

    before = {}
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        # A signal that the caller ignores or handles stays so; only the main thread may set handlers.
        if signal.getsignal(number) == usual and threading.current_thread() is threading.main_thread():
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def readable(error: Exception) -> str:
    """The message of a foreseen error on one line; of any other also its class, and how to see more."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    if text and isinstance(error, ValueError | TypeError | ImportError | OSError):
        return text
    kind = type(error).__name__
    return f"{kind}: {text} (--traceback shows where)" if text else f"{kind} (--traceback shows where)"


def complain(message: str) -> None:
    """Prints a line on stderr."""
    print(f"minitx: {message}", file=sys.stderr)


@contextmanager
def clean_warnings() -> Iterator[None]:
    """Shows a warning for users as one line on stderr, and hides those that libraries have for developers."""

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        complain(f"warning: {' '.join(str(message).split())}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("default", UserWarning)
        # from torch where numpy is not installed; only .npy files need it
        warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
        warnings.showwarning = show
        yield
