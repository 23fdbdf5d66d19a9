"""A progress bar for work on data that takes minutes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def with_progress(items: Iterable[T], title: str, unit: str, shown: bool | None) -> Iterator[T]:
    """Yields the items while a bar on stderr counts them.

    Args:
        items: what the work is on.
        title: before the bar.
        unit: name of an item.
        shown: True at once and everywhere, False not at all, None after a second and at a terminal.
    """
    from tqdm import tqdm

    off, delay = (None, 1.0) if shown is None else (not shown, 0.0)
    yield from tqdm(items, desc=title, unit=f" {unit}", disable=off, delay=delay, leave=False)
