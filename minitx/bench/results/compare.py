"""Two results side by side, with a test whether a difference is more than noise.

Each row has samples of several rounds in both files. Two numbers answer for it: the interval that holds the
ratio of the medians with 95 % certainty (bootstrap), and the probability of such a difference among equals
(the exact rank sum test of Wilcoxon, Mann and Whitney). A row is faster or slower where the probability is
below 1 % and the ratio differs by more than 3 %; else the difference may be noise.
"""

from __future__ import annotations

import math
import random
import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from minitx.bench.results.report import figure_text, groups, title_of
from minitx.bench.results.row import KEY, Row, Run
from minitx.pictures.text import WIDTH

Outcome = Literal["faster", "slower", "noise", "few rounds"]
LIKELY, LEAST = 0.01, 0.03  # probability among equals; difference that matters
DRAWS = 2000  # of the bootstrap


def rank_sum_probability(first: Sequence[float], second: Sequence[float]) -> float:
    """Returns the probability that two samples of one distribution differ as much as these (two-sided).

    Counts the ways in which the ranks can be shared out; equal values have the mean of their ranks.

    Args:
        first, second: numbers, in any order.
    """
    ordered = sorted((*first, *second))
    twice = {value: 2 * ordered.index(value) + 1 + ordered.count(value) for value in ordered}
    n, total = len(first), len(ordered)
    ranks = [twice[value] for value in ordered]  # doubled, so that they are integers
    ways: list[dict[int, int]] = [{0: 1}] + [{} for _ in range(n)]  # by count: sum of ranks -> ways
    for rank in ranks:
        for count in range(n, 0, -1):
            for partial, number in ways[count - 1].items():
                ways[count][partial + rank] = ways[count].get(partial + rank, 0) + number
    middle = sum(ranks) * n / total
    distance = abs(sum(twice[value] for value in first) - middle)
    extreme = sum(number for partial, number in ways[n].items() if abs(partial - middle) >= distance - 1e-9)
    return extreme / math.comb(total, n)


