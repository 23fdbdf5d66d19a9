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


def test_its_pictures_are_small() -> None:
    shown = pictures_of(PAGE)
    assert shown
    for path in shown:
        content = path.read_bytes()
        assert len(content) < 60_000, path.name
        assert int.from_bytes(content[16:20], "big") == 800, path.name


def test_all_pictures_are_in_one_folder_and_used() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    shown = {path for page in pages for path in pictures_of(page)}
    assert shown == {*(ROOT / "docs").rglob("*.png")}
    assert {path.parent for path in shown} == {ROOT / "docs" / "pictures"}


def pictures_of(page: Path) -> list[Path]:
    """Returns the pictures that a page shows."""
    links = re.findall(r"!\[[^\]]+\]\(([\w./-]+\.png)\)", page.read_text())
    return [(page.parent / link).resolve() for link in links]
