"""Small checkpoints that are part of the package: "minitx/tiny-encoder" and its siblings, without a network.

Each lies in a folder of its own beside this file, in Hugging Face's layout, with a model card as README.md.
scripts/train_tiny.py makes them. Their names begin with "minitx/" and are never looked up on the Hub.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

FOLDER = Path(__file__).parent
PREFIX = "minitx/"
WEIGHTS, CARD = "model.safetensors", "README.md"


@dataclass(frozen=True)
class ShippedModel:
    """A checkpoint that is part of the package.

    Attributes:
        name: such as "minitx/tiny-encoder".
        task: of `minitx.pipeline`.
        command: an example on the command line.
    """

    name: str
    task: str
    command: str

    @property
    def folder(self) -> Path:
        """The folder of its files; FileNotFoundError where minitx runs from a zip archive."""
        return shipped_folder(self.name)

    def license(self) -> str:
        """Returns the licence that the model card states, by its identifier."""
        card = (self.folder / CARD).read_text("utf-8")
        found = re.search(r"\A---\n.*?^license: *(\S+)$.*?^---$", card, re.MULTILINE | re.DOTALL)
        if found is None:
            raise ValueError(f"{self.folder / CARD} states no license in its front matter.")
        return found[1]

    def num_bytes(self) -> int:
        """Returns the size of its files."""
        return sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())

    def num_parameters(self) -> int:
        """Returns the number of entries of its tensors; those that are shared are stored once."""
        from safetensors import safe_open

        with safe_open(self.folder / WEIGHTS, "pt") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
        return sum(_product(shape) for shape in shapes)


def _product(shape: list[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


SHIPPED = (
    ShippedModel(
        "minitx/tiny-encoder", "fill-mask", 'minitx run fill-mask minitx/tiny-encoder "The king of [MASK]."'
    ),
    ShippedModel(
        "minitx/tiny-classifier",
        "text-classification",
        'minitx run sentiment-analysis minitx/tiny-classifier "I love this."',
    ),
    ShippedModel(
        "minitx/tiny-ner", "token-classification", 'minitx run ner minitx/tiny-ner "Emma travelled to Paris."'
    ),
    ShippedModel(
        "minitx/tiny-qa",
        "question-answering",
        'minitx run question-answering minitx/tiny-qa "Capital?" --context "The capital of Peru is Lima."',
    ),
    ShippedModel("minitx/tiny-decoder", "text-generation", 'minitx generate minitx/tiny-decoder "It was a"'),
    ShippedModel("minitx/tiny-instruct", "text-generation", "minitx chat minitx/tiny-instruct"),
    ShippedModel(
        "minitx/tiny-seq2seq", "text2text-generation", 'minitx generate minitx/tiny-seq2seq "hello" --beams 4'
    ),
)
NAMES = tuple(model.name for model in SHIPPED)


def is_shipped_name(name: str | Path) -> bool:
    """Whether a name begins with "minitx/", in any case: it is one of this package or a slip in one."""
    return isinstance(name, str) and name.lower().startswith(PREFIX)


def _similar_name(name: str) -> str | None:
    """Returns the name that begins with a lower-case one, or else the most similar one; None without any."""
    begun = [other for other in NAMES if other.startswith(name)] if len(name) > len(f"{PREFIX}tiny-") else []
    return next(iter(begun or get_close_matches(name, NAMES, n=1, cutoff=0.8)), None)


def shipped_folder(name: str, revision: str = "main") -> Path:
    """Returns the folder of a checkpoint that is part of the package.

    Args:
        name: such as "minitx/tiny-encoder".
        revision: "main"; a checkpoint of the package has the version of the package.

    Raises:
        FileNotFoundError: no such name, or minitx runs from a zip archive.
        ArgumentTypeError: no str.
        ArgumentValueError: another revision.
    """
    from minitx.validation import ArgumentValueError, check_strings  # which imports torch

    check_strings(name=name, revision=revision)
    if name not in NAMES:
        hint = f" Did you mean {similar}?" if (similar := _similar_name(name.lower())) else ""
        raise FileNotFoundError(f"{name!r} does not ship with minitx, which has {', '.join(NAMES)}.{hint}")
    if revision != "main":
        hint = f"{name} ships with minitx and has the version of the package"
        raise ArgumentValueError("revision", revision, "'main'", hint)
    folder = FOLDER / name.removeprefix(PREFIX)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}; {name} needs an installation with pip, not a zip archive."
        )
    return folder


def shipped_name(folder: Path) -> str | None:
    """Returns the name of a folder of this package; None for another folder."""
    folder = folder.resolve()
    name = PREFIX + folder.name
    return name if folder.parent == FOLDER.resolve() and name in NAMES else None


def check_not_shipped(folder: Path) -> None:
    """Checks that a folder to write to is none of this package, else raises ArgumentValueError."""
    from minitx.validation import ArgumentValueError

    if folder.resolve().is_relative_to(FOLDER.resolve()):
        expected = "outside of the installed package, whose checkpoints stay as they are"
        raise ArgumentValueError("folder", str(folder), expected, "save to another folder")
