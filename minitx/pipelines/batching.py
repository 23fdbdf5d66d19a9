"""Batches of sequences of different lengths, with as little padding as pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


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
    most = limits.rows or len(order)
    costs, starts = [0], [0]  # of the best division of the first sequences; start of its last batch
    for end in range(1, len(order) + 1):
        best, start = None, end - 1
        for first in range(end - 1, max(end - 1 - most, -1), -1):
            longest = max(lengths[order[first]], 1)
            size = (end - first) * longest
            if first < end - 1 and size > limits.tokens:
                break
            if not padding and longest != max(lengths[order[end - 1]], 1):
                break
            cost = costs[first] + size + limits.overhead
            if best is None or cost <= best:
                best, start = cost, first
        costs.append(best or 0)
        starts.append(start)
    batches, end = [], len(order)
    while end:
        batches.append(order[starts[end] : end])
        end = starts[end]
    return batches[::-1]
