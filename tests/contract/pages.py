"""Run the code of a page of the documentation and compare what it prints.

Blocks of one page run in order, in one namespace, in one folder:

- ```` ```python ```` is executed. A ```` ```text title="Output" ```` block after it is what it prints.
- ```` ```console ```` runs each `$ minitx ...` line; the lines below it are what that prints.
- A block after `<!-- not run: reason -->` is compiled only.

Fractions differ from processor to processor, so that only words and integers are compared. A line `...`
stands for any output. `python -m tests.contract.pages --update [PAGE ...]` writes the outputs into the pages.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shlex
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
EXAMPLES = ("cats", "news", "sentiment", "translator")
GGUF = "tiny-decoder-q8_0.gguf"
# Checkpoints that are not at hand offline; the code runs on a small model of the same kind.
STAND_INS = {
    "gpt2": "cats",
    "Helsinki-NLP/opus-mt-en-fr": "translator",
    "distilbert/distilbert-base-uncased-finetuned-sst-2-english": "sentiment",
}
FENCE = re.compile(
    r"(?P<before>[^\n]*\n)(?P<indent> *)```(?P<kind>\w+)(?P<options>[^\n]*)\n(?P<code>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
OUTPUT = 'title="Output"'
NOT_RUN = "<!-- not run:"


@dataclass
class Block:
    """One fenced block: its kind, its code without indentation, and where the code is on the page."""

    kind: str
    options: str
    code: str
    indent: str
    start: int
    end: int
    skipped: bool

    @property
    def is_output(self) -> bool:
        """Whether it shows what the block before it prints."""
        return self.kind == "text" and OUTPUT in self.options


def pages() -> list[Path]:
    """Every page with code: README.md and docs/."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path for path in found if re.search(r"^ *```(python|console)", path.read_text(), re.MULTILINE)]


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [
        Block(
            kind=match["kind"],
            options=match["options"],
            code=textwrap.dedent(match["code"]),
            indent=match["indent"],
            start=match.start("code"),
            end=match.end("code"),
            skipped=NOT_RUN in match["before"],
        )
        for match in FENCE.finditer("\n" + text)
    ]


def train_examples(folder: Path) -> None:
    """Run docs/examples in `folder`: the models that the pages load, and a GGUF file."""
    with working_in(folder), warnings.catch_warnings():
        for name in (*EXAMPLES, "tiny_decoder_gguf"):
            runpy.run_path(str(ROOT / "docs" / "examples" / f"{name}.py"))


def furnish(folder: Path, examples: Path) -> None:
    """Put into `folder` the models and the text that the pages name; a folder is preferred to the Hub."""
    from tests.real import MINILM

    models = {"sentence-transformers/all-MiniLM-L6-v2": MINILM}
    models |= {name: examples / name for name in (*EXAMPLES, GGUF)}
    models |= {stand_in: examples / name for stand_in, name in STAND_INS.items()}
    models["prose.txt"] = ROOT / "docs" / "examples" / "prose.txt"
    for name, target in models.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(target)


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Change the working directory for a while."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run_page(path: Path, folder: Path) -> Iterator[tuple[Block, str]]:
    """Run a page in `folder`.

    Yields:
        Each block that shows output, with what its code printed; of console blocks, with the commands.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    with working_in(folder):
        for block in blocks(path.read_text()):
            if block.is_output:
                yield block, printed
            elif block.kind == "python":
                name = f"{path.name}: {block.code.splitlines()[0]}"
                code = compile(block.code, name, "exec", dont_inherit=True)
                if not block.skipped:
                    printed = captured(lambda code=code: exec(code, namespace))
            elif block.kind == "console" and not block.skipped:
                yield block, "".join(map(console, commands(block.code)))


def captured(call: Any) -> str:
    """What a call prints to stdout."""
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        call()
    return stream.getvalue()


def commands(code: str) -> list[str]:
    """The lines of a console block that begin with `$ `, continuation lines joined."""
    joined = re.sub(r"\\\n *", "", code)
    return [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]


def console(command: str) -> str:
    """Run one minitx command in this process; what a terminal would show."""
    from minitx.cli.app import main

    program, *arguments = shlex.split(command, comments=True)
    if program != "minitx":
        return f"$ {command}\n"
    stdin, sys.stdin = sys.stdin, io.StringIO()
    try:
        codes: list[int] = []
        printed = captured(lambda: codes.append(main(arguments)))
    finally:
        sys.stdin = stdin
    assert codes == [0] or "--expect-difference" in command, f"$ {command}: exit code {codes}\n{printed}"
    return f"$ {command}\n{printed}"


def agrees(shown: str, printed: str) -> bool:
    """Whether a page shows what was printed, fractions aside; a line `...` stands for any output."""
    pieces = [words(piece) for piece in re.split(r"^ *\.\.\. *$", shown, flags=re.MULTILINE)]
    pattern = r"(?: \S+)*?".join("".join(f" {re.escape(word)}" for word in piece) for piece in pieces)
    return re.fullmatch(pattern, "".join(f" {word}" for word in words(printed))) is not None


def words(text: str) -> list[str]:
    """The words and integers of a text, without fractions, zeros, bars and punctuation."""
    plain = re.sub(r"[-+]?\d*\.\d+(e[-+]?\d+)?", "", re.sub(r"\\\n *", "", text))
    return re.findall(r"[^\W\d_]+|[1-9]\d*", plain)


def update(path: Path, folder: Path) -> bool:
    """Write what the blocks print into a page, where it differs; True if something did."""
    text, shift = path.read_text(), -1  # blocks() counts from a newline before the text
    changed = False
    for block, printed in run_page(path, folder):
        if agrees(block.code, printed):
            continue
        lines = (line.rstrip() for line in printed.strip("\n").splitlines())
        new = textwrap.indent("\n".join(lines), block.indent)
        text = text[: block.start + shift] + new + "\n" + text[block.end + shift :]
        shift += len(new) + 1 - (block.end - block.start)
        changed = True
    path.write_text(text)
    return changed


def main(arguments: list[str]) -> None:
    """Update the pages named, or all of them."""
    chosen = [Path(name).resolve() for name in arguments if name != "--update"] or pages()
    with tempfile.TemporaryDirectory() as name:
        examples = Path(name) / "examples"
        examples.mkdir()
        train_examples(examples)
        for number, path in enumerate(chosen):
            folder = Path(name) / str(number)
            folder.mkdir()
            furnish(folder, examples)
            if update(path, folder):
                print(path.relative_to(ROOT))


if __name__ == "__main__":
    main(sys.argv[1:])
