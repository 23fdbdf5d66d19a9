"""The referee: what it accepts, what it reports, and what it refuses."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from minitx.bench.engine import Rows
from minitx.bench.referee import CHECKED, Referee, compare_tensors, distance_of, first_differences
from minitx.bench.workloads import WORKLOADS, Workload
from tests.unit.bench.fakes import VOCAB, Fake, Nonsense, Rounded, Wrong

ROWS = [[1, 2, 3], [4, 5, 6]]
DECODE = Workload("d", "", "generate", ("decoder",), 2, 3, new_tokens=6)


class Tied(Fake):
    """Prefers two tokens equally, up to rounding."""

    def prefill(self, rows: Rows, written: Rows | None = None) -> Tensor:
        logits = super().prefill(rows, written)
        logits[:, 0] = logits.max() - 1e-6
        return logits


def referee(workload: Workload = DECODE, dtype: str = "float32", engine: Fake | None = None) -> Referee:
    engine = Fake() if engine is None else engine
    answer = engine.generate(ROWS, workload.new_tokens)
    return Referee(workload, ROWS, engine, answer, dtype)


def test_first_differences() -> None:
    assert first_differences([[1, 2], [1, 3], [1]], [[1, 2], [1, 2], [1, 2]]) == [None, 1, 1]


def test_the_same_tokens_and_logits_are_the_same() -> None:
    verdict = referee().verdict(Fake(), Fake().generate(ROWS, 6))
    assert (verdict.kind, verdict.distance, verdict.agreement) == ("same", 0.0, 1.0)


def test_a_wrong_token_is_refused_with_its_place() -> None:
    verdict = referee().verdict(Wrong(), Wrong().generate(ROWS, 6))
    assert verdict.kind == "wrong"
    assert not verdict.accepted
    assert verdict.position == (0, 2)
    assert verdict.agreement == pytest.approx(2 / 6)
    assert verdict.margin == pytest.approx(10.0)


def test_wrong_logits_are_refused_where_the_tokens_agree() -> None:
    class OtherLogits(Fake):
        def prefill(self, rows: Rows, written: Rows | None = None) -> Tensor:
            return super().prefill(rows, written) * 1.01

    verdict = referee().verdict(OtherLogits(), Fake().generate(ROWS, 6))
    assert verdict.kind == "wrong"
    assert "distance 1.0e-02" in verdict.note


def test_tokens_that_part_at_equal_logits_are_a_tie() -> None:
    judge = referee(engine=Tied())
    verdict = judge.verdict(Tied(), Wrong().generate(ROWS, 6))
    assert verdict.kind == "tie"
    assert verdict.position == (0, 2)
    assert verdict.margin is not None
    assert verdict.margin < 1e-5


def test_differences_of_an_engine_that_is_not_exact_are_reported() -> None:
    verdict = referee().verdict(Rounded(), Rounded().generate(ROWS, 6))
    assert verdict.kind == "differs"
    assert verdict.accepted
    assert verdict.agreement == pytest.approx(2 / 6)
    # in bfloat16 no engine is exact
    assert referee(dtype="bfloat16").verdict(Wrong(), Wrong().generate(ROWS, 6)).kind == "differs"


def test_nonsense_is_refused_of_any_engine() -> None:
    assert referee().verdict(Nonsense(), Nonsense().generate(ROWS, 6)).kind == "wrong"


class Off(Fake):
    """Not exact, with logits that differ after some numbers of tokens; elsewhere they are the same."""

    exact: ClassVar[bool] = False
    share: ClassVar[float] = 0.2
    places: ClassVar[tuple[int, ...]] = (0,)

    def prefill(self, rows: Rows, written: Rows | None = None) -> Tensor:
        at = len(written[0]) if written else 0
        return super().prefill(rows, written) * (1 + self.share * (at in self.places))


@pytest.mark.parametrize("place", [0, 1, 3, 5])
def test_logits_are_compared_at_several_places(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Off, "places", (place,))
    verdict = referee().verdict(Off(), Fake().generate(ROWS, 6))
    assert (verdict.kind, verdict.distance) == ("same", pytest.approx(0.2))
    monkeypatch.setattr(Off, "share", 0.3)
    assert referee().verdict(Off(), Fake().generate(ROWS, 6)).note == "logits at distance 3.0e-01, above 0.25"


def test_an_engine_that_is_not_exact_states_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert referee().verdict(Off(), Fake().generate(ROWS, 6)).accepted
    monkeypatch.setattr(Off, "limit", 0.1)
    assert not referee().verdict(Off(), Fake().generate(ROWS, 6)).accepted
    # in bfloat16 an exact engine has a limit too
    monkeypatch.setattr(Off, "exact", True)
    assert not referee(dtype="bfloat16").verdict(Off(), Fake().generate(ROWS, 6)).accepted
    monkeypatch.setattr(Off, "share", 0.08)
    assert referee(dtype="bfloat16").verdict(Off(), Fake().generate(ROWS, 6)).accepted


def test_another_number_of_tokens_is_refused() -> None:
    assert referee().verdict(Rounded(), Rounded().generate(ROWS, 5)).kind == "wrong"


def test_beams_part_at_equal_scores_alone() -> None:
    beams = Workload("b", "", "generate", ("decoder",), 2, 3, new_tokens=3, num_beams=4)
    assert referee(beams).verdict(Wrong(), Wrong().generate(ROWS, 3)).kind == "wrong"

    class Flat(Fake):
        def prefill(self, rows: Rows, written: Rows | None = None) -> Tensor:
            return torch.zeros(len(rows), VOCAB)

    assert referee(beams, engine=Flat()).verdict(Flat(), Wrong().generate(ROWS, 3)).kind == "tie"


def test_tensors_are_compared_by_distance() -> None:
    reference = torch.tensor([1.0, -4.0])
    assert distance_of(torch.tensor([1.0, -4.4]), reference) == pytest.approx(0.1)
    assert distance_of(torch.tensor([1.0]), reference) == math.inf
    assert distance_of(torch.tensor([1.0, math.nan]), reference) == math.inf
    near = reference + torch.tensor([1e-4, 0.0])
    assert compare_tensors(near, reference, 1e-3, exact=True).kind == "same"
    assert compare_tensors(near, reference, 1e-6, exact=True).kind == "wrong"
    assert compare_tensors(near, reference, 1e-3, exact=False).kind == "differs"
    refused = compare_tensors(reference * math.inf, reference, 0.1, exact=False)
    assert refused.kind == "wrong"
    assert "distance" not in refused.to_json()


def test_drawn_tokens_must_be_among_the_most_probable() -> None:
    class Ordered(Fake):
        def prefill(self, rows: Rows, written: Rows | None = None) -> Tensor:
            return -torch.arange(100.0).repeat(len(rows), 1)

    sample = Workload("s", "", "sample", ("decoder",), 2, 3, new_tokens=5)
    judge = Referee(sample, ROWS, Ordered(), [[0] * 5] * 2, "float32")
    assert judge.verdict(Fake(), [[49] * 5] * 2).kind == "same"
    verdict = judge.verdict(Fake(), [[0] * (CHECKED - 1) + [50, 0]] * 2)
    assert (verdict.kind, verdict.position) == ("wrong", (0, CHECKED - 1))
    assert judge.verdict(Fake(), [[0] * 4] * 2).kind == "wrong"


def test_the_first_token_of_fresh_processes_is_compared_without_a_loaded_model() -> None:
    class Unloaded(Fake):
        def prefill(self, rows: Rows, written: Rows | None = None) -> Tensor:
            raise AttributeError("model")

    start = Workload("start", "", "start", ("decoder",), 1, 3, new_tokens=1)
    judge = Referee(start, ROWS[:1], Unloaded(), [[7]], "float32")
    assert judge.verdict(Unloaded(), [[7]]).kind == "same"
    assert judge.verdict(Unloaded(), [[8]]).kind == "wrong"


def test_what_cannot_be_compared_says_so() -> None:
    assert (
        Referee(WORKLOADS["import"], [], Fake(), None, "float32").verdict(Fake(), None).kind == "not compared"
    )
