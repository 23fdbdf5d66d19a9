"""The code in the documents runs, and what they name exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from minitx.architectures import REGISTRY

ROOT = Path(__file__).parents[2]


def test_the_code_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All blocks, in order, in one namespace, in an empty folder; the table that it shows is printed."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 3
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    assert (tmp_path / "my-model" / "model.safetensors").is_file()
    (table,) = re.findall(r"```\n(token .*?)```", text, re.DOTALL)
    printed = capsys.readouterr().out
    assert len(first_cells(table)) >= 8
    assert "\n".join(first_cells(table)) in "\n".join(first_cells(printed))


def first_cells(text: str) -> list[str]:
    """What the lines begin with; the numbers behind it may differ from processor to processor."""
    return re.findall(r"^(\w.*?)(?:  |, probability|$)", text, re.MULTILINE)


def test_the_readme_lists_every_architecture() -> None:
    text = (ROOT / "README.md").read_text()
    for model_type, name in REGISTRY.items():
        assert f"`{model_type}`" in text
        assert f"minitx/architectures/{name.replace('.', '/')}.py" in text


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_paths_named_in_the_documents_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    for path in re.findall(r"`((?:minitx|tests|benchmarks|scripts)/[\w/.-]*)`|\]\(([\w/.-]+)\)", text):
        name = path[0] or path[1]
        if "NAME" in name:
            continue  # stands for any
        assert (ROOT / name).exists(), f"{document} names {name}"
