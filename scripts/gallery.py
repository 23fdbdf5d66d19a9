#!/usr/bin/env python
"""Draws the pictures of docs/inspect/gallery.md again, by running the page.

.venv/bin/python scripts/gallery.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.contract.pages import run_page  # noqa: E402 - found by the line above

PAGE = ROOT / "docs" / "inspect" / "gallery.md"
WIDTH, LARGEST = 800, 58_000


def main() -> None:
    target = ROOT / "docs" / "pictures"
    with TemporaryDirectory() as folder:
        for _ in run_page(PAGE, Path(folder)):
            pass
        for path in sorted(Path(folder).glob("*.png")):
            shrink(path, target / path.name)
            print(f"{path.name}: {(target / path.name).stat().st_size:,} bytes")


def shrink(path: Path, target: Path) -> None:
    """Writes a picture with 800 pixels of width, with few colours if it is large."""
    from PIL import Image  # which matplotlib needs

    with Image.open(path) as image:
        height = round(image.height * WIDTH / image.width)
        small = image.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)
    small.save(target, optimize=True)
    if target.stat().st_size > LARGEST:
        small.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(target, optimize=True)


if __name__ == "__main__":
    main()
