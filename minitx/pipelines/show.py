"""`result.show()`: a result drawn in the way that the table of tasks states."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def show(result: Any, path: str | Path | None = None) -> Any:
    """Draws a result; see `Prediction.show`."""
    raise NotImplementedError
