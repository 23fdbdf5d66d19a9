"""The options that several commands take, and the kinds of values that options have.

Nothing heavy is imported here, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import shutil
from typing import Any, NoReturn

DTYPES = ("float32", "float16", "bfloat16", "float64")


class Help(argparse.RawDescriptionHelpFormatter):
    """Texts as they are written, options within 80 columns."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=min(80, shutil.get_terminal_size().columns))


class Parser(argparse.ArgumentParser):
    """Says how to give a value that looks like an option."""

    def error(self, message: str) -> NoReturn:
        if message.endswith(": expected one argument"):
            option = message.removeprefix("argument ").partition(":")[0]
            message += f" (one that begins with - follows a =: {option}=-...)"
        super().error(message)


def command(
    commands: Any, name: str, short: str, description: str, epilog: str = ""
) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=short, description=description, epilog=epilog, formatter_class=Help, allow_abbrev=False
    )
    made.add_argument("--json", action="store_true", help="machine-readable output, and nothing else")
    made.add_argument("--traceback", action="store_true", help="show where in the code an error arose")
    made.set_defaults(parser=made)  # for errors that are found later
    return made


def source_options(to: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Where a model comes from."""
    to.add_argument("--revision", default="main", help="Hub branch, tag or commit (default: %(default)s)")
    to.add_argument("--token", help="Hub access token, for gated or private models")
    to.add_argument("--offline", action="store_true", help="use only what is on this machine")


def model_options(
    to: argparse.ArgumentParser | argparse._ArgumentGroup, *, head: bool = True, dtype: bool = True
) -> None:
    """How a model is read."""
    to.add_argument("--model-type", metavar="TYPE", help="for a config.json that has none, such as bert")
    if head:
        to.add_argument("--head", metavar="TASK", help="such as masked-lm, or none (default: the file's own)")
    if dtype:
        to.add_argument("--dtype", choices=DTYPES, help="of the weights (default: as in the file)")


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def byte_size(text: str) -> int:
    """500MB -> 500,000,000; decimal units, as Hugging Face counts."""
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "B": 1}
    number, factor = text.strip().upper(), 1
    for unit, size in units.items():
        if number.endswith(unit):
            number, factor = number.removesuffix(unit), size
            break
    try:
        size = int(float(number) * factor)
    except (ValueError, OverflowError):
        size = 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 500MB or 5GB")
    return size
