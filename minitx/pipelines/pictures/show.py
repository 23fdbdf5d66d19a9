"""`show`: a result drawn as its task's table entry states."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def show(result: Any, path: str | Path | None = None) -> Any:
    """Draws a result; see `Prediction.show`."""
    raise NotImplementedError