def ratio_interval(first: Sequence[float], second: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Returns the interval that holds the ratio of the medians, first / second, in 95 % of resamples."""
    source = random.Random(seed)
    ratios = sorted(
        statistics.median(source.choices(first, k=len(first)))
        / statistics.median(source.choices(second, k=len(second)))
        for _ in range(DRAWS)
    )
    return ratios[round(0.025 * DRAWS)], ratios[round(0.975 * DRAWS) - 1]


@dataclass(frozen=True)
class Change:
    """A row of two results.

    Attributes:
        before, after: the rows.
        old, new: their samples in seconds, or each as a multiple of the reference's of the same round.
        reference: the engine whose multiples the samples are; "" where they are seconds.
    """

    before: Row
    after: Row
    old: Sequence[float]
    new: Sequence[float]
    reference: str = ""

    @cached_property
    def ratio(self) -> float:
        """Times as fast as before, by the medians."""
        return statistics.median(self.old) / statistics.median(self.new)

    @property
    def ends(self) -> tuple[float | None, float | None]:
        """The figures before and after; of samples that are multiples, the multiples of the speed."""
        if not self.reference:
            return self.before.figure, self.after.figure
        return 1 / statistics.median(self.old), 1 / statistics.median(self.new)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The interval of the ratio."""
        return ratio_interval(self.old, self.new)

    @cached_property
    def probability(self) -> float:
        """The probability of such a difference among equals."""
        return rank_sum_probability(self.old, self.new)

    @property
    def outcome(self) -> Outcome:
        """Whether it is faster, slower, or as fast up to noise."""
        if 2 / math.comb(len(self.old) + len(self.new), len(self.old)) > LIKELY:
            return "few rounds"
        if self.probability > LIKELY or abs(self.ratio - 1) <= LEAST:
            return "noise"
        return "faster" if self.ratio > 1 else "slower"

    def to_json(self) -> dict[str, Any]:
        """Returns the comparison by name."""
        row = self.after
        names = ("workload", "model", "engine", "dtype", "device", "threads", "unit")
        values: dict[str, Any] = {name: getattr(row, name) for name in names}
        values |= {"before": self.ends[0], "after": self.ends[1], "ratio": self.ratio}
        values |= {"reference": self.reference} if self.reference else {}
        return values | {
            "low": self.interval[0],
            "high": self.interval[1],
            "probability": self.probability,
            "outcome": self.outcome,
        }


def changes(before: Run, after: Run, *, relative: bool = False) -> list[Change]:
    """Returns the rows that both results have, in the order of the second.

    Args:
        before, after: two results.
        relative: compare the samples as multiples of the reference's in the same round, which leaves out
            whether the machine as a whole was faster; the reference itself is then left out.

    Raises:
        ValueError: no row is in both, or with `relative` the reference alone is; the message has the nearest
            rows' differences.
    """
    rows = {row.key: row for row in before.rows}
    shared = [(rows[row.key], row) for row in after.rows if row.key in rows]
    shared = [(old, new) for old, new in shared if old.samples and new.samples and _same_model(old, new)]
    if not shared:
        raise ValueError(f"no row was measured in both results: {_nearest(before, after)}.")
    if not relative:
        return [Change(old, new, old.samples, new.samples) for old, new in shared]
    pairs = [(old, new, _reference(before, old), _reference(after, new)) for old, new in shared]
    found = [
        Change(old, new, _multiples(old, old_base), _multiples(new, new_base), new_base.engine)
        for old, new, old_base, new_base in pairs
        if old is not old_base and old_base.key == new_base.key
    ]
    if not found:
        names = dict.fromkeys(base.engine for pair in pairs for base in pair[2:])
        engines = " and ".join(names)
        hint = "measure another engine beside it" if len(names) == 1 else "these are two"
        raise ValueError(f"no row can be compared relative to one reference, {engines}: {hint}.")
    return found


def _same_model(old: Row, new: Row) -> bool:
    """Whether two rows may be of one checkpoint; folders of one name may hold two."""
    return old.checkpoint == new.checkpoint or not (old.checkpoint and new.checkpoint)


def _nearest(before: Run, after: Run) -> str:
    """Returns what differs between the most similar rows of two results without a common one."""
    pairs = [(old, new) for old in before.rows for new in after.rows]
    if not pairs:
        return "one of them has no rows"
    names = (*KEY, "checkpoint")
    old, new = min(pairs, key=lambda pair: sum(getattr(pair[0], n) != getattr(pair[1], n) for n in names))
    differing = [n for n in names if getattr(old, n) != getattr(new, n)]
    if not differing:
        skipped = "before" if not old.samples else "after"
        return f"{old.engine} has no samples {skipped} ({(old if skipped == 'before' else new).skipped})"
    parts = (f"{name} ({getattr(old, name)} before, {getattr(new, name)} after)" for name in differing)
    return f"the nearest rows differ in {', '.join(parts)}"


def _reference(run: Run, row: Row) -> Row:
    """Returns the first row with samples of a row's workload."""
    rows = next(rows for rows in groups(run.rows) if any(other is row for other in rows))
    return next(other for other in rows if other.samples)


def _multiples(row: Row, base: Row) -> list[float]:
    return [own / other for own, other in zip(row.samples, base.samples, strict=False)]


def table(found: Sequence[Change], before: Run, after: Run) -> str:
    """Returns a comparison as text of at most 80 columns."""
    lines = [f"before: {_origin(before)}", f"after:  {_origin(after)}"]
    if differing := _differences(before.machine, after.machine):
        lines.append(f"The machines differ in {differing}.")
    for rows in groups(change.after for change in found):
        group = [change for change in found if any(change.after is row for row in rows)]
        lines += ["", *textwrap.wrap(title_of(rows[0]), WIDTH - 1, subsequent_indent="  ")]
        if reference := group[0].reference:
            lines.append(f"  before and after: speed in multiples of that of {reference}")
        lines.append(f"  {'engine':<22}{'before':>9}{'after':>9}{'ratio':>8}{'95 % interval':>17}  outcome")
        for change in group:
            ends = [figure_text(end) + "x" * bool(reference) for end in change.ends]
            figures = f"{ends[0]:>9}{ends[1]:>9}{change.ratio:>7.2f}x"
            interval = "{:.2f} to {:.2f}".format(*change.interval)
            lines.append(f"  {change.after.engine:<22}{figures}{interval:>17}  {change.outcome}")
        if _reference_changed(group, after):
            lines.append("  The reference changed too, as where the machine was busy: use --relative.")
    return "\n".join(lines)


def _reference_changed(group: Sequence[Change], after: Run) -> bool:
    """Whether the reference of a workload, beside which there are other engines, is faster or slower."""
    references = (c for c in group if not c.reference and c.after is _reference(after, c.after))
    return len(group) > 1 and any(change.outcome in ("faster", "slower") for change in references)


def _origin(run: Run) -> str:
    commit = f" ({run.machine['commit']})" if "commit" in run.machine else ""
    return f"minitx {run.machine.get('minitx')}{commit}, {run.machine.get('date')}"


def _differences(before: dict[str, Any], after: dict[str, Any]) -> str:
    names = ("processor", "cores", "threads", "device", "governor", "torch", "python")
    return ", ".join(name for name in names if before.get(name) != after.get(name))
