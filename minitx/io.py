"""Input and output of files: checked JSON, and writes that replace a file only when it is complete."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

_LARGEST_JSON = 100_000_000
# Patterns of the files of a checkpoint, those of sentence-transformers and further chat templates included.
_PLACES = ("*", "[0-9]_*/*", "[0-9][0-9]_*/*", "additional_chat_templates/*")
_SUFFIXES = {".json", ".txt", ".model", ".spm", ".jinja", ".safetensors", ".bin"}


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, not an object, or larger than any such file of a model: parsing holds the
            interpreter, so that no signal is handled meanwhile.
    """
    if (size := path.stat().st_size) > _LARGEST_JSON:
        raise ValueError(f"{path}: has {size} bytes; a JSON file of a model has at most {_LARGEST_JSON}.")
    return parse_json(path.read_bytes(), path)


def parse_json(content: bytes, path: Path) -> dict[str, Any]:
    """Parses a JSON object; `path` is for errors.

    Raises:
        ValueError: not JSON, or not an object.
    """
    value = parse_value(content, path)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: holds a {type(value).__name__}; expected a JSON object.")
    return value


def parse_value(content: bytes, path: Path | str) -> Any:
    """Parses JSON; `path`, or a place in it, is for errors.

    Raises:
        ValueError: not JSON, or text that cannot be encoded.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, a number of 5,000 digits
        raise ValueError(f"{path}: not valid JSON ({error}); is the file complete?") from None
    if b"\\ud" in content.lower() and not _is_unicode(value):
        raise ValueError(f"{path}: holds half of a surrogate pair, which is no character.")
    return value


def _is_unicode(value: Any) -> bool:
    """Whether all texts of a JSON value can be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def check_regular_files(folder: Path) -> None:
    """Checks that the files of a checkpoint are regular ones: opening a named pipe would wait for its writer.

    Raises:
        ValueError: a named pipe, a socket or a device.
    """
    for path in (path for pattern in _PLACES for path in folder.glob(pattern)):
        if path.suffix in _SUFFIXES and path.exists() and not (path.is_file() or path.is_dir()):
            raise ValueError(
                f"{path} is a named pipe, a socket or a device; put a regular file in its place."
            )


def leads_out(path: Path, folder: Path) -> bool:
    """Whether links lead a path out of a folder; they may lead to the files of the Hub's cache."""
    target = path.resolve()
    store = target.parent
    is_cached = store.name == "blobs" and store.parent.name.startswith("models--")
    return not is_cached and not target.is_relative_to(folder.resolve())


def check_inside(path: Path, folder: Path) -> Path:
    """Returns a path whose content is kept to be saved again.

    Raises:
        ValueError: a link leads it out of the folder.
    """
    if leads_out(path, folder):
        raise ValueError(
            f"{path} leads out of {folder}, to {path.resolve()}; put a copy of the file in its place."
        )
    return path


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds a path to errors of the system that name none, such as those about a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Calls `write` with a temporary path in the same folder, then moves that file to `path`."""
    temporary = path.with_name(f".{path.name[:100]}.{uuid4().hex}.tmp")
    temporary.touch(exist_ok=False)
    mode = temporary.stat().st_mode  # of a new file; some writers create private ones
    try:
        with naming(path):
            write(temporary)
            temporary.chmod(mode)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def return_freed_memory() -> None:
    """Returns freed memory to the system; glibc keeps what lies between blocks in use."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
