"""The catalogue of decoding: each row is a public name, a page, or absent for a reason."""

from __future__ import annotations

import ast
import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import minitx
from minitx import decoding
from minitx.decoding.catalogue import SECTIONS, Entry, entries
from minitx.decoding.request import GenerationOptions

ROOT = Path(__file__).parents[2]
ROWS = range(1, 129)


def test_every_row_is_there_once() -> None:
    counts = Counter(entry.row for entry in entries())
    assert {row: counts[row] for row in {*ROWS, *counts} if counts[row] != 1 or row not in ROWS} == {}
    assert {path.stem for path in (ROOT / "minitx/decoding/catalogue").glob("*.md")} == SECTIONS.keys()


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: f"{entry.row}-{entry.name}")
def test_a_row_is_a_public_name_or_a_page_or_says_why_not(entry: Entry) -> None:
    assert all((entry.name, entry.summary, entry.use, entry.cost, entry.libraries))
    assert sum(map(bool, (entry.code, entry.recipe, entry.absent))) == 1
    if entry.recipe:
        page = ROOT / "docs/decoding" / entry.recipe
        assert "```python" in page.read_text()
        assert f"decoding/{entry.recipe}" in (ROOT / "mkdocs.yml").read_text()
    if entry.code:
        _check(ast.parse(entry.code, mode="eval").body)


def _check(node: ast.AST) -> None:
    """Checks that the names of an expression exist: callables, and the parameters that it passes."""
    for part in ast.walk(node):
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Name):
            called = _public(part.func.id)
            parameters = _parameters(called)
            unknown = {keyword.arg for keyword in part.keywords} - parameters
            assert not unknown, f"{part.func.id} has no {unknown}"
    if isinstance(node, ast.Name | ast.Attribute):
        _public(ast.unparse(node))


def _public(name: str) -> Any:
    """Returns a public object by its name, such as "Sample" or "Sample.like"."""
    first, *rest = name.split(".")
    assert hasattr(minitx, first) or first in decoding.__all__, f"{first} is not public"
    value = getattr(minitx, first, None) or getattr(decoding, first)
    for attribute in rest:
        value = getattr(value, attribute)
    return value


def _parameters(called: Any) -> set[str]:
    """Returns the names that a call takes; those of `generate` include its options."""
    if called in (minitx.generate, minitx.stream, minitx.explain):
        return {"strategy", *GenerationOptions.__annotations__}
    if dataclasses.is_dataclass(called):
        return {field.name for field in dataclasses.fields(called)}
    import inspect

    return {*inspect.signature(called).parameters}
