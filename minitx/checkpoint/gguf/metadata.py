"""Typed reading of a file's metadata; what was not read is known afterwards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minitx.checkpoint.gguf.cursor import Values
from minitx.checkpoint.gguf.header import GgufFile

_LARGEST = 2**31 - 1
REQUIRED: Any = object()


class Metadata:
    """The keys of one prefix, such as "llama".

    Attributes:
        file: the file.
        prefix: the first part of the keys.
        taken: the keys that were read, without the prefix.
    """

    def __init__(self, file: GgufFile, prefix: str) -> None:
        self.file, self.prefix = file, prefix
        self.taken: set[str] = set()

    def get(self, key: str, default: Any = REQUIRED) -> Any:
        """Returns a value as it is in the file.

        Raises:
            ValueError: no such key, and no default.
        """
        self.taken.add(key)
        value = self.file.metadata.get(f"{self.prefix}.{key}", default)
        if value is REQUIRED:
            raise ValueError(f"{self.file.path}: has no key {self.prefix}.{key}; it is not complete.")
        return value

    def error(self, key: str, value: Any, expected: str) -> ValueError:
        """Returns the error about a value."""
        shown = [*value] if isinstance(value, Values) else value
        return ValueError(f"{self.file.path}: {self.prefix}.{key} must be {expected}, not {shown!r:.80}.")

    def size(self, key: str, default: Any = REQUIRED) -> Any:
        """Returns a positive integer; a list of equal ones, one for each layer, counts as one."""
        value = self.get(key, default)
        if isinstance(value, Values):
            distinct = {*value}
            if len(distinct) != 1:
                raise self.error(key, value, "the same for all layers")
            value = distinct.pop()
        if value is not default and (type(value) is not int or not 0 < value <= _LARGEST):
            raise self.error(key, value, f"an integer from 1 to {_LARGEST}")
        return value

    def number(self, key: str, default: Any = REQUIRED) -> Any:
        """Returns a finite number, with as few digits as its float32 needs."""
        value = self.get(key, default)
        if value is default:
            return value
        if type(value) not in (int, float) or not math.isfinite(value):
            raise self.error(key, value, "a number")
        return shortest(value)

    def flag(self, key: str, default: bool) -> bool:
        """Returns true or false."""
        value = self.get(key, default)
        if type(value) is not bool:
            raise self.error(key, value, "true or false")
        return value

    def text(self, key: str, default: Any = REQUIRED) -> Any:
        """Returns a text."""
        value = self.get(key, default)
        if value is not default and not isinstance(value, str):
            raise self.error(key, value, "a text")
        return value

    def values(self, key: str, kinds: type | tuple[type, ...], default: Any = REQUIRED) -> Any:
        """Returns a list of values of these types."""
        value = self.get(key, default)
        if value is default:
            return value
        listed = [*value] if isinstance(value, Values) else None
        if listed is None or not all(isinstance(x, kinds) for x in listed):
            raise self.error(key, value, "a list of " + ("texts" if kinds is str else "numbers"))
        return listed

    def expect(self, key: str, *expected: Any) -> None:
        """Checks that a key is absent or has one of these values.

        Raises:
            ValueError: another value, which minitx does not implement.
        """
        value = self.get(key, None)
        if value is not None and (isinstance(value, Values) or value not in expected):
            raise self.error(key, value, " or ".join(map(str, expected)) or "left out")

    def ignore(self, keys: Sequence[str]) -> None:
        """Marks keys as read: they do not change what the model computes."""
        self.taken |= {*keys}

    def unread(self) -> list[str]:
        """Returns the keys with the prefix that were not read."""
        start = f"{self.prefix}."
        return [
            key for key in self.file.metadata if key.startswith(start) and key[len(start) :] not in self.taken
        ]


def shortest(value: float) -> float:
    """Returns the number with the fewest digits that rounds to the same float32: 1e-05 for 9.99999975e-06."""
    import torch

    if isinstance(value, int):
        return value
    single = torch.tensor(value, dtype=torch.float32)
    if single.item() != value:
        return value  # stored as a double
    for digits in range(1, 10):
        short = float(f"{value:.{digits}g}")
        if torch.tensor(short, dtype=torch.float32) == single:
            return short
    return value
