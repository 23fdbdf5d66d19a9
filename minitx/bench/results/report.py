"""Results as text for a terminal, and as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from minitx.bench.results.row import Row, Run
from minitx.pictures.text import WIDTH, human

Colored = Callable[[str, str], str]  # of a text and the kind of its verdict
DISTANT = 1e-3  # distance of logits that is shown beside the same tokens
BAR = 6  # characters of the longest bar
_INDENT = " " * 6
_BLOCKS = " ▏▎▍▌▋▊▉█"
BUSY = 0.05  # spread beyond which more rounds are asked for
_FIGURE = 9  # characters of the figure
_COLUMNS = {"spread": 7, "ratio": 7, "bound": 6, "memory": 9}  # characters; one without a number is left out


def figure_text(value: float | None) -> str:
    """Returns a figure with three or four digits."""
    if value is None:
        return ""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread_of(row: Row) -> float | None:
    """Returns half the distance of the quartiles as a share of the median figure."""
    if row.figure is None or row.low is None or row.high is None or len(row.samples) < 2:
        return None
    return (row.high - row.low) / 2 / row.figure


def verdict_text(row: Row) -> str:
    """Returns the verdict of the referee in words; of a row that was skipped, the reason."""
    if row.skipped:
        return row.skipped
    kind = row.verdict.get("kind", "")
    return "; ".join([{"same": "same answer", "wrong": "WRONG ANSWER"}.get(kind, kind), *details(row)])


def details(row: Row) -> list[str]:
    """Returns the numbers of the verdict in words."""
    if row.skipped:
        return [row.skipped]
    verdict = row.verdict
    kind, parts = verdict.get("kind", ""), []
    place = verdict.get("position")
    at = "" if place is None else f"row {place[0]}, token {place[1]}"
    if kind == "tie":
        parts.append(f"tokens part at {at}, at a tie ({verdict['margin']:.1e})")
    elif kind == "differs" and "agreement" in verdict:
        until = f" until the first difference of their row, first at {at}" if at else ""
        parts.append(f"{verdict['agreement']:.0%} of the tokens agree{until}")
    elif kind == "wrong" and at:
        parts.append(f"the first difference is at {at}")
    if "note" in verdict:
        parts.append(verdict["note"])
    if kind in ("same", "differs") and verdict.get("distance") is not None:
        parts.append(f"distance {verdict['distance']:.1e}")
    return parts


def title_of(row: Row) -> str:
    """Returns the line above the rows of a workload."""
    place = f"{row.model}, {row.dtype}, {_threads(row.threads)}"
    place += f", {row.device}" * (row.device != "cpu")
    return f"{row.workload}: {row.summary} ({place})"


def _threads(number: int) -> str:
    return f"{number} thread{'s' * (number > 1)}"


def machine_lines(machine: dict[str, Any]) -> list[str]:
    """Returns the machine in a few lines."""
    return [line for text in machine_texts(machine) for line in textwrap.wrap(text, WIDTH - 1)]


def machine_texts(machine: dict[str, Any]) -> tuple[str, str, str]:
    """Returns the processor with its use, its flags, and the versions."""
    cpu = f"{machine['processor']}, {machine['cores']} cores, {_threads(machine['threads'])}"
    cpu += f", {machine['device']}" * (machine["device"] != "cpu")
    cpu += f", governor {machine['governor']}" if "governor" in machine else ""
    cpu += f", load average {machine['load']:.1f}" if "load" in machine else ""
    commit = f" ({machine['commit']})" if "commit" in machine else ""
    versions = f"Python {machine['python']}, torch {machine['torch']}, minitx {machine['minitx']}{commit}"
    return cpu, " ".join(machine["flags"]), versions


def table(rows: Sequence[Row], colored: Colored = lambda text, kind: text) -> str:
    """Returns the rows of one workload as text of at most 80 columns.

    Args:
        rows: of one workload, the reference first.
        colored: colours a text by the kind of its verdict.
    """
    lines = textwrap.wrap(title_of(rows[0]), WIDTH - 1, subsequent_indent="  ")
    columns = [name for name in _COLUMNS if any(_cell(row, name) for row in rows)]
    header = "".join(f"{name:>{_COLUMNS[name]}}" for name in columns)
    lines.append(f"  {'':<22}{'':<{BAR}}{rows[0].unit:>{_FIGURE}}{header}  answer")
    best = max((row.figure for row in rows if row.figure is not None), default=1.0)
    for row in rows:
        if row.skipped:
            text = f"  {row.engine:<22}skipped: {row.skipped}"
            lines += textwrap.wrap(text, WIDTH - 1, subsequent_indent=_INDENT)
            continue
        kind = str(row.verdict.get("kind", ""))
        answer = {"wrong": "WRONG", "not compared": "-"}.get(kind, kind)
        lines.append(f"  {row.engine:<22}{_cells_of(row, best, columns)}  {colored(answer, kind)}")
        far = row.verdict.get("distance", 0.0) > DISTANT
        if kind not in ("reference", "same", "not compared") or far:
            found = "; ".join(details(row))
            lines += textwrap.wrap(found, WIDTH - 1, initial_indent=_INDENT, subsequent_indent=_INDENT)
        if row.compile_seconds >= 0.1:
            lines.append(f"{_INDENT}prepared in {row.compile_seconds:.1f} s, which the figure leaves out")
    if any((spread_of(row) or 0.0) > BUSY for row in rows):
        lines.append(f"  spread above {100 * BUSY:.0f} %: the machine was busy; take more --rounds")
    return "\n".join(lines)


def _cells_of(row: Row, best: float, columns: Sequence[str]) -> str:
    """Returns the bar and the numbers of a row; blanks where it has none."""
    share = "" if row.figure is None else bar(row.figure / best)
    cells = (f"{_cell(row, name):>{_COLUMNS[name]}}" for name in columns)
    return f"{share:<{BAR}}{figure_text(row.figure):>{_FIGURE}}{''.join(cells)}"


def _cell(row: Row, column: str) -> str:
    """Returns the text of a row in a column; "" where it has none."""
    if row.figure is None:
        return ""
    if column == "memory":
        peak = row.memory.get("peak")
        return "" if peak is None else human(peak)
    if column == "ratio":
        return "" if row.ratio is None else f"{row.ratio:.2f}x"
    value = spread_of(row) if column == "spread" else row.share
    return "" if value is None else f"±{value:.0%}" if column == "spread" else f"{value:.0%}"


def bar(share: float) -> str:
    """Returns a bar whose length is a share of `BAR` characters."""
    eighths = max(1, round(8 * BAR * min(share, 1.0)))
    return _BLOCKS[8] * (eighths // 8) + _BLOCKS[eighths % 8].strip()


def peaks_line(peaks: dict[str, float]) -> str:
    """Returns the measured peaks in one line."""
    sizes = f"copy {peaks['copy'] / 1e9:.1f} GB/s, matrix-vector {peaks['vector'] / 1e9:.1f} GB/s"
    return f"{sizes}, matrix product {peaks['product'] / 1e9:.0f} GFLOP/s"


def groups(rows: Iterable[Row]) -> list[list[Row]]:
    """Returns the rows of each workload and model together, in their order."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault((row.workload, row.model, row.dtype, row.batch, row.new_tokens), []).append(row)
    return list(found.values())


# --- Markdown --------------------------------------------------------------------------------------


def markdown(run: Run) -> str:
    """Returns a run as Markdown: the machine, and a table for each workload."""
    lines = [f"{line}  " for line in machine_lines(run.machine)]
    lines += [f"measured: {peaks_line(peaks)} ({name})" for name, peaks in run.peaks.items()]
    for rows in groups(run.rows):
        unit = rows[0].unit
        lines += ["", f"**{title_of(rows[0])}**", ""]
        lines += [f"| engine | version | {unit} | quartiles | ratio | of the bound | memory | answer |"]
        lines += ["|---|---|---:|---:|---:|---:|---:|---|"]
        lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    ends = "" if row.low is None else f"{figure_text(row.low)} to {figure_text(row.high)}"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f} x"
    share = "" if row.share is None else f"{row.share:.0%}"
    peak = row.memory.get("peak")
    text = verdict_text(row).replace("|", "\\|")
    answer = f"skipped: {text}" if row.skipped else text
    memory = "" if peak is None else human(peak)
    return [row.engine, row.version, figure_text(row.figure), ends, ratio, share, memory, answer]
