"""Fixtures of the parity suite, and which of its tests one worker runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parity.cases import BY_NAME


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker runs the tests of a case, of all files, one after the other: its models are made once."""
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if "root" in getattr(item, "fixturenames", ()) and parameters.get("name") in BY_NAME:
            item.add_marker(pytest.mark.xdist_group(parameters["name"]))


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the reference checkpoints of this run lie."""
    return tmp_path_factory.mktemp("parity")
