"""What several commands print and write."""

from __future__ import annotations

import codecs
import json
import os
import sys
import textwrap
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from minitx.io import read_json

if TYPE_CHECKING:
    from minitx.architectures.declaration import Architecture
    from minitx.tokenizer import Tokenizer

WIDTH = 80
MOST_COLUMNS = 10  # texts whose similarities fit beside a readable part of each text


def source_of(args: Namespace) -> Path:
    """The model's folder; fetched from the Hub if it is not here."""
    from minitx.checkpoint.hub import fetch

    calm_hub(args)
    return fetch(args.model, revision=args.revision, token=args.token, offline=args.offline)


def calm_hub(args: Namespace) -> None:
    """The Hub client's own progress bars follow the rule of ours: at a terminal, and not with --json."""
    if (args.json or not sys.stderr.isatty()) and not Path(args.model).is_dir():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns where HF_HUB_DISABLE_PROGRESS_BARS=0 overrules this
            import_module("huggingface_hub.utils").disable_progress_bars()


def architecture_of(args: Namespace, folder: Path) -> Architecture | None:
    """The architecture of a folder; None without a config.json, and loading says so."""
    from minitx.checkpoint.build import choose_architecture

    path = folder / "config.json"
    return choose_architecture(read_json(path), args.model_type)[0] if path.is_file() else None


def tokenizer_of(args: Namespace, folder: Path) -> Tokenizer:
    """The tokenizer beside the model: in its folder, or of the same Hub repository."""
    from minitx.tokenizer import load_tokenizer

    name = folder if args.model is None else args.model
    return load_tokenizer(
        name,
        revision=args.revision,
        token=args.token,
        offline=args.offline,
        model_type=getattr(args, "model_type", None),
    )


def read_texts(args: Namespace) -> list[str]:
    """The texts of the command line, of --file, or of stdin: line i is text i, also if it is empty.

    Raises:
        ValueError: none at all, two sources at once, or not UTF-8.
    """
    if args.texts and args.file is not None:
        raise ValueError("texts are given both on the command line and by --file; give one of them.")
    if args.texts:
        return list(args.texts)
    if args.file is None and sys.stdin.isatty():
        raise ValueError("no text: give texts after the model, or --file, or lines on stdin.")
    try:
        content = stdin() if args.file is None else Path(args.file).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{args.file or 'stdin'}: not UTF-8 text ({error}).") from None
    if not content.strip():
        raise ValueError(f"{args.file or 'stdin'} holds no text.")
    # Only "\n" ends a line, as for other tools; str.splitlines also cuts at form feeds and U+2028.
    return [line.removesuffix("\r") for line in content.removesuffix("\n").split("\n")]


def stdin() -> str:
    binary = getattr(sys.stdin, "buffer", None)  # a stream that was put in its place may have none
    return sys.stdin.read() if binary is None else str(binary.read(), "utf-8-sig")


def dtype_of(args: Namespace) -> torch.dtype | None:
    found: torch.dtype | None = None if args.dtype is None else getattr(torch, args.dtype)
    return found


def device_of(args: Namespace) -> str:
    """The device, once a tensor has been put there.

    Raises:
        ValueError: this machine, or this build of PyTorch, has no such device.
    """
    try:
        torch.empty(1, device=args.device)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"--device {args.device}: cannot be used here ({reason}).") from None
    device: str = args.device
    return device


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """In an encoding that lacks characters, with escapes that JSON knows; without indent on one line."""
    named = getattr(sys.stdout, "encoding", None) or "utf-8"
    escape = codecs.lookup(named).name != "utf-8"
    print(json.dumps(value, indent=indent, ensure_ascii=escape, allow_nan=False), flush=True)


def check_finite(vectors: Tensor) -> None:
    """
    Raises:
        ValueError: a NaN or an infinity in the (N, E) vectors; names the first text that has one.
    """
    bad = (~vectors.isfinite().all(dim=1)).nonzero()
    if len(bad):
        raise ValueError(
            f"text {int(bad[0])} (from 0) has no finite vector; the weights may hold NaN: "
            "see minitx inspect and minitx verify."
        )


def note(text: str) -> None:
    """A line beside the output."""
    print(f"minitx: {text}", file=sys.stderr)


def say(text: str) -> None:
    """A paragraph of at most 80 columns."""
    print(textwrap.fill(text, WIDTH - 1, break_long_words=False, break_on_hyphens=False))


@contextmanager
def bar(total: int, what: str, unit: str, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, at a terminal only; yields what to call with each advance."""
    if quiet or not sys.stderr.isatty():
        yield lambda advance: None
        return
    from tqdm import tqdm

    scaled = unit == "B"
    with tqdm(total=total, desc=what, unit=unit, unit_scale=scaled, ncols=WIDTH, leave=False) as shown:

        def advance(by: int) -> None:
            shown.update(by)

        yield advance


def similarity_table(texts: Sequence[str], similarity: Tensor) -> str:
    """(N, N) similarities in 80 columns: a numbered text and a number per column, the nearest marked."""
    size = len(texts)
    room = min(WIDTH - 5 - 5 * size, max(len(shorten(text, WIDTH)) for text in texts))
    best = nearest(similarity)
    lines = [" " * (room + 5) + "".join(f"{i:>5}" for i in range(1, size + 1))]
    for i, text in enumerate(texts):
        line = shorten(text, room)
        values = similarity[i].tolist()
        cells = "".join(cell(value, i == j, best[i] == j) for j, value in enumerate(values))
        lines.append(f"{i + 1:>3}  {line:<{room}}{cells}".rstrip())
    return "\n".join(lines)


def cell(value: float, same: bool, best: bool) -> str:
    """Five columns: " .60", "-.04"; the similarity of a text to itself says nothing."""
    if same:
        return "    ·"
    text = f"{round(value, 2) + 0.0:.2f}".replace("0.", ".", 1).rjust(5)  # + 0.0: no "-.00"
    colored = best and sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return f"\033[1;32m{text}\033[0m" if colored else text


def nearest(similarity: Tensor) -> list[int]:
    """The most similar other text of each; of a single text, itself."""
    others = similarity.clone().fill_diagonal_(float("-inf"))
    found: list[int] = others.argmax(dim=1).tolist()
    return found


def shorten(text: str, room: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= room else line[: room - 1].rstrip() + "…"
