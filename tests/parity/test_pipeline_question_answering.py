"""Question answering against the pipeline of transformers 4.57.6, by its fixtures."""

from __future__ import annotations

from typing import Any

import pytest

import minitx
from tests.parity.pipeline_fixtures import Case, cases

TASK = "question-answering"
# Of transformers' runner, which minitx does not need.
RUNNER = ("padding", "batch_size", "max_question_len")


def answer(case: Case) -> Any:
    """The result of minitx for a case."""
    pipe = minitx.pipeline(case.task, case.folder, **case.pipeline_arguments)
    arguments = {name: value for name, value in case.call_arguments.items() if name not in RUNNER}
    return pipe(*case.inputs, **arguments)


@pytest.mark.parametrize("case", list(cases(TASK)))
def test_answers(case: Case) -> None:
    case.check(answer(case), tolerance=1e-6)


@pytest.mark.parametrize("case", list(cases(TASK, errors=True)))
def test_errors(case: Case) -> None:
    with pytest.raises((TypeError, ValueError)):
        answer(case)
