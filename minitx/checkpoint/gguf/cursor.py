"""Reading numbers, texts and lists of a GGUF header, each checked against the end of the file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Any

# Type of a value -> its format, little-endian
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
BOOL, TEXT, LIST = 7, 8, 9
_LENGTH = struct.Struct("<Q")


class Cursor:
    """A place in a file.

    Attributes:
        path: of the file, for errors.
        data: its bytes.
        at: the next byte to read.
    """

    def __init__(self, path: Path, data: mmap, at: int = 0) -> None:
        self.path, self.data, self.at = path, data, at

    @property
    def left(self) -> int:
        """Bytes up to the end of the file."""
        return len(self.data) - self.at

    def skip(self, size: int, what: str) -> int:
        """Moves past `size` bytes; returns where they begin.

        Raises:
            ValueError: the file ends before them.
        """
        if size > self.left:
            raise ValueError(
                f"{self.path}: {what} takes {size} bytes from byte {self.at} on, but the file has "
                f"{len(self.data)}; it is cut short or damaged, fetch it again."
            )
        begin, self.at = self.at, self.at + size
        return begin

    def number(self, kind: str, what: str) -> Any:
        """Reads one number of a format of `struct`."""
        begin = self.skip(struct.calcsize(kind), what)
        return struct.unpack_from("<" + kind, self.data, begin)[0]

    def text(self, what: str) -> str:
        """Reads a text: its length in 8 bytes, and UTF-8.

        Raises:
            ValueError: the file ends before it, or other bytes.
        """
        size = self.number("Q", f"the length of {what}")
        begin = self.skip(size, what)
        try:
            return self.data[begin : begin + size].decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path}: {what} is not UTF-8 text ({error}); it is damaged.") from None

    def value(self, kind: int, what: str) -> Any:
        """Reads a value of one of the format's types; a list stays in the file until it is asked for.

        Raises:
            ValueError: an unknown type, a list of lists, or the end of the file.
        """
        if kind == TEXT:
            return self.text(what)
        if kind == BOOL:
            return self.number("B", what) != 0
        if kind in NUMBERS:
            return self.number(NUMBERS[kind], what)
        if kind != LIST:
            raise ValueError(f"{self.path}: {what} has type {kind}; the format has types 0 to 12.")
        inner, count = self.number("I", what), self.number("Q", what)
        if inner not in NUMBERS and inner != TEXT:
            raise ValueError(f"{self.path}: {what} is a list of type {inner}; expected numbers or texts.")
        least = _LENGTH.size if inner == TEXT else struct.calcsize(NUMBERS[inner])
        if count * least > self.left:
            self.skip(count * least, f"{what}, a list of {count} values,")
        begin = self.at
        if inner != TEXT:
            self.skip(count * least, what)
        else:
            self._skip_texts(count, what)
        return Values(self, what, inner, count, begin)

    def _skip_texts(self, count: int, what: str) -> None:
        """Moves past texts, of which a vocabulary has hundreds of thousands."""
        data, at, last = self.data, self.at, len(self.data) - _LENGTH.size
        for _ in range(count):
            if at > last:  # no room for a length
                at = len(data) + 1
                break
            at += _LENGTH.size + _LENGTH.unpack_from(data, at)[0]
        self.skip(at - self.at, what)


@dataclass(frozen=True)
class Values:
    """A list in the header, read when it is iterated.

    Attributes:
        source: the file.
        what: the key, for errors.
        kind: type of the values.
        count: their number.
        begin: where they begin.
    """

    source: Cursor
    what: str
    kind: int
    count: int
    begin: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        if self.kind == TEXT:
            cursor = Cursor(self.source.path, self.source.data, self.begin)
            return iter([cursor.text(self.what) for _ in range(self.count)])
        numbers = struct.unpack_from(f"<{self.count}{NUMBERS[self.kind]}", self.source.data, self.begin)
        return iter(map(bool, numbers) if self.kind == BOOL else numbers)
