"""Cases of the pipelines that transformers 5 dropped, with the results of 4.57.6.

`scripts/make_pipeline_fixtures.py` writes them, into tests/parity/fixtures/pipelines/:

    <model>/      a tiny random checkpoint, an ordinary folder: config.json, model.safetensors (float16),
                  tokenizer files; some have generation_config.json
    <task>.json   {"source": ..., "cases": [...]}, one case a line

A case is

    {
        "model": name of the folder,
        "task": name of the task, e.g. "translation_en_to_fr" in translation.json,
        "pipeline_arguments": further keyword arguments of pipeline(),
        "inputs": positional arguments of the call, often none,
        "call_arguments": keyword arguments of the call,
        "result": what the call returned, or
        "error": {"class": name, "text": message}
    }

and 4.57.6 ran, with a new pipeline for each case and in float32,

    pipeline(task, model=folder, **pipeline_arguments)(*inputs, **call_arguments)

In a result, tensors and tuples are lists (coordinates of cells, token ids).
Cases in which float32 and float64 differ by more than 1e-5, or whose answers tie, are not recorded.

    @pytest.mark.parametrize("case", cases("question-answering"))
    def test_answers(case: Case) -> None:
        pipe = pipeline(case.task, case.folder, **case.pipeline_arguments)
        case.check(pipe(*case.inputs, **case.call_arguments))
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "fixtures" / "pipelines"
TASKS = (
    "question-answering",
    "summarization",
    "text2text-generation",
    "translation",
    "table-question-answering",
)


@dataclass(frozen=True)
class Case:
    """One recorded call.

    Attributes:
        model: name of the checkpoint.
        task: task of the pipeline.
        pipeline_arguments: keyword arguments of `pipeline`.
        inputs: positional arguments of the call.
        call_arguments: keyword arguments of the call.
        result: result of 4.57.6; None after an error.
        error: class and text of the error of 4.57.6; None after a result.
    """

    model: str
    task: str
    pipeline_arguments: dict[str, Any]
    inputs: list[Any]
    call_arguments: dict[str, Any]
    result: Any = None
    error: dict[str, str] | None = None

    @property
    def folder(self) -> Path:
        """The folder of the checkpoint."""
        return FOLDER / self.model

    def check(self, result: Any, tolerance: float = 1e-5) -> None:
        """Compares a result with the recorded one, numbers within `tolerance`."""
        difference = first_difference(_plain(result), self.result, tolerance)
        assert difference is None, difference


def cases(task: str, *models: str, errors: bool = False) -> Iterator[Any]:
    """Yields the parameters of `pytest.mark.parametrize` for a file of TASKS.

    Args:
        task: name of the file.
        *models: checkpoints whose cases are wanted; none for all.
        errors: whether to yield the cases that end in an error, instead of those with a result.
    """
    for number, content in enumerate(_file(task)):
        if ("error" in content) == errors and (not models or content["model"] in models):
            # Pipelines may change the lists and dicts that they get.
            yield pytest.param(Case(**copy.deepcopy(content)), id=f"{content['model']}-{number}")


def first_difference(actual: Any, expected: Any, tolerance: float, place: str = "result") -> str | None:
    """Returns where and how two results differ, None if they are equal."""
    if isinstance(expected, dict) and isinstance(actual, dict) and actual.keys() == expected.keys():
        pairs = [(f"{place}[{name!r}]", actual[name], expected[name]) for name in expected]
    elif isinstance(expected, list) and isinstance(actual, list) and len(actual) == len(expected):
        both = zip(actual, expected, strict=True)
        pairs = [(f"{place}[{number}]", *values) for number, values in enumerate(both)]
    else:
        numbers = isinstance(expected, float) and isinstance(actual, float)
        equal = abs(actual - expected) <= tolerance if numbers else actual == expected
        return None if equal else f"{place}: {actual!r} instead of {expected!r}"
    differences = (first_difference(left, right, tolerance, at) for at, left, right in pairs)
    return next((difference for difference in differences if difference), None)


@cache
def _file(task: str) -> list[dict[str, Any]]:
    content = json.loads((FOLDER / f"{task}.json").read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = content["cases"]
    return found


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
