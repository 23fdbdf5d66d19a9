"""Fixtures of the parity suite."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the reference checkpoints of this run lie."""
    return tmp_path_factory.mktemp("parity")
