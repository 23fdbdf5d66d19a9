"""The fixtures of the pipelines are whole: every task has cases, and their checkpoints are there."""

from __future__ import annotations

import pytest
import torch

from tests.parity.pipeline_fixtures import FOLDER, TASKS, Case, cases, first_difference


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_cases_of_checkpoints_that_lie_there(task: str) -> None:
    results, errors = list(cases(task)), list(cases(task, errors=True))
    assert len(results) > 60
    assert errors
    for parameter in (*results, *errors):
        (case,) = parameter.values
        assert (case.folder / "model.safetensors").is_file()


def test_cases_can_be_chosen_by_model() -> None:
    chosen = [parameter.values[0].model for parameter in cases("translation", "marian", "nllb")]
    assert set(chosen) == {"marian", "nllb"}


def test_the_fixtures_stay_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 2_500_000


def test_a_result_is_compared_within_a_tolerance_and_with_its_nesting() -> None:
    expected = [{"score": 0.5, "answer": "a"}, {"ids": [1, 2]}]
    case = Case("bert", "question-answering", {}, [], {}, result=expected)
    case.check(({"score": 0.500001, "answer": "a"}, {"ids": torch.tensor([1, 2])}))
    with pytest.raises(AssertionError, match=r"result\[0\]\['score'\]: 0.6 instead of 0.5"):
        case.check([{"score": 0.6, "answer": "a"}, {"ids": [1, 2]}])
    assert first_difference(expected[:1], expected[0], 1e-5) is not None
