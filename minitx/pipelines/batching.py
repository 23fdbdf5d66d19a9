"""Batches of sequences of different lengths, with as little padding as pays, and the progress of a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

_ENDS = 64  # places in a batch of sequences of one length where it may end


@dataclass(frozen=True)
class BatchLimits:
    """How sequences are batched.

    Attributes:
        rows: most sequences in a batch; None for no limit.
        tokens: most tokens in a batch, padding included; a longer sequence is a batch of its own.
        overhead: cost of a batch, as the number of padding tokens that take the same time.
    """

    rows: int | None
    tokens: int
    overhead: int


def limits_for(device: torch.device, rows: int | None) -> BatchLimits:
    """Returns limits for a device.

    A CPU is busy with a few hundred tokens, and every padding token costs; an accelerator is not.
    """
    if device.type == "cpu":
        return BatchLimits(rows, tokens=2048, overhead=48)
    return BatchLimits(rows, tokens=32768, overhead=4096)


def make_batches(lengths: Sequence[int], limits: BatchLimits, *, padding: bool = True) -> list[list[int]]:
    """Divides sequences into batches at the least cost: padded tokens, and an overhead per batch.

    Sequences are sorted by length, which leaves one choice: where a batch ends. The best ends are found by
    dynamic programming over the sorted sequences.

    Args:
        lengths: number of tokens of each sequence.
        limits: of a batch.
        padding: whether sequences of different lengths may share a batch.

    Returns:
        Indices of the sequences of each batch, the longest sequences first, so that memory peaks early.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    sizes = [max(lengths[index], 1) for index in order]
    most = limits.rows or len(order)
    ends = _ends(sizes, most, limits.tokens)
    costs, starts = [0], [0]  # of the best division before each end; index of the end before its last batch
    for number in range(1, len(ends)):
        end, best, start = ends[number], None, number - 1
        for before in range(number - 1, -1, -1):
            first = ends[before]
            size = (end - first) * sizes[first]
            if before < number - 1 and (size > limits.tokens or end - first > most):
                break
            if not padding and sizes[first] != sizes[end - 1]:
                break
            cost = costs[before] + size + limits.overhead
            if best is None or cost <= best:
                best, start = cost, before
        costs.append(best or 0)
        starts.append(start)
    batches, number = [], len(ends) - 1
    while number:
        batches.append(order[ends[starts[number]] : ends[number]])
        number = starts[number]
    return batches[::-1]


def fill_batches(lengths: Sequence[int], limits: BatchLimits) -> list[list[int]]:
    """Divides sequences into as few batches as the limits allow, for a model that computes no padding.

    Args:
        lengths: number of tokens of each sequence.
        limits: of a batch; its tokens are those of the sequences alone.

    Returns:
        Indices of the sequences of each batch, the longest sequences first.
    """
    batches: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        tokens += lengths[index]
        if not batches or tokens > limits.tokens or len(batches[-1]) == limits.rows:
            batches.append([])
            tokens = lengths[index]
        batches[-1].append(index)
    return batches


def _ends(sizes: Sequence[int], rows: int, tokens: int) -> list[int]:
    """Returns the numbers of sequences after which a batch may end: 0, 1, 2, ..., all of them.

    Trying all of them would take longer than the model where a batch holds thousands of short sequences:
    sequences of one length stay together, up to a 64th of a batch.

    Args:
        sizes: of the sequences, descending.
        rows, tokens: most of a batch.
    """
    ends = [0]
    while ends[-1] < len(sizes):
        first = ends[-1]
        step = max(min(rows, tokens // sizes[first]) // _ENDS, 1)
        same = first + 1
        while same < min(first + step, len(sizes)) and sizes[same] == sizes[first]:
            same += 1
        ends.append(same)
    return ends


@dataclass
class Call:
    """The state of a call, whose requests may be run in several chunks.

    Attributes:
        advance: called with the number of requests whose outputs are complete.
        total: number of requests; None if it is not known.
        start: index of the next request.
        noted: whether a note about inputs was issued; there is one per call.
    """

    advance: Callable[[int], Any] = lambda _: None
    total: int | None = 1
    start: int = 0
    noted: bool = False


@contextmanager
def progress_bar(total: int | None, title: str, shown: bool | None) -> Iterator[Callable[[int], Any]]:
    """Shows a progress bar on stderr: after a second at a terminal if `shown` is None.

    Args:
        total: number of requests; None if it is not known.
        title: before the bar.
        shown: True at once and everywhere, False not at all.
    """
    if shown is False or (shown is None and total is not None and total < 2):
        yield lambda _: None
        return
    from tqdm import tqdm

    off, delay = (None, 1.0) if shown is None else (False, 0.0)
    with tqdm(total=total, desc=title, disable=off, delay=delay, leave=False) as bar:
        yield bar.update
