"""`FileOptions`: the JSON object of one file, of which every key is read or refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from minitx.io import parse_json


class FileOptions:
    """The content of a JSON file.

    Args:
        content: bytes of the file; None for a file that does not exist, which has no keys.
        path: for messages.
    """

    def __init__(self, content: bytes | None, path: Path) -> None:
        self.path, self.exists = path, content is not None
        self.values: Mapping[str, Any] = {} if content is None else parse_json(content, path)
        self.known: set[str] = set()

    def require(self) -> None:
        """Checks that the file of a module exists, else raises FileNotFoundError."""
        if not self.exists:
            raise FileNotFoundError(f"{self.path} is missing; modules.json names its folder.")

    def error(self, key: str, value: Any, expected: str) -> ValueError:
        """Returns the error about a value."""
        return ValueError(f"{self.path}: {key}={value!r:.80} must be {expected}; minitx has no other.")

    def take(self, key: str, default: Any = None) -> Any:
        """Returns a value; `default` if it is absent."""
        self.known.add(key)
        return self.values.get(key, default)

    def size(self, key: str, default: Any = ...) -> Any:
        """Returns an integer of at least 1; `default`, if there is one, for an absent or null value."""
        value = self.take(key)
        if value is None and default is not ...:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{self.path}: {key}={value!r:.80} must be an integer of at least 1.")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Returns a truth value; `default` if it is absent or null."""
        value = self.take(key)
        if value is not None and not isinstance(value, bool):
            raise ValueError(f"{self.path}: {key}={value!r:.80} must be true or false.")
        return default if value is None else value

    def nested(self, *keys: str) -> FileOptions:
        """Returns the options of an object under the first of the keys that is present, empty without any."""
        nested = FileOptions(None, self.path)
        for key in keys:
            value = self.take(key)
            if value is not None and not isinstance(value, dict):
                raise ValueError(f"{self.path}: {key}={value!r:.80} must be an object.")
            if value and not nested.values:
                nested.values, nested.path = value, Path(f"{self.path}: {key}")
        return nested

    def expect(self, key: str, *values: Any) -> None:
        """Checks that a value, if present, is one of `values`."""
        if key in self.values and self.take(key) not in values:
            expected = [repr(value) for value in values if value is not None] or ["null"]
            raise self.error(key, self.values[key], " or ".join(expected))

    def ignore(self, keys: Iterable[str]) -> None:
        """Declares keys that do not change a vector."""
        self.known.update(keys)

    def finish(self) -> None:
        """Checks that every key was read.

        Raises:
            ValueError: a key that minitx does not know.
        """
        if unknown := sorted(set(self.values) - self.known):
            raise ValueError(f"{self.path}: minitx does not implement {', '.join(unknown)}.")
