#!/usr/bin/env python
"""Write tests/parity/fixtures/pipelines/: results of the pipelines of transformers 4.57.6.

transformers 5 no longer has them. Run it in a separate environment:

    python -m venv old
    old/bin/pip install transformers==4.57.6 torch sentencepiece protobuf "pandas<3"
    old/bin/python scripts/make_pipeline_fixtures.py

Folders are tiny random checkpoints; tests/parity/pipeline_fixtures.py has the format of the cases.
Each case has a new pipeline, runs in float32 and then in float64; where the two differ, so that a rounding
error decides, it is left out; so it is where answers tie with a score of 0.
"""

from __future__ import annotations

import copy
import json
import math
import os
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch
import transformers

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from pipeline_fixtures.cases import TASKS  # noqa: E402 - found by the line above
from pipeline_fixtures.checkpoints import CHECKPOINTS, write_checkpoint  # noqa: E402

VERSION = "4.57.6"
FOLDER = ROOT / "tests/parity/fixtures/pipelines"
TOLERANCE = 1e-5


def plain(value: Any) -> Any:
    """The result of a pipeline as JSON has it: tensors and tuples are lists."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value.item() if hasattr(value, "item") else value


def outcome(case: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """`result`, or the class and text of the error."""
    case = copy.deepcopy(case)  # pipelines change the dicts that they get
    try:
        pipe = transformers.pipeline(
            case["task"],
            model=str(FOLDER / case["model"]),
            dtype=torch.float32,
            device="cpu",
            **case["pipeline_arguments"],
        )
        pipe.model.to(dtype)
        return {"result": plain(pipe(*case["inputs"], **case["call_arguments"]))}
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the tokenizers library panics with one that is no Exception
        text = str(error).replace(f"{FOLDER}/", "")
        return {"error": {"class": type(error).__name__, "text": text}}


def equal(first: Any, second: Any) -> bool:
    """Whether two results are equal, numbers within TOLERANCE."""
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(equal(first[name], second[name]) for name in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(equal, first, second))
    return type(first) is type(second) and first == second


def ties(result: Any) -> bool:
    """Whether answers have a score of 0: their order is up to the sort of a library."""
    if isinstance(result, list):
        return any(map(ties, result))
    return isinstance(result, dict) and result.get("score") == 0


def record(task: str) -> None:
    """Run the cases of a task and write its file."""
    cases, left_out, errors = [], 0, 0
    for case in TASKS[task]():
        single, double = (outcome(case, dtype) for dtype in (torch.float32, torch.float64))
        if "error" in single or (equal(single, double) and not ties(single["result"])):
            cases.append(case | single)
            errors += "error" in single
        else:
            left_out += 1
    lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases)
    source = json.dumps(f"transformers {VERSION}, scripts/make_pipeline_fixtures.py")
    text = f'{{"source":{source},\n"cases":[\n{lines}\n]}}\n'
    (FOLDER / f"{task}.json").write_text(text, encoding="utf-8")
    print(f"{task}: {len(cases)} cases, {errors} of them errors; {left_out} left out")


def main() -> None:
    """Write the folders, then the files; arguments name the tasks whose files alone are to be written."""
    assert transformers.__version__ == VERSION, f"run this with transformers {VERSION}"
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    chosen = sys.argv[1:]
    if not chosen:
        for name, checkpoint in CHECKPOINTS.items():
            write_checkpoint(FOLDER / name, checkpoint)
    for task in chosen or TASKS:
        record(task)


if __name__ == "__main__":
    main()
