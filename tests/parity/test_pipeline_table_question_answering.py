"""Table question answering against the pipelines of transformers 4.57.6, by its fixtures, and 5."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

import minitx
from tests.parity.pipeline_fixtures import Case, cases

TASK = "table-question-answering"
# Arguments that have no effect in transformers: of its runner, and of generation, which it does not pass on
IGNORED = ("padding", "batch_size", "max_new_tokens", "num_beams")


@cache
def pipe(folder: Path, options: tuple[tuple[str, Any], ...] = ()) -> Any:
    return minitx.pipeline(TASK, folder, dtype="float32", **dict(options))


def answer(case: Case) -> Any:
    """The result of minitx for a case."""
    options, arguments = (
        {name: value for name, value in values.items() if name not in IGNORED}
        for values in (case.pipeline_arguments, case.call_arguments)
    )
    return pipe(case.folder, tuple(options.items()))(*case.inputs, **arguments)


@pytest.mark.filterwarnings("ignore:.*were too long")
@pytest.mark.parametrize("model", ["tapas-wtq", "tapas-sqa", "tapex"])
def test_answers(model: str) -> None:
    rows = [row.values[0] for row in cases(TASK, model)]
    assert len(rows) > 60
    for case in rows:
        case.check(answer(case))
