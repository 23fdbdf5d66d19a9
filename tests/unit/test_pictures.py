"""The heat map: a whole file, readable, and matplotlib's state as it was."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import matplotlib as mpl
import pytest
import torch

from minitx.extras import missing_extra
from minitx.pictures import heatmap as pictures
from minitx.pictures import layout
from minitx.pictures.heatmap import attention_picture, similarity_picture

pytestmark = pytest.mark.filterwarnings("ignore:.*no installed font has")
LABELS = ["plain", "costs $5 and $6_x$", "日本語", "long " * 30]


def matrix(size: int = 4) -> torch.Tensor:
    vectors = torch.nn.functional.normalize(torch.randn(size, 8), dim=1)
    return vectors @ vectors.T


def test_png(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.png"
    similarity_picture(matrix(), LABELS, path, title="50 $ of similarity $")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert content.endswith(b"IEND\xaeB`\x82")
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_svg_is_the_same_every_time(tmp_path: Path) -> None:
    values = matrix()
    first = similarity_picture(values, LABELS).save(tmp_path / "a.svg").read_text()
    assert "<svg" in first
    assert "<dc:date>" not in first


def test_numbers_only_while_they_can_be_read() -> None:
    few = pictures.draw(matrix(3).tolist(), ["a", "b", "c"], None)
    assert few.axes[0].texts[0].get_text() == "1.00"
    assert len(few.axes[0].texts) == 9
    many = pictures.draw(matrix(30).tolist(), [str(i) for i in range(30)], None)
    assert not many.axes[0].texts
    crowd = pictures.draw(matrix(80).tolist(), [str(i) for i in range(80)], None)
    assert not crowd.axes[0].get_yticklabels()


def test_no_negative_zero() -> None:
    figure = pictures.draw([[1.0, -0.001], [-0.001, 1.0]], ["a", "b"], None)
    assert [text.get_text() for text in figure.axes[0].texts] == ["1.00", "0.00", "0.00", "1.00"]


def test_global_state_is_left_alone(tmp_path: Path) -> None:
    before, pyplot = dict(mpl.rcParams), "matplotlib.pyplot" in sys.modules
    similarity_picture(matrix(), LABELS, tmp_path / "a.png")
    assert dict(mpl.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == pyplot


def test_attention(tmp_path: Path) -> None:
    """Rows are queries, columns are keys."""
    weights = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.25, 0.75]])
    drawn = attention_picture(weights, ["$a$", "b"], ["x", "y", "z"], tmp_path / "a.png", title="A title")
    axes = drawn.figure().axes[0]
    assert axes.images[0].get_array().tolist() == weights.tolist()
    assert axes.images[0].get_clim() == (0.0, 1.0)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["$a$", "b"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["x", "y", "z"]
    other = attention_picture(weights, ["a", "b"], ["x", "y", "much longer"])
    rotations = [each.figure().axes[0].get_xticklabels()[0].get_rotation() for each in (drawn, other)]
    assert rotations == [0, 90]
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    with pytest.raises(ValueError, match=r"weights=.* shape \(2, 2\) like queries and keys"):
        attention_picture(weights, ["a", "b"], ["x", "y"], tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"keys=.* must be at least one text"):
        attention_picture(weights, ["a", "b"], [], tmp_path / "b.png")


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"similarity=.* shape \(2, 2\) like labels, not \(4, 4\)"):
        similarity_picture(matrix(), ["a", "b"], tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        similarity_picture(matrix(), LABELS, tmp_path / "a.gif")
    assert not list(tmp_path.iterdir())


def test_matplotlib_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    layout._renderer.cache_clear()
    layout.width_of.cache_clear()
    with pytest.raises(ImportError, match=re.escape(missing_extra("pictures"))):
        similarity_picture(matrix(), LABELS, tmp_path / "a.png")


def test_a_failure_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        similarity_picture(matrix(), LABELS, path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
