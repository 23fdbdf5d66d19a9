"""Small files in and out: JSON that is checked, and writes that leave the old file or the new, no half."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, a number of 5,000 digits
        raise ValueError(f"{path}: not valid JSON ({error}); is the file complete?") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: holds a {type(value).__name__}; expected a JSON object.")
    return value


class Staging:
    """Files that are written beside their places and moved there together, once all of them are whole.

    Used as a context: leaving it moves the files; leaving it by an error removes what was written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[Path, Path] = {}

    def path(self, name: str) -> Path:
        """Where to write what will become `name`; its folder is made if need be."""
        place = self.folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        # in the folder where it belongs, so that the move is one step of one file system
        handle, temporary = tempfile.mkstemp(prefix=f".{place.name}.", suffix=".tmp", dir=place.parent)
        os.close(handle)
        self.files[place] = Path(temporary)
        return self.files[place]

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                # mkstemp makes private files; the result gets the mode that any new file would
                mask = os.umask(0)
                os.umask(mask)
                for place, temporary in self.files.items():
                    temporary.chmod(0o666 & ~mask)
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
