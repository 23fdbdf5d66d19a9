"""Figures of matplotlib, which is imported only when one is drawn."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from minitx.extras import missing_extra
from minitx.io import write_atomically
from minitx.validation import ArgumentValueError, check_path

FORMATS = (".png", ".svg")


def import_figure() -> Any:
    """Imports matplotlib's Figure, which draws without pyplot's global state.

    Raises:
        ImportError: matplotlib is not installed; the message names the extra.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            f"pictures need matplotlib ({error}); install it with: {missing_extra('pictures')}"
        ) from None
    return Figure


def check_picture_path(path: str | Path, formats: tuple[str, ...] = FORMATS) -> Path:
    """Returns the path of a picture; raises ArgumentValueError for another kind of file."""
    checked = check_path("path", path)
    if checked.suffix.lower() not in formats:
        raise ArgumentValueError("path", str(path), f"the name of a {' or '.join(formats)} file")
    return checked


def save_figure(figure: Any, path: Path) -> Path:
    """Writes a figure, all or nothing; its folder is created if it does not exist."""
    from matplotlib import rc_context

    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.lower().removeprefix(".")
    # The date and random names would make two pictures of the same numbers differ.
    metadata = {"Date": None} if kind == "svg" else {}
    with warnings.catch_warnings(), rc_context({"svg.hashsalt": "minitx"}):
        warnings.filterwarnings("ignore", message="Glyph")  # missing in the font: drawn as a box
        write_atomically(
            path, lambda temporary: figure.savefig(temporary, format=kind, dpi=160, metadata=metadata)
        )
    return path
