"""The result of `trace`: a tree of steps, as data and as text of at most 80 columns."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

from minitx.pictures.text import WIDTH, columns_of, cut_columns, fill
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_integer

UNITS = ("", "k", "M", "G", "T", "P", "E")


@dataclass(frozen=True)
class Entry:
    """One number of a value.

    Attributes:
        value: the number.
        place: where it is, such as "head 2, 'cat' to 'The'".
    """

    value: float
    place: str


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a forward, or several of them together.

    Attributes:
        name: path, such as "decoder.layers.0.attention.self_attention.scores".
        equation: how it is computed, with the sizes and constants of this model.
        axes: name and size of each dimension of its value.
        parameters: number of parameters that it uses; those of its parts together.
        flops: floating-point operations of its matrix products, a multiplication and an addition each.
        largest: the numbers of the value with the largest magnitude.
        note: further lines, such as the tokens.
        difference: largest difference from the recomputation in float64; that of its parts, if it has any.
            None: not recomputed.
        relative: the same as a share of the value's largest magnitude, or of 1 if that is smaller.
        steps: the steps that it consists of.
    """

    name: str
    equation: str = ""
    axes: tuple[tuple[str, int], ...] = ()
    parameters: int = 0
    flops: int = 0
    largest: tuple[Entry, ...] = ()
    note: str = ""
    difference: float | None = None
    relative: float | None = None
    steps: tuple[Step, ...] = ()

    def walk(self) -> Iterator[Step]:
        """Yields this step and all steps in it, in the order in which they run."""
        yield self
        for step in self.steps:
            yield from step.walk()


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The steps from text to answer; `print` shows them.

    Attributes:
        title: model and size.
        steps: the outermost steps.
        depth: levels of steps that are shown.
        checked: whether the steps were recomputed.
        tolerance: largest relative difference that rounding explains, in the dtype of the model.
    """

    title: str
    steps: tuple[Step, ...]
    depth: int = 1
    checked: bool = False
    tolerance: float = 0.0

    def walk(self) -> Iterator[Step]:
        """Yields all steps, in the order in which they run."""
        for step in self.steps:
            yield from step.walk()

    def __getitem__(self, name: str) -> Step:
        """Returns the step of a name.

        Raises:
            ArgumentTypeError, ArgumentValueError: not a name of a step.
        """
        steps = self.at(name).steps
        if len(steps) != 1 or steps[0].name != name:
            raise ArgumentValueError("name", name, "the name of one step", f"{steps[0].name} is in it")
        return steps[0]

    def at(self, name: str, depth: int | None = None) -> Trace:
        """Returns a part of the trace.

        Args:
            name: of a step, or the beginning of names up to a dot: "encoder" has the whole encoder.
            depth: levels of steps that are shown; None: all.

        Raises:
            ArgumentTypeError: not a string.
            ArgumentValueError: no step of that name; the message has similar names.
        """
        if not isinstance(name, str):
            raise ArgumentTypeError("at", name, "the name of a step")
        depth = MOST if depth is None else check_integer("depth", depth, 1)
        steps = [step for step in self.walk() if step.name == name][:1]
        if not steps:
            inside = [step for step in self.walk() if step.name.startswith(f"{name}.")]
            parts = {part.name for step in inside for part in step.walk() if part is not step}
            steps = [step for step in inside if step.name not in parts]
        if not steps:
            names = [step.name for step in self.walk()]
            similar = get_close_matches(name, names, n=3, cutoff=0.4) or names[:3]
            raise ArgumentValueError("at", name, "the name of a step", f"similar: {', '.join(similar)}")
        return Trace(
            title=self.title, steps=tuple(steps), depth=depth, checked=self.checked, tolerance=self.tolerance
        )

    @property
    def difference(self) -> float:
        """The largest difference from the recomputation, infinity if one is NaN; 0.0 without one."""
        values = [step.difference for step in self.walk() if step.difference is not None]
        return max((math.inf if math.isnan(value) else value for value in values), default=0.0)

    @property
    def unchecked(self) -> tuple[str, ...]:
        """Names of steps that were not recomputed: their functions are unknown."""
        steps = [step for step in self.walk() if step.difference is None and not step.steps]
        unknown = [step.name for step in steps if step.largest or step.equation.startswith(UNKNOWN)]
        return tuple(unknown) if self.checked else ()

    @property
    def ok(self) -> bool:
        """Whether rounding explains every difference; it does not explain NaN."""
        shares = [step.relative for step in self.walk() if step.relative is not None]
        return all(share <= self.tolerance for share in shares)

    def to_json(self) -> dict[str, Any]:
        """Returns the same data as plain lists and dicts, to the depth that is shown."""
        plain: dict[str, Any] = {"title": self.title, "checked": self.checked, "ok": self.ok}
        plain |= {"difference": _finite(self.difference)}
        return plain | {"steps": [_plain(step, self.depth) for step in self.steps]}

    def __str__(self) -> str:
        """Returns the steps as text."""
        lines = [self.title, ""]
        for step in self.steps:
            lines += _lines(step, 0, self.depth)
        if self.checked:
            lines += ["", self._verdict()]
        return "\n".join(lines)

    __repr__ = __str__

    def _verdict(self) -> str:
        count = sum(step.difference is not None and not step.steps for step in self.walk())
        verdict = "OK" if self.ok else "DIFFERENT"
        text = f"{verdict}: {count} steps recomputed in float64, largest difference {self.difference:.1e}"
        text += "" if self.ok else f", more than rounding explains (relative {self.tolerance:.0e})"
        if self.unchecked:
            text += f"; not recomputed: {', '.join(self.unchecked[:3])}{' ...' * (len(self.unchecked) > 3)}"
        return fill(text + ".", WIDTH - 1)


MOST = 100  # deeper than any trace
UNKNOWN = "the forward of "  # begins the equation of a module that the table does not have


def amount(number: int, unit: str) -> str:
    """Formats a count: 12_500, "FLOP" -> "12.5 kFLOP"."""
    value, index = float(number), 0
    while value >= 999.95 and index < len(UNITS) - 1:
        value, index = value / 1000, index + 1
    return f"{number} {unit}" if index == 0 else f"{value:.1f} {UNITS[index]}{unit}"


def short(number: float) -> str:
    """Formats a number in three significant digits, an integer in all of its digits."""
    return f"{int(number)}" if number == int(number) and abs(number) < 1e7 else f"{number:.3g}"


def _plain(step: Step, depth: int) -> dict[str, Any]:
    """Returns a step as plain data, without the steps that are deeper."""
    fields = {name: value for name, value in vars(step).items() if name != "steps"}
    fields |= {name: _finite(fields[name]) for name in ("difference", "relative")}
    plain = fields | {"axes": dict(step.axes), "largest": [asdict(entry) for entry in step.largest]}
    return plain | {"steps": [_plain(part, depth - 1) for part in step.steps] if depth > 1 else []}


def _finite(number: float | None) -> float | None:
    """Returns None for NaN and infinity, which JSON does not have."""
    return number if number is not None and math.isfinite(number) else None


def _lines(step: Step, level: int, depth: int) -> list[str]:
    """Returns the lines of a step and of those in it, indented by level."""
    indent = "  " * level
    name = step.name if level == 0 else step.name.rpartition(".")[2]
    lines = _hanging(f"{indent}{name}", step.equation, indent)
    details = [", ".join(f"{axis} {size}" for axis, size in step.axes)]
    details += [f"{step.parameters:,} parameters"] if step.parameters else []
    details += [amount(step.flops, "FLOP")] if step.flops else []
    if text := "; ".join(filter(None, details)):
        lines += _wrapped(text, f"{indent}    ")
    for line in step.note.splitlines():
        lines += _wrapped(line, f"{indent}    ")
    start = "" if step.difference is None else f"check {step.difference:.1e}; "
    if step.largest:
        lines.append(_largest(step.largest, f"{indent}    {start}largest "))
    elif start:
        lines.append(f"{indent}    {start[:-2]}")
    for part in step.steps if depth > 1 else ():
        lines += _lines(part, level + 1, depth - 1)
    return lines


def _hanging(start: str, text: str, indent: str) -> list[str]:
    """Returns a name and a text after it, which continues on lines below if it is long."""
    if columns_of(start) + columns_of(text) + 2 <= WIDTH:
        return [f"{start}  {text}".rstrip()]
    return [start, *_wrapped(text, f"{indent}    ")]


def _wrapped(text: str, indent: str) -> list[str]:
    """Wraps a line at spaces, but for those of tokens in quotes."""
    kept = re.sub(r"'[^',]+'", lambda match: match[0].replace(" ", "\0"), text)
    return [indent + line.replace("\0", " ") for line in fill(kept, WIDTH - len(indent)).splitlines()]


def _largest(entries: tuple[Entry, ...], start: str) -> str:
    """Returns as many entries as fit into one line, at least the first."""
    line = start
    for number, entry in enumerate(entries):
        text = ("; " if number else "") + f"{short(entry.value)} at {entry.place}".removesuffix(" at ")
        if number and columns_of(line + text) > WIDTH:
            break
        line += text
    return cut_columns(line, WIDTH)
