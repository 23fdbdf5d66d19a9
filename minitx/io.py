"""Input and output of files: checked JSON, and writes that replace files only when all are complete."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, or not an object.
    """
    return parse_json(path.read_bytes(), path)


def parse_json(content: bytes, path: Path) -> dict[str, Any]:
    """Parses a JSON object; `path` is for errors.

    Raises:
        ValueError: not JSON, or not an object.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, a number of 5,000 digits
        raise ValueError(f"{path}: not valid JSON ({error}); is the file complete?") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: holds a {type(value).__name__}; expected a JSON object.")
    return value


class Staging:
    """Files written under temporary names and moved to their names together when all are complete.

    A context manager: on exit it moves the files; after an error it removes them.
    """

    def __init__(self, folder: Path, seal: str | None = None) -> None:
        """Prepares a folder; nothing is written yet.

        Args:
            folder: folder of the files.
            seal: a file without which the others are not found, such as an index. It is removed first and
                moved last, so that a crash between two moves leaves no readable mixture of old and new files.
        """
        self.folder = folder
        self.seal = seal
        self.files: dict[Path, Path] = {}
        self.modes: dict[Path, int] = {}

    def path(self, name: str) -> Path:
        """Returns the temporary path of the file `name`; its folder is created if it does not exist."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # in the same folder, so that the move is one step of one file system
        temporary = path.with_name(f".{path.name[:100]}.{uuid4().hex}.tmp")
        temporary.touch(exist_ok=False)  # with the mode of a new file
        self.modes[path] = temporary.stat().st_mode
        self.files[path] = temporary
        return temporary

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                if self.seal is not None:
                    (self.folder / self.seal).unlink(missing_ok=True)
                for path, temporary in self.files.items():
                    temporary.chmod(self.modes[path])  # some writers create private files
                    os.replace(temporary, path)
        finally:
            for temporary in self.files.values():
                temporary.unlink(missing_ok=True)


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Calls `write` with a temporary path, then move that file to `path`."""
    with Staging(path.parent) as staging:
        write(staging.path(path.name))


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
