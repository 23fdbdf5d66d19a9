#!/usr/bin/env python
"""Draw the pictures of docs/inspect/page.md again: parts of the page, in a browser.

    .venv/bin/python scripts/screenshots.py

Needs Chromium, and playwright of the `dev` extra.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import minitx  # noqa: E402 - found by the line above
from scripts.gallery import shrink  # noqa: E402
from tests.unit.inspect.browser import chromium, opened  # noqa: E402

FOLDER = ROOT / "docs/pictures"
MODEL, TEXT = "minitx/tiny-decoder", "Mr. Crawford was at the door. She spoke to Mr."
WIDTH = 900  # pixels of the window


def main() -> None:
    model, tokenizer = minitx.load(MODEL), minitx.load_tokenizer(MODEL)
    strategy = minitx.Sample(temperature=0.8, top_k=20, top_p=0.9)
    page = minitx.inspect.view(model, TEXT, tokenizer=tokenizer, strategy=strategy)
    with TemporaryDirectory() as name, chromium() as browser:
        folder = Path(name)
        url = page.save(folder / "page.html").as_uri()
        with opened(browser, url, viewport={"width": WIDTH, "height": 900}) as tab:
            tab.click('.maps button[data-layer="4"][data-head="1"] >> nth=0')
            _take(tab, "#attention", folder / "page_attention.png")
            _take(tab, "#next", folder / "page_next.png")
        with (
            minitx.inspect.lab(model, TEXT, tokenizer=tokenizer) as running,
            opened(browser, running.url, viewport={"width": WIDTH, "height": 900}) as tab,
        ):
            for number, head in enumerate((0, 1), 1):
                tab.click(f'.toggles button[data-layer="4"][data-head="{head}"]')
                tab.wait_for_selector(f'html[data-sequence="{number}"]')
            tab.evaluate("document.querySelector('#lab-status').textContent = ''")
            _take(tab, "#live", folder / "page_live.png")
        for path in sorted(folder.glob("*.png")):
            shrink(path, FOLDER / path.name)
            print(f"{path.name}: {(FOLDER / path.name).stat().st_size:,} bytes")


def _take(tab: Any, part: str, path: Path) -> None:
    """Writes a picture of one part of the page."""
    tab.mouse.move(0, 0)
    tab.locator(part).screenshot(path=path)


if __name__ == "__main__":
    main()
