"""The referee: compares the answers of engines before a speed is shown.

The first engine is the reference. Tokens must be the same, and logits, vectors and losses within a stated
distance of its own. Where the tokens of two exact engines part at two logits that are equal up to rounding,
that is a tie, which is reported. The differences of an engine that is not exact, such as one with int8
weights, are reported as numbers; beyond the limit that it states the answer is refused.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from minitx.bench.engine import TOP_K, Engine, Rows
from minitx.bench.workloads import Workload

Kind = Literal["reference", "same", "tie", "differs", "wrong", "not compared"]

CLOSE = {"float32": 1e-3, "float64": 1e-6}  # distance of exact engines, of the largest value
TIED = {"float32": 1e-4, "float64": 1e-8}  # difference of two logits up to rounding, of the largest value
ROUNDED = 0.1  # the same of engines in bfloat16 and float16; of others that are not exact: `Engine.limit`
CHECKED = 4  # places whose logits are compared; drawn tokens whose rank by the reference is checked


@dataclass(frozen=True)
class Verdict:
    """The comparison of an engine's answer with that of the reference.

    Attributes:
        kind: "same" within the stated distance; "tie" where tokens part at equal logits; "differs" for an
            engine that is not exact; "wrong": no speed is shown.
        distance: largest difference of logits, vectors or losses, of the reference's largest value.
        agreement: share of tokens up to the first difference of each row; None without tokens.
        position: row and token of the first difference; None without one.
        margin: of a tie, the difference of the two logits or scores.
        note: in words, where there is more to know.
    """

    kind: Kind
    distance: float | None = None
    agreement: float | None = None
    position: tuple[int, int] | None = None
    margin: float | None = None
    note: str = ""

    @property
    def accepted(self) -> bool:
        """Whether a speed may be shown."""
        return self.kind != "wrong"

    def to_json(self) -> dict[str, Any]:
        """Returns the attributes that are not None; a distance that is not finite is left out."""
        values = {name: value for name, value in asdict(self).items() if value not in (None, "")}
        return {n: v for n, v in values.items() if not isinstance(v, float) or math.isfinite(v)}


def distance_of(answer: Tensor, reference: Tensor) -> float:
    """Returns the largest difference of two tensors, as a share of the reference's largest value.

    A shape that differs, or a value that is not finite, is at infinite distance.
    """
    if answer.shape != reference.shape or not bool(answer.isfinite().all()):
        return torch.inf
    largest = float(reference.abs().max()) or 1.0
    return float((answer.double() - reference.double()).abs().max()) / largest


def compare_tensors(answer: Tensor, reference: Tensor, limit: float, *, exact: bool) -> Verdict:
    """Compares logits, vectors or losses.

    Args:
        answer: of the engine.
        reference: of the reference.
        limit: largest distance that is accepted.
        exact: whether an accepted answer counts as the same.
    """
    distance = distance_of(answer, reference)
    note = f"distance {distance:.1e} above {limit:g}" if distance > limit else ""
    return Verdict("wrong" if note else "same" if exact or distance == 0 else "differs", distance, note=note)


def first_differences(answer: Rows, reference: Rows) -> list[int | None]:
    """Returns the place of the first difference of each row; None where rows are the same."""
    places: list[int | None] = []
    for row, other in zip(answer, reference, strict=True):
        pairs = (i for i, (a, b) in enumerate(zip(row, other, strict=False)) if a != b)
        shorter = min(len(row), len(other))
        places.append(next(pairs, None if len(row) == len(other) else shorter))
    return places


def agreement_of(places: list[int | None], reference: Rows) -> float:
    """Returns the share of tokens before the first difference of their row."""
    total = sum(map(len, reference))
    agreeing = sum(len(row) if at is None else at for row, at in zip(reference, places, strict=True))
    return agreeing / total if total else 1.0


class Referee:
    """Compares the answers of engines to one workload.

    Attributes:
        workload: the workload.
        rows: its token ids.
        engine: the reference.
        answer: its answer.
        dtype: of the setup.
    """

    def __init__(self, workload: Workload, rows: Rows, engine: Engine, answer: Any, dtype: str) -> None:
        self.workload, self.rows, self.engine = workload, rows, engine
        self.answer, self.dtype = answer, dtype

    def verdict(self, engine: Engine, answer: Any) -> Verdict:
        """Compares the answer of an engine with that of the reference."""
        call = self.workload.call
        if call == "import":
            return Verdict("not compared")
        if call == "sample":
            return self._drawn(engine, answer)
        if call == "generate" or call == "start":
            return self._tokens(engine, answer)
        tensor, reference = (torch.as_tensor(value) for value in (answer, self.answer))
        return compare_tensors(tensor, reference, self._limit(engine), exact=self._is_exact(engine))

    def _is_exact(self, engine: Engine) -> bool:
        """Returns whether an engine and the reference compute in the dtype of the setup, a precise one."""
        return engine.exact and self.engine.exact and self.dtype in CLOSE

    def _limit(self, engine: Engine) -> float:
        """Returns the largest distance of an engine's numbers that is accepted."""
        if self._is_exact(engine):
            return CLOSE[self.dtype]
        rounding = [e.limit for e in (engine, self.engine) if not e.exact]
        return max([*rounding, CLOSE.get(self.dtype, ROUNDED)])

    def _tokens(self, engine: Engine, answer: Rows) -> Verdict:
        places = first_differences(answer, self.answer)
        agreement = agreement_of(places, self.answer)
        differing = [(row, at) for row, at in enumerate(places) if at is not None]
        position = min(differing, key=lambda pair: pair[1]) if differing else None
        if any(len(row) != len(other) for row, other in zip(answer, self.answer, strict=True)):
            return Verdict("wrong", agreement=agreement, position=position, note="another number of tokens")
        distance, limit = self._logits_distance(engine, position), self._limit(engine)
        if distance is not None and distance > limit:
            note = f"logits at distance {distance:.1e}, above {limit:g}"
            return Verdict("wrong", distance, agreement, position, note=note)
        if not differing or not self._is_exact(engine):
            return Verdict("differs" if differing else "same", distance, agreement, position)
        return self._tie(answer, differing, Verdict("tie", distance, agreement, position))

    def _tie(self, answer: Rows, differing: list[tuple[int, int]], verdict: Verdict) -> Verdict:
        """Returns the verdict on tokens that differ: a tie, or wrong."""
        if "prefill" not in self.engine.calls or self.workload.call == "start":
            return _with(verdict, "wrong", note="tokens differ, and there are no logits to compare")
        margins = [self._margin(answer, row, at) for row, at in differing]
        margin, largest = max(margins, key=lambda pair: pair[0] / pair[1])
        if margin <= TIED[self.dtype] * largest:
            return _with(verdict, "tie", margin=margin)
        kind = "scores" if self.workload.num_beams > 1 else "logits"
        note = f"tokens differ where {kind} differ by {margin:.2g}"
        return _with(verdict, "wrong", margin=margin, note=note)

    def _margin(self, answer: Rows, row: int, at: int) -> tuple[float, float]:
        """Returns how much the reference prefers its own tokens of a row, and the size of its numbers."""
        own, prompt = self.answer[row], self.rows[row]
        if self.workload.num_beams == 1:
            logits = self.engine.prefill([prompt], [own[:at]])[0]
            margin = abs(float(logits[own[at]] - logits[answer[row][at]]))
            return margin, float(logits.abs().max()) or 1.0
        sums = [self._log_probability(prompt, tokens) for tokens in (own, answer[row])]
        return abs(sums[0] - sums[1]), abs(sums[0]) or 1.0

    def _log_probability(self, prompt: list[int], tokens: list[int]) -> float:
        steps = ((i, self.engine.prefill([prompt], [tokens[:i]])[0]) for i in range(len(tokens)))
        return sum(float(logits.double().log_softmax(-1)[tokens[i]]) for i, logits in steps)

    def _logits_distance(self, engine: Engine, position: tuple[int, int] | None) -> float | None:
        """Returns the largest distance of the logits at several places, after the reference's tokens."""
        able = "prefill" in engine.calls and "prefill" in self.engine.calls
        if not able or not self.rows or self.workload.call == "start":  # whose engines are not loaded
            return None
        distances = []
        for row, at in self._places(position):
            written = self.answer[row][:at]
            logits = [e.prefill([self.rows[row]], [written]) for e in (engine, self.engine)]
            distances.append(distance_of(*logits))
        return max(distances)

    def _places(self, position: tuple[int, int] | None) -> list[tuple[int, int]]:
        """Returns rows and tokens: from the first row's start to the last one's end, and the difference."""
        gaps, last = CHECKED - 1, len(self.rows) - 1
        rows = [i * last // gaps for i in range(CHECKED)]
        spread = [(row, i * max(0, len(self.answer[row]) - 1) // gaps) for i, row in enumerate(rows)]
        return [*dict.fromkeys(spread if position is None else [*spread, position])]

    def _drawn(self, engine: Engine, answer: Rows) -> Verdict:
        """Checks that drawn tokens are among those that the reference would draw from."""
        new = self.workload.new_lengths()
        if len(answer) != len(self.rows) or any(len(row) != new for row in answer):
            return Verdict("wrong", note="another number of tokens")
        if "prefill" not in self.engine.calls:
            return Verdict("not compared")
        for at in range(min(CHECKED, len(answer[0]))):
            logits = self.engine.prefill([self.rows[0]], [answer[0][:at]])[0]
            rank = int((logits > logits[answer[0][at]]).sum())
            if rank >= (TOP_K if engine.exact else 4 * TOP_K):
                note = f"drew the token of rank {rank + 1}, not of the first {TOP_K}"
                return Verdict("wrong", position=(0, at), note=note)
        return Verdict("same", note=f"drawn from the {TOP_K} most probable")


def _with(verdict: Verdict, kind: Kind, *, margin: float | None = None, note: str = "") -> Verdict:
    numbers = (verdict.distance, verdict.agreement, verdict.position)
    return Verdict(kind, *numbers, margin=margin, note=note)
