"""Figures of matplotlib, which is imported only when one is drawn."""

from __future__ import annotations

import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any

from minitx.extras import extra_error
from minitx.io import write_atomically
from minitx.validation import warn

FORMATS = (".png", ".svg")
# Families that have the letters of other scripts, where one is installed.
FAMILIES: tuple[str, ...] = ("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP")
FAMILIES += ("Hiragino Sans", "PingFang SC", "Yu Gothic", "Microsoft YaHei", "Malgun Gothic")
FAMILIES += ("Apple SD Gothic Neo", "WenQuanYi Micro Hei", "Noto Sans Hebrew", "Noto Sans Arabic")
FAMILIES += ("Noto Sans Devanagari", "Noto Sans Thai", "Nirmala UI", "Arial Unicode MS", "Noto Emoji")
FAMILIES += ("Segoe UI Emoji", "Symbola")


def import_figure() -> Any:
    """Imports matplotlib's Figure, which draws without pyplot's global state.

    Raises:
        ImportError: matplotlib is not installed; the message names the extra.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise extra_error("pictures need matplotlib", error, "pictures") from None
    return Figure


@cache
def families() -> list[str]:
    """Returns the installed ones of `FAMILIES`; matplotlib brings the first."""
    import_figure()  # whose error names the extra
    from matplotlib.font_manager import get_font_names

    installed = {*get_font_names()}
    return [FAMILIES[0], *(name for name in FAMILIES[1:] if name in installed)]


def save_figure(figure: Any, path: Path, dpi: float = 160) -> Path:
    """Writes a figure, all or nothing; its folder is created if it does not exist.

    Args:
        figure: of matplotlib.
        path: a .png or .svg file.
        dpi: pixels per inch of a .png file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.lower().removeprefix(".")
    missing: set[str] = set()
    write_atomically(path, lambda temporary: missing.update(render_figure(figure, temporary, kind, dpi)))
    if missing:
        others = f" and {len(missing) - 1} others" * (len(missing) > 1)
        hint = "install one that does; the .html of a result needs none"
        warn(f"{path}: no installed font has {min(missing)!r}{others}, drawn as boxes; {hint}.")
    return path


def render_figure(figure: Any, target: Any, kind: str, dpi: float) -> set[str]:
    """Draws a figure into a file; returns the characters that no installed font has.

    Args:
        figure: of matplotlib.
        target: a path or a binary stream.
        kind: "png" or "svg".
        dpi: pixels per inch of a PNG.
    """
    from matplotlib import rc_context
    from matplotlib.text import Text

    # The date and random names would make two pictures of the same numbers differ.
    metadata = {"Date": None} if kind == "svg" else {}
    for text in figure.findobj(Text):
        text.set_family(families())
    with warnings.catch_warnings(record=True) as caught, rc_context({"svg.hashsalt": "minitx"}):
        warnings.simplefilter("always")
        figure.savefig(target, format=kind, dpi=dpi, metadata=metadata)
    missing = set()
    for warning in caught:
        if glyph := re.match(r"Glyph (\d+) ", str(warning.message)):
            missing.add(chr(int(glyph[1])))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return missing


@cache
def characters() -> frozenset[int]:
    """Returns the code points that the fonts of `families` have."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    paths = {findfont(FontProperties(family=name)) for name in families()}
    return frozenset(code for path in paths for code in get_font(path).get_charmap())
