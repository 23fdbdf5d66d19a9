"""UTF-8 text files as the data of a run.

Text can be larger than memory: `Texts` reads a document at a time, and begins anew with each iteration. An
error names file and line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from minitx.readers import check_exists, read_lines
from minitx.training.data.split import check_split, share
from minitx.validation import ArgumentValueError, check_choice, check_path

Documents = Literal["paragraphs", "lines", "files"]


@dataclass(frozen=True)
class _Part:
    """One side of a split: the documents whose share of the hash is below the fraction, or the others."""

    fraction: float
    seed: int
    is_validation: bool

    def __contains__(self, index: int) -> bool:
        return (share(self.seed, index) < self.fraction) == self.is_validation


@dataclass(frozen=True)
class Texts:
    """The documents of text files, from `read_texts`. Each iteration reads the files anew.

    Attributes:
        paths: the files, in the order in which they are read.
        documents: what separates documents.
    """

    paths: tuple[Path, ...]
    documents: Documents = "paragraphs"
    _parts: tuple[_Part, ...] = ()

    def __iter__(self) -> Iterator[str]:
        """Yields the documents.

        Raises:
            ValueError: as `read_lines`, or files without a document.
        """
        index = -1
        for index, document in enumerate(self._all()):
            if all(index in part for part in self._parts):
                yield document
        if index < 0:
            raise ValueError(f"{', '.join(map(str, self.paths))}: only white space; there is no text in it.")

    def _all(self) -> Iterator[str]:
        for path in self.paths:
            paragraph: list[str] = []
            for _, line in read_lines(path):
                is_blank = not line.strip()
                if self.documents == "lines":
                    if not is_blank:
                        yield line
                elif not is_blank or (self.documents == "files" and paragraph):
                    paragraph.append(line)
                elif paragraph:
                    yield "\n".join(paragraph)
                    paragraph = []
            if paragraph:
                yield "\n".join(paragraph).rstrip()

    def split(self, fraction: float = 0.1, seed: int = 0) -> tuple[Texts, Texts]:
        """Splits the documents into training and validation data, each document by itself.

        Args:
            fraction: share of the validation data, on average: each document is drawn on its own.
            seed: seed of the draws.

        Raises:
            ValueError: a fraction outside of (0, 1).
        """
        check_split(fraction, seed)
        sides = (replace(self, _parts=(*self._parts, _Part(fraction, seed, side))) for side in (False, True))
        training, validation = sides
        return training, validation

    def fingerprint(self) -> str:
        """Returns a hash of the files' content and of the options, for `write_tokens`."""
        digest = hashlib.sha256(repr((self.documents, self._parts)).encode())
        for path in self.paths:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


def read_texts(paths: str | Path | Iterable[str | Path], documents: Documents = "paragraphs") -> Texts:
    """Returns the documents of UTF-8 text files; they are read when they are iterated over.

    Args:
        paths: a file, or several.
        documents: "paragraphs", separated by blank lines; "lines", one document per line; "files", one per
            file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no path, or another value of `documents`.
    """
    check_choice("documents", documents, ("paragraphs", "lines", "files"))
    several = [paths] if isinstance(paths, str | Path) else list(paths)
    checked = tuple(check_path("paths", path) for path in several)
    if not checked:
        raise ArgumentValueError("paths", several, "at least one file")
    for path in checked:
        check_exists(path)
    return Texts(checked, documents)
