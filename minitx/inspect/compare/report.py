"""What a comparison found: rows of differences, which of them come first, and the text that says so."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from typing import Any, Literal

import torch

# Largest difference that counts as none, as a share of the largest value (or of 1, if that is more).
CLOSE = {torch.float32: 1e-5, torch.float64: 1e-9}
# What a step that is computed in float32 inside a float64 run (a softmax, a rotary table) may leave.
FLOAT32_INSIDE = 1e-6

Status = Literal["ok", "rounding", "float32 inside", "differs"]


@dataclass(frozen=True)
class Gap:
    """How far two tensors are apart: largest absolute difference, and largest value of the reference."""

    absolute: float = 0.0
    scale: float = 0.0

    @property
    def relative(self) -> float:
        return self.absolute / max(1.0, self.scale)

    @staticmethod
    def worse(a: Gap, b: Gap) -> Gap:
        return a if a.relative >= b.relative else b


@dataclass(frozen=True, kw_only=True)
class Row:
    """One call of one module, compared; the worst of all inputs.

    Attributes:
        module: in minitx; for a field of the output, its name.
        partner: in transformers.
        call: 0 for the first call in a forward, 1 for the second, ...
        input, output: in float32.
        input64, output64: in float64.
        between: modules that finished since the compared module before this one.
        finite: whether minitx's output holds neither NaN nor infinity.
        exact: whether equal inputs must give equal outputs, whatever is computed around it.
    """

    module: str
    partner: str
    call: int
    input: Gap
    output: Gap
    input64: Gap = Gap()
    output64: Gap = Gap()
    between: tuple[str, ...] = ()
    exact: bool = False
    finite: bool = True

    @property
    def float32(self) -> Gap:
        return Gap.worse(self.output, self.input)

    @property
    def float64(self) -> Gap:
        return Gap.worse(self.output64, self.input64)

    @property
    def status(self) -> Status:
        small, large = self.float64.relative, self.float32.relative
        if small <= CLOSE[torch.float64]:
            return "ok" if large <= CLOSE[torch.float32] else "rounding"
        own = self.exact and self.input64.relative <= CLOSE[torch.float64]
        if small <= FLOAT32_INSIDE and large <= CLOSE[torch.float32] and not own:
            return "float32 inside"
        return "differs"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `verify` found.

    Attributes:
        name: of the checkpoint.
        model_type, task: what it is.
        transformers: version.
        attention: the reference's implementation.
        inputs: what was run, in words.
        rows: every compared call in the order of execution, then the fields of the output.
        unpaired: modules with parameters that were not compared: the reference does not call such a
            module. What they compute is still part of the next module's input.
    """

    name: str
    model_type: str
    task: str | None
    transformers: str
    attention: str
    inputs: str
    rows: tuple[Row, ...]
    unpaired: tuple[str, ...] = ()

    @property
    def first(self) -> Row | None:
        """The first call that differs, None if all agree."""
        return next((row for row in self.rows if row.status == "differs"), None)

    @property
    def ok(self) -> bool:
        return self.first is None and self.not_finite is None

    @property
    def not_finite(self) -> Row | None:
        """The first call whose output is not finite, None if what the model returns is.

        Two models that both return NaN agree, but neither of them works.
        """
        if all(row.finite for row in self.rows if not row.partner):
            return None
        return next(row for row in self.rows if not row.finite)

    @property
    def culprit(self) -> tuple[str, ...]:
        """The modules that the first difference can come from; empty if all agree."""
        row = self.first
        if row is None:
            return ()
        before = self.rows[: self.rows.index(row)]
        # Behind a step in float32 every input is a little apart; that much explains no difference.
        loose = any(earlier.status == "float32 inside" for earlier in before)
        if row.partner and row.input64.relative <= (FLOAT32_INSIDE if loose else CLOSE[torch.float64]):
            return (row.module,)
        if row.between:
            return row.between
        neighbour = before[-1].module if before else ""
        return (common_parent(neighbour, row.module) or row.module,)

    def worst(self, dtype: torch.dtype = torch.float32) -> float:
        """The largest absolute difference of any module's output."""
        return max((r.output if dtype == torch.float32 else r.output64).absolute for r in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Everything, in values that JSON has; differences are absolute, and null if infinite."""
        first = self.first
        return {
            "model": self.name,
            "model_type": self.model_type,
            "task": self.task,
            "transformers": self.transformers,
            "attention": self.attention,
            "inputs": self.inputs,
            "ok": self.ok,
            "first_difference": None if first is None else first.module,
            "culprit": list(self.culprit),
            "first_not_finite": None if self.not_finite is None else self.not_finite.module,
            "unpaired": list(self.unpaired),
            "modules": [
                {
                    "module": row.module,
                    "partner": row.partner or None,
                    "call": row.call,
                    "status": row.status,
                    "finite": row.finite,
                    "float32": {"input": number(row.input), "output": number(row.output)},
                    "float64": {"input": number(row.input64), "output": number(row.output64)},
                }
                for row in self.rows
            ],
        }


def number(gap: Gap) -> float | None:
    return None if math.isinf(gap.absolute) else gap.absolute


def common_parent(a: str, b: str) -> str:
    """The innermost module that holds both: embedder.pos_emb, embedder.layer_norm -> embedder."""
    shared = []
    for left, right in zip(a.split("."), b.split("."), strict=False):
        if left != right:
            break
        shared.append(left)
    return ".".join(shared)


# --- text ------------------------------------------------------------------------------------------


def render_report(report: Report) -> str:
    """The report as text of at most 80 columns: a line per layer, and the first difference in full."""
    title = " ".join(filter(None, ["minitx against transformers", report.transformers + ":"]))
    what = report.model_type + (f" {report.task}" if report.task else "")
    head = f"{title} {what}, attention {report.attention}"
    lines = [*fill(head), *fill(report.inputs), ""]
    lines.append(f"{'':<40}{'max difference':>27}")
    lines.append(f"{'':<31}{'modules':>9}{'float32':>13}{'float64':>13}")
    lines.append("-" * 80)
    for name, rows in groups(report.rows).items():
        lines.append(group_line(name, rows))
        if report.first in rows:
            lines += [detail_line(row, name) for row in rows]
    lines.append("-" * 80)
    return "\n".join([*lines, *verdict(report)])


def groups(rows: tuple[Row, ...]) -> dict[str, list[Row]]:
    """Rows by layer; a layer that runs several times has one group for each."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        parts = row.module.split(".")
        name = ".".join(parts[:3]) if parts[1:2] == ["layers"] else parts[0]
        if row.call and name != parts[0]:
            name += f" (step {row.call + 1})"
        found.setdefault(name, []).append(row)
    return found


def group_line(name: str, rows: list[Row]) -> str:
    single = max((row.output for row in rows), key=lambda gap: gap.absolute)
    double = max((row.output64 for row in rows), key=lambda gap: gap.absolute)
    modules = str(len(rows)) if rows[0].partner else ""
    return f"{name:<31}{modules:>9}{short(single):>13}{short(double):>13}   {mark(rows)}"


def detail_line(row: Row, group: str) -> str:
    """Input and output of one module, in float64: there a difference is no rounding."""
    name = row.module.removeprefix(group.partition(" ")[0] + ".")
    given, made = short(row.input64), short(row.output64)
    text = f"  {name:<36.36} in {given:<8} out {made:<8}"
    return f"{text:<66}   {mark([row])}"


def mark(rows: list[Row]) -> str:
    """The worst status, as the table shows it."""
    found = {row.status for row in rows}
    worst = next(s for s in ("differs", "rounding", "float32 inside", "ok") if s in found)
    if worst != "differs" and not all(row.finite for row in rows):
        return "NOT FINITE"
    return {"differs": "DIFF", "rounding": "OK (round)", "float32 inside": "OK (f32)", "ok": "OK"}[worst]


def short(gap: Gap) -> str:
    return "0" if gap.absolute == 0 else f"{gap.absolute:.1e}"


def fill(text: str) -> list[str]:
    return textwrap.wrap(text, 79)


def verdict(report: Report) -> list[str]:
    """What it comes to."""
    row = report.first
    notes: list[str] = []
    found = {r.status for r in report.rows}
    if "rounding" in found:
        notes += fill("(round): more than 1e-5 apart in float32, but equal in float64: rounding.")
    if "float32 inside" in found:
        notes += fill("(f32): one side computes a step in float32 even in a float64 run.")
    if report.unpaired:
        notes += fill(f"Compared through their neighbours only: {', '.join(report.unpaired)}.")
    bad = report.not_finite
    if row is None and bad is not None:
        return [
            *notes,
            *fill(f"NOT FINITE: the outputs hold NaN or infinity, first in {bad.module}."),
            *fill("transformers computes the same, so the weights are the cause; look for NaN in them."),
        ]
    if row is None:
        count = len([r for r in report.rows if r.partner])
        worst = max((r.output.absolute for r in report.rows), default=0.0)
        exact = "bit for bit" if worst == 0 else f"largest difference {worst:.1e} in float32"
        return [*notes, *fill(f"EQUAL: all {count} module calls and the outputs agree ({exact}).")]
    if report.culprit == (row.module,):
        where = "its output differs though its input is equal"
    else:
        where = f"the input of {row.module} differs though all that ran before is equal"
    call = f" (call {row.call + 1})" if row.call else ""
    why = f"{short(row.float32)} in float32 and {short(row.float64)} in float64: not rounding."
    return [
        *notes,
        *fill(f"DIFFERENT, first in {', '.join(report.culprit)}{call}:"),
        *fill(where + "."),
        *fill(why),
    ]
