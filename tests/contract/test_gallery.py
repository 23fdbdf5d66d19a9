"""The gallery of pictures: every kind is there, as small as a page needs it."""

from __future__ import annotations

import re
from pathlib import Path

from minitx.inspect.pictures import KINDS
from tests.contract.pages import ROOT

PAGE = ROOT / "docs" / "inspect" / "gallery.md"


def test_the_gallery_shows_every_kind() -> None:
    text = PAGE.read_text()
    for name in KINDS:
        assert re.search(rf'minitx picture {name} |picture\("{name}"', text), name


def test_its_pictures_are_small_and_all_used() -> None:
    shown = re.findall(r"!\[[^\]]+\]\((pictures/[\w-]+\.png)\)", PAGE.read_text())
    files = {str(path.relative_to(PAGE.parent)) for path in (PAGE.parent / "pictures").iterdir()}
    assert {*shown} == files
    for name in files:
        content = Path(PAGE.parent / name).read_bytes()
        assert len(content) < 60_000, name
        assert int.from_bytes(content[16:20], "big") == 800, name
