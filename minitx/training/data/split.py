"""Training and validation data out of one dataset.

A hash of seed and index draws, so that the split is the same with any version of Python and PyTorch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, TypeVar

from minitx.validation import ArgumentValueError, Interval, check_integer, check_number

T = TypeVar("T")


class Subset(Sequence[T]):
    """Some elements of a dataset, from `split`.

    Args:
        data: the dataset.
        indices: the elements' indices.
    """

    def __init__(self, data: Sequence[T], indices: Sequence[int]) -> None:
        self.data, self.indices = data, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        """Returns an element, or the subset of a slice."""
        if isinstance(index, slice):
            return Subset(self.data, self.indices[index])
        return self.data[self.indices[index]]

    def where(self, index: int) -> str:
        """Returns file and line of an element, as `place`."""
        return place(self.data, self.indices[index])


def place(data: Sequence[Any], index: int) -> str:
    """Returns file and line of an element, for errors; its index if the dataset does not know them."""
    where = getattr(data, "where", "element {}".format)
    return str(where(index))


def split(data: Sequence[T], fraction: float = 0.1, seed: int = 0) -> tuple[Sequence[T], Sequence[T]]:
    """Splits a dataset into training and validation data; each keeps its order, and has an element at least.

    Args:
        data: records, or anything with a length and indices.
        fraction: share of the validation data.
        seed: seed of the draws.

    Raises:
        ValueError: a fraction outside of (0, 1), or fewer than two elements.
    """
    check_split(fraction, seed)
    size = len(data)
    if size < 2:
        raise ArgumentValueError("len(data)", size, "at least 2 to be split into training and validation")
    count = min(max(1, round(size * fraction)), size - 1)
    order = sorted(range(size), key=lambda index: share(seed, index))
    training, validation = (sorted(order[count:]), sorted(order[:count]))
    return Subset(data, training), Subset(data, validation)


def check_split(fraction: float, seed: int) -> None:
    """Checks the arguments of a split, else raises ArgumentTypeError or ArgumentValueError."""
    check_number("fraction", fraction, Interval(0, 1, open_low=True, open_high=True))
    check_integer("seed", seed, 0)


def share(seed: int, index: int) -> float:
    """Returns a number in [0, 1) that looks drawn at random: BLAKE2b of "seed:index", 8 bytes."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()) / 2**64
