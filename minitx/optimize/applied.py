"""What `minitx.optimize` did to a model."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

REPORT = "optimization"  # the attribute of a model
_WIDTH = 80


@dataclass(frozen=True)
class AppliedPass:
    """One pass that was applied.

    Attributes:
        name: of the function in `minitx.optimize`.
        does: what it does.
        exactness: how the outputs differ from those without it.
        cost: memory that it takes.
        undo: name of the function that undoes it.
    """

    name: str
    does: str
    exactness: str
    cost: str
    undo: str


@dataclass(frozen=True, repr=False)
class Report:
    """What `minitx.optimize` did; it is shown in 80 columns.

    Attributes:
        model: name of the model's class.
        dtype: of its parameters.
        processor: instructions that PyTorch uses.
        threads: number of threads when it was applied.
        applied: the passes, in their order.
        left_out: name of a pass -> why it was not applied.
    """

    model: str
    dtype: str
    processor: str
    threads: int
    applied: tuple[AppliedPass, ...]
    left_out: Mapping[str, str]

    def __repr__(self) -> str:
        dtype, threads = self.dtype.removeprefix("torch."), "thread" if self.threads == 1 else "threads"
        lines = [f"{self.model}, {dtype}, {self.processor}, {self.threads} {threads}"]
        for step in self.applied:
            lines.append(f"  {step.name}: {step.does}")
            for label, text in (("exactness", step.exactness), ("cost", step.cost), ("undo", step.undo)):
                lines.append(f"    {label}: {text}")
        lines += [f"  left out: {name}, {reason}" for name, reason in self.left_out.items()]
        if self.applied:
            lines.append("  minitx.save writes the model as it was loaded; undo_optimize restores it.")
        else:
            lines.append("  nothing was applied.")
        wrapped = [textwrap.wrap(line, _WIDTH, subsequent_indent=" " * 6) for line in lines]
        return "\n".join(line for part in wrapped for line in part)


def note_undone(model: nn.Module, name: str) -> None:
    """Notes in the report of a model, if it has one, that a pass was undone by its own function."""
    report: Report | None = vars(model).get(REPORT)
    if report is not None and any(step.name == name for step in report.applied):
        applied = tuple(step for step in report.applied if step.name != name)
        left = {**report.left_out, name: "undone since"}
        vars(model)[REPORT] = replace(report, applied=applied, left_out=left)
