"""Values of config.json that tasks use."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

import minitx
from tests.unit.pipelines.every_task import folder_for


@pytest.mark.parametrize(
    ("task", "config", "message"),
    [
        ("text-ranking", {"sentence_transformers": "x"}, "sentence_transformers='x' must be an object"),
        ("text-ranking", {"sentence_transformers": {"activation_fn": 3}}, "activation_fn=3 must be a string"),
        ("zero-shot-classification", {"label2id": {"entailment": "x"}}, "entailment='x' must be the index"),
        ("summarization", {"task_specific_params": "x"}, "task_specific_params='x' must be an object"),
        (
            "summarization",
            {"task_specific_params": {"summarization": 3}},
            "summarization=3 must be an",
        ),
        ("summarization", {"prefix": 3}, "prefix=3 must be a string"),
    ],
)
def test_values_of_config(task: str, config: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = copytree(folder_for(task, tmp_path), tmp_path / "copy") / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    with pytest.raises(ValueError, match=f"config.json: {message}"):
        minitx.pipeline(task, path.parent)
