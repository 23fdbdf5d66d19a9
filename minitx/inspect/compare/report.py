"""The result of a comparison: differences per module call, their cause, and the report as text."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from typing import Any, Literal

import torch

from minitx.validation import check_type

# Largest difference accepted as equal, relative to the largest value (or to 1, if that is more).
CLOSE = {torch.float32: 1e-5, torch.float64: 1e-9}
# Difference accepted after a step in float32 inside a float64 run (a softmax, a rotary table).
FLOAT32_INSIDE = 1e-6

Status = Literal["ok", "rounding", "float32 inside", "differs"]


@dataclass(frozen=True)
class Gap:
    """The distance of two tensors: largest absolute difference, and largest value of the reference."""

    absolute: float = 0.0
    scale: float = 0.0

    @property
    def relative(self) -> float:
        """The difference relative to the largest value, or to 1 if that is more."""
        return self.absolute / max(1.0, self.scale)

    @staticmethod
    def worse(a: Gap, b: Gap) -> Gap:
        """Returns the larger of two gaps."""
        return a if a.relative >= b.relative else b


@dataclass(frozen=True, kw_only=True)
class ComparedCall:
    """One call of one module, compared; the largest differences over all batches.

    Attributes:
        module: path in minitx; for a field of the output, its name.
        partner: path in transformers; "" for a field of the output.
        call: 0 for the first call in a forward, 1 for the second, ...
        input, output: differences in float32.
        input64, output64: differences in float64.
        between: modules that ran between the previous compared module and this one.
        finite: whether minitx's output has neither NaN nor infinity.
        proportional: whether input and output are multiples of the reference's.
        exact: whether the module computes in the precision of its input, so that equal inputs give equal
            outputs.
    """

    module: str
    partner: str
    call: int
    input: Gap
    output: Gap
    input64: Gap = Gap()
    output64: Gap = Gap()
    between: tuple[str, ...] = ()
    proportional: bool = False
    exact: bool = False
    finite: bool = True

    @property
    def float32(self) -> Gap:
        """The larger difference of input and output in float32."""
        return Gap.worse(self.output, self.input)

    @property
    def float64(self) -> Gap:
        """The larger difference of input and output in float64."""
        return Gap.worse(self.output64, self.input64)

    @property
    def status(self) -> Status:
        """The verdict on this call; rounding is small in float64, a difference is not."""
        small, large = self.float64.relative, self.float32.relative
        if small <= CLOSE[torch.float64]:
            return "ok" if large <= CLOSE[torch.float32] else "rounding"
        exact = self.exact and self.input64.relative <= CLOSE[torch.float64]
        if small <= FLOAT32_INSIDE and large <= CLOSE[torch.float32] and not exact:
            return "float32 inside"
        return "differs"


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of `verify`.

    Attributes:
        name: name of the checkpoint.
        model_type, task: its architecture and task.
        transformers: version of transformers.
        attention: attention implementation of the reference.
        inputs: description of the batches.
        entries: the compared calls in the order of execution, then the fields of the output.
        unpaired: modules with parameters that the reference has no module for; they are compared through the
            input of the next module.
    """

    name: str
    model_type: str
    task: str | None
    transformers: str
    attention: str
    inputs: str
    entries: tuple[ComparedCall, ...]
    unpaired: tuple[str, ...] = ()

    @property
    def cancelled(self) -> tuple[ComparedCall, ...]:
        """Calls that differ by a factor only, if all outputs of the model agree.

        Such a difference vanishes downstream: the two models scale the same values at different places.
        """
        outputs = [entry for entry in self.entries if not entry.partner]
        differing = tuple(entry for entry in self.entries if entry.status == "differs")
        agree = bool(outputs) and all(entry.status in ("ok", "rounding") for entry in outputs)
        return differing if agree and all(entry.proportional for entry in differing) else ()

    @property
    def first(self) -> ComparedCall | None:
        """The first call that differs; None if all agree or their differences vanish downstream."""
        if self.cancelled:
            return None
        return next((entry for entry in self.entries if entry.status == "differs"), None)

    @property
    def ok(self) -> bool:
        """Whether the outputs agree and are finite."""
        return self.first is None and self.not_finite is None

    @property
    def not_finite(self) -> ComparedCall | None:
        """The first call whose output is not finite; None if the outputs of the model are.

        Two models that both return NaN agree, but neither works.
        """
        if all(entry.finite for entry in self.entries if not entry.partner):
            return None
        return next(entry for entry in self.entries if not entry.finite)

    @property
    def culprit(self) -> tuple[str, ...]:
        """The modules that can have caused the first difference; empty without one."""
        entry = self.first
        if entry is None:
            return ()
        before = self.entries[: self.entries.index(entry)]
        # After a step in float32 every input differs slightly, which explains no larger difference.
        loose = any(earlier.status == "float32 inside" for earlier in before)
        if entry.partner and entry.input64.relative <= (FLOAT32_INSIDE if loose else CLOSE[torch.float64]):
            return (entry.module,)
        if entry.between:
            return entry.between
        neighbour = before[-1].module if before else ""
        return (common_parent(neighbour, entry.module) or entry.module,)

    def worst(self, dtype: torch.dtype = torch.float32) -> float:
        """Returns the largest absolute difference of any module's output."""
        return max((r.output if dtype == torch.float32 else r.output64).absolute for r in self.entries)

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON values; differences are absolute, and null if infinite."""
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
            "vanishing": [entry.module for entry in self.cancelled],
            "first_not_finite": None if self.not_finite is None else self.not_finite.module,
            "unpaired": list(self.unpaired),
            "modules": [
                {
                    "module": entry.module,
                    "partner": entry.partner or None,
                    "call": entry.call,
                    "status": entry.status,
                    "finite": entry.finite,
                    "float32": {"input": number(entry.input), "output": number(entry.output)},
                    "float64": {"input": number(entry.input64), "output": number(entry.output64)},
                }
                for entry in self.entries
            ],
        }


def number(gap: Gap) -> float | None:
    """Returns the absolute difference; None if it is infinite."""
    return None if math.isinf(gap.absolute) else gap.absolute


def common_parent(a: str, b: str) -> str:
    """Returns the innermost module with both: embedder.pos_emb, embedder.layer_norm -> embedder."""
    shared = []
    for left, right in zip(a.split("."), b.split("."), strict=False):
        if left != right:
            break
        shared.append(left)
    return ".".join(shared)


# --- text ------------------------------------------------------------------------------------------


def render_report(report: Report) -> str:
    """Renders the report in at most 80 columns: a line per layer, and the first difference in full."""
    check_type("report", report, Report, "the result of verify")
    title = " ".join(filter(None, ["minitx against transformers", report.transformers + ":"]))
    model = report.model_type + (f" {report.task}" if report.task else "")
    head = f"{title} {model}, attention {report.attention}"
    lines = [*fill(head), *fill(report.inputs), ""]
    lines.append(f"{'':<40}{'max difference':>27}")
    lines.append(f"{'':<31}{'modules':>9}{'float32':>13}{'float64':>13}")
    lines.append("-" * 80)
    for name, entries in groups(report.entries).items():
        lines.append(group_line(name, entries, vanishing=bool(report.cancelled)))
        if report.first in entries:
            lines += [detail_line(entry, name) for entry in entries]
    lines.append("-" * 80)
    return "\n".join([*lines, *verdict(report)])


def groups(entries: tuple[ComparedCall, ...]) -> dict[str, list[ComparedCall]]:
    """Groups entries by layer; a layer that runs several times has a group per call."""
    grouped: dict[str, list[ComparedCall]] = {}
    for entry in entries:
        parts = entry.module.split(".")
        name = ".".join(parts[:3]) if parts[1:2] == ["layers"] else parts[0]
        if entry.call and name != parts[0]:
            name += f" (step {entry.call + 1})"
        grouped.setdefault(name, []).append(entry)
    return grouped


def group_line(name: str, entries: list[ComparedCall], *, vanishing: bool) -> str:
    """Renders the largest differences of a group."""
    single = max((entry.output for entry in entries), key=lambda gap: gap.absolute)
    double = max((entry.output64 for entry in entries), key=lambda gap: gap.absolute)
    modules = str(len(entries)) if entries[0].partner else ""
    return (
        f"{name:<31}{modules:>9}{size(single):>13}{size(double):>13}   {mark(entries, vanishing=vanishing)}"
    )


def detail_line(entry: ComparedCall, group: str) -> str:
    """Renders the differences of one module's input and output in float64, where they are not rounding."""
    name = entry.module.removeprefix(group.partition(" ")[0] + ".")
    text = f"  {name:<36.36} in {size(entry.input64):<8} out {size(entry.output64):<8}"
    return f"{text:<66}   {mark([entry])}"


