"""The documentation: its code runs and prints what it shows, and the names it uses exist."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import minitx
import minitx.decoding
import minitx.inspect
from minitx.architectures import REGISTRY
from minitx.pipelines.registry import SPECS
from minitx.shipped import NAMES
from tests.contract.pages import ROOT, agrees, blocks, furnish, pages, run_page, train_examples

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models of docs/examples."""
    folder = tmp_path_factory.mktemp("examples")
    train_examples(folder)
    return folder


@pytest.mark.usefixtures("registrations_end")
@pytest.mark.filterwarnings("default")  # a reader's Python shows warnings and continues
@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_the_code_of_a_page_runs_and_prints_its_output(page: Path, examples: Path, tmp_path: Path) -> None:
    furnish(tmp_path, examples)
    for block, printed in run_page(page, tmp_path):
        assert agrees(block.code, printed), f"{name_of(page)} shows\n{block.code}\nbut it prints\n{printed}"
    if page.name == "README.md":
        assert (tmp_path / "my-classifier" / "model.safetensors").is_file()


def test_nearly_every_block_runs() -> None:
    """Only what needs the Hub is not run."""
    skipped = [block for page in pages() for block in blocks(page.read_text()) if block.skipped]
    assert len(skipped) <= 1
    assert sum(block.kind == "python" for page in pages() for block in blocks(page.read_text())) >= 60


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a  1.5", "a 1.25", True),
        ("a 2", "a 3", False),
        ("a\n...\nz", "a b c z", True),
        ("a\n...\nz", "a b c", False),
        ("", "a", False),
    ],
)
def test_agreement_of_outputs(shown: str, printed: str, same: bool) -> None:
    assert agrees(shown, printed) is same


def test_every_task_has_a_page_with_an_example_its_inputs_and_its_options() -> None:
    index = (ROOT / "docs" / "tasks" / "index.md").read_text()
    for spec in SPECS:
        text = (ROOT / "docs" / "tasks" / f"{spec.name}.md").read_text()
        assert f"[{spec.name}]({spec.name}.md)" in index
        assert any(block.kind == "python" and not block.skipped for block in blocks(text)), spec.name
        assert "request is" in text or "A list gives" in text, spec.name
        assert "| option |" in text or "options and differences are those of" in text, spec.name


def test_the_first_example_is_that_of_the_course() -> None:
    first = next(block for block in blocks((ROOT / "README.md").read_text()) if block.kind == "python")
    assert 'pipeline("sentiment-analysis")' in first.code


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 220


def script(name: str) -> ModuleType:
    """A module of scripts/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_supported_architectures_are_those_of_the_registry() -> None:
    supported = script("supported")
    assert set(supported.TITLES) == set(REGISTRY.values())
    for name, link in supported.FILES.items():
        text = (ROOT / name).read_text()
        assert all(mark in text for mark in supported.MARKS), name
        assert supported.updated(text, link) == text, f"{name}: run scripts/docs update"
        assert all(f"`{model_type}`" in text for model_type in REGISTRY), name


def test_every_public_name_is_in_the_reference() -> None:
    text = "".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
    documented = set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))
    expected = {f"minitx.{name}" for name in minitx.__all__}
    for module in (minitx.decoding, minitx.inspect):
        for name in module.__all__:
            if name not in minitx.__all__ and isinstance(getattr(module, name), type):
                expected.add(f"{module.__name__}.{name}")
    missing = expected - documented
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_public_names_in_the_documents_exist(document: Path) -> None:
    for name in re.findall(r"\bminitx\.(\w+)", document.read_text()):
        module = ROOT / "minitx" / name
        assert hasattr(minitx, name) or module.is_dir() or module.with_suffix(".py").is_file(), name


def test_every_field_of_every_strategy_is_documented() -> None:
    text = "".join(path.read_text() for path in (ROOT / "docs" / "decoding").glob("*.md"))
    for name in minitx.__all__:
        kind = getattr(minitx, name)
        if isinstance(kind, type) and issubclass(kind, minitx.decoding.Strategy):
            for field in dataclasses.fields(kind):
                assert re.search(rf"\b{field.name}\b", text), f"{name}.{field.name}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_paths_in_the_documents_exist(document: Path) -> None:
    """Paths of the repository in code or on GitHub, and files that are linked to."""
    text = document.read_text()
    quoted = re.findall(r"`((?:minitx|tests|benchmarks|scripts|docs)/[\w/.-]*)`", text)
    linked = re.findall(r"github\.com/minitx/minitx/(?:blob|tree)/main/([\w/.-]*)", text)
    for name in (*quoted, *linked):
        assert (ROOT / name).exists() or name in NAMES, f"{document.name} names {name}"
    for name in re.findall(r"\]\(([\w/.-]+)(?:#[\w-]+)?\)", text):
        assert (document.parent / name).exists(), f"{document.name} links to {name}"


def test_the_documents_have_no_words_of_the_other_glossary() -> None:
    """House style: the field's terms."""
    banned = (
        r"\bbehind\b|\bsa(?:ys?|id)\b|\bturn(?:s|ed)?\b|\blooks? at\b|\bthere is none\b|\bto be had\b"
        r"|\bone of one's own\b|\bgoes? on\b|\bmakes? of\b|\bthe other text\b|\bno such place\b"
        r"|\bis told\b|\bblame\b"
    )
    for document in DOCUMENTS:
        prose = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
        assert not re.findall(banned, prose, re.IGNORECASE), document.name


def test_the_picture_is_small() -> None:
    assert (ROOT / "docs" / "pictures" / "attention_map.png").stat().st_size <= 150_000


def test_the_project_has_its_addresses() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["urls"]) >= {"Homepage", "Documentation", "Changelog"}
    assert all(url.startswith("https://github.com/minitx/minitx") for url in project["urls"].values())
    assert f"## [{minitx.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_picture_can_be_drawn_again(tmp_path: Path) -> None:
    path = tmp_path / "map.png"
    code = [sys.executable, str(ROOT / "docs" / "pictures" / "attention_map.py"), str(path)]
    subprocess.run(code, check=True, cwd=ROOT)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_includes_are_ones_that_the_site_resolves() -> None:
    """The formatter of code blocks breaks an include in a block that it takes for Python."""
    for path in sorted((ROOT / "docs").rglob("*.md")):
        for line in path.read_text().splitlines():
            if "--8" in line:
                assert re.fullmatch(r'\s*--8<-- "[\w./-]+(:\w+)?"', line), f"{path.name}: {line}"
