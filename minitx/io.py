"""Small files in and out: JSON that is checked, and writes that leave the old file or the new, no half."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, or not an object.
    """
    return parse_json(path.read_bytes(), path)


def parse_json(content: bytes, path: Path) -> dict[str, Any]:
    """A JSON object that was read from `path`.

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
    """Files that are written beside their places and moved there together, once all of them are whole.

    Used as a context: leaving it moves the files; leaving it by an error removes what was written.
    """

    def __init__(self, folder: Path, seal: str | None = None) -> None:
        """
        Args:
            folder: where the files belong.
            seal: the file without which the others are not found. It goes first and comes last, so that
                a crash between two moves leaves no mixture of old and new files that could be read.
        """
        self.folder = folder
        self.seal = seal
        self.files: dict[Path, Path] = {}
        self.modes: dict[Path, int] = {}

    def path(self, name: str) -> Path:
        """Where to write what will become `name`; its folder is made if need be."""
        place = self.folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        # in the folder where it belongs, so that the move is one step of one file system
        temporary = place.with_name(f".{place.name[:100]}.{uuid4().hex}.tmp")
        temporary.touch(exist_ok=False)  # with the mode that any new file gets
        self.modes[place] = temporary.stat().st_mode
        self.files[place] = temporary
        return temporary

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                if self.seal is not None:
                    (self.folder / self.seal).unlink(missing_ok=True)
                for place, temporary in self.files.items():
                    temporary.chmod(self.modes[place])  # some writers make private files
                    os.replace(temporary, place)
        finally:
            for temporary in self.files.values():
                temporary.unlink(missing_ok=True)


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Calls `write` with a temporary path, then moves what it wrote to `path`."""
    with Staging(path.parent) as staging:
        write(staging.path(path.name))


def write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