def mark(entries: list[ComparedCall], *, vanishing: bool = False) -> str:
    """Renders the worst status of a group; `vanishing` if differences have no effect on the outputs."""
    statuses = {entry.status for entry in entries}
    worst = next(s for s in ("differs", "rounding", "float32 inside", "ok") if s in statuses)
    if worst == "differs" and vanishing:
        return "VANISHES"
    if worst != "differs" and not all(entry.finite for entry in entries):
        return "NOT FINITE"
    return {"differs": "DIFF", "rounding": "OK (round)", "float32 inside": "OK (f32)", "ok": "OK"}[worst]


def size(gap: Gap) -> str:
    """Renders an absolute difference."""
    return "0" if gap.absolute == 0 else f"{gap.absolute:.1e}"


def fill(text: str) -> list[str]:
    """Wraps a text."""
    return textwrap.wrap(text, 79)


def verdict(report: Report) -> list[str]:
    """Renders the conclusion and notes on the table."""
    entry = report.first
    notes: list[str] = []
    statuses = {r.status for r in report.entries}
    if "rounding" in statuses:
        notes += fill("(round): more than 1e-5 apart in float32, but equal in float64: rounding.")
    if "float32 inside" in statuses:
        notes += fill("(f32): one side computes a step in float32 even in a float64 run.")
    if report.unpaired:
        notes += fill(f"Compared through their neighbours only: {', '.join(report.unpaired)}.")
    bad = report.not_finite
    if entry is None and bad is not None:
        return [
            *notes,
            *fill(f"NOT FINITE: the outputs hold NaN or infinity, first in {bad.module}."),
            *fill("transformers computes the same, so the weights are the cause; check them for NaN."),
        ]
    if entry is None:
        count = len([r for r in report.entries if r.partner])
        worst = max((r.output.absolute for r in report.entries), default=0.0)
        exact = "bit for bit" if worst == 0 else f"largest difference {worst:.1e} in float32"
        if report.cancelled:
            modules = ", ".join(dict.fromkeys(r.module for r in report.cancelled[:4]))
            more = f" and {len(report.cancelled) - 4} more" if len(report.cancelled) > 4 else ""
            return [
                *notes,
                *fill("EQUAL: the outputs agree."),
                *fill(f"Differences that vanish: {modules}{more}. Scaling stands at another place."),
            ]
        return [*notes, *fill(f"EQUAL: all {count} module calls and the outputs agree ({exact}).")]
    if report.culprit == (entry.module,):
        where = "its output differs though its input is equal"
    else:
        where = f"the input of {entry.module} differs though all earlier outputs are equal"
    call = f" (call {entry.call + 1})" if entry.call else ""
    why = f"{size(entry.float32)} in float32 and {size(entry.float64)} in float64: not rounding."
    return [
        *notes,
        *fill(f"DIFFERENT, first in {', '.join(report.culprit)}{call}:"),
        *fill(where + "."),
        *fill(why),
    ]
