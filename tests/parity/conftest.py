"""Fixtures of the parity suite, and the order of its tests."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

from tests.parity.cases import BY_NAME


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a case, of all files, run one after the other: its models are made once."""
    cases: dict[str, list[pytest.Item]] = {}
    first, others = len(items), []
    for place, item in enumerate(items):
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if "root" in getattr(item, "fixturenames", ()) and parameters.get("name") in BY_NAME:
            cases.setdefault(parameters["name"], []).append(item)
            first = min(first, place)
        else:
            others.append(item)
    items[:] = [*others[:first], *chain.from_iterable(cases.values()), *others[first:]]


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the reference checkpoints of this run lie."""
    return tmp_path_factory.mktemp("parity")
