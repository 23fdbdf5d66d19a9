"""Drawings of results: text for a terminal, HTML, figures."""

from __future__ import annotations

from pathlib import Path

import pytest

import minitx
from minitx.pictures.drawings import Bars, Drawing, Grid, Mark, Marks, Plain
from minitx.pictures.text import columns_of
from minitx.pipelines.registry import SPECS
from minitx.pipelines.show import DRAWINGS
from tests.unit.pipelines.folders import bert_folder

TEXT = "Angela Merkel met <b>Barack</b> [Obama] in 东京.\nIt was a long day, and everybody was tired of it."
CHOSEN = frozenset({(0, 1)})
DRAWN = {
    "bars": Bars(TEXT, [("positive & more", 0.93), ("neutral", 0.05), ("negative", -0.02)]),
    "no bars": Bars("", []),
    "marks": Marks(TEXT, [Mark(0, 13, "PER", 0.99), Mark(7, 13, "PER", 0.5), Mark(43, 45, "LOC", 0.8)]),
    "answer": Marks(TEXT, [Mark(43, 45, "", 0.25)], title="Where <i>did</i> they meet?"),
    "no answer": Marks("", [], title="Where?"),
    "table": Grid("How old?", ["Actor", "Age"], [["Brad <Pitt>", "56"], ["x" * 90, "45"]], CHOSEN),
    "text": Plain("one\n<two>"),
}


@pytest.mark.parametrize("drawing", DRAWN.values(), ids=DRAWN)
def test_every_form(drawing: Drawing, tmp_path: Path) -> None:
    assert max(map(columns_of, drawing.text().splitlines()), default=0) <= 80
    html = drawing.save(tmp_path / "new" / "a.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert not any(tag in html for tag in ("<b>Barack", "<i>did", "<Pitt>", "<two>"))
    assert drawing.save(tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert drawing.save(tmp_path / "a.svg").read_bytes() == drawing.save(tmp_path / "b.svg").read_bytes()
    with pytest.raises(ValueError, match=r"\.html or \.png or \.svg"):
        drawing.save(tmp_path / "a.pdf")


def test_marked_parts_as_text() -> None:
    text = DRAWN["marks"].text(lambda part: f"<{part}>")
    start, end = text.replace("\n", " ").split(" met ")
    assert start == "<[Angela Merkel](PER 0.99)>"
    assert end.startswith("<b>Barack</b> [Obama] in <[东京](LOC 0.80)>. It was")
    answer = DRAWN["answer"].text()
    assert answer.startswith("Where <i>did</i> they meet?\nAngela")
    assert "[东京](0.25)" in answer
    wide = Marks("东京是日本的首都" * 20, [Mark(0, 2, "LOC")]).text()
    assert [columns_of(line) for line in wide.splitlines()][1:3] == [80, 80]


def test_chosen_cells_as_text() -> None:
    lines = DRAWN["table"].text(str.upper).splitlines()
    assert lines[0] == "How old?"
    assert lines[2].split() == ["Brad", "<Pitt>", "[56]"]


def test_every_task_has_a_drawing() -> None:
    assert {spec.picture for spec in SPECS} == DRAWINGS.keys()


def test_a_result_shows_itself(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path / "model", "sequence-classification", num_labels=3)
    result = minitx.pipeline(model=folder)("the cat sat", top_k=None)
    assert str(result).splitlines()[0] == "the cat sat"
    assert result[0]["label"] in str(result).splitlines()[1]
    assert "<table>" in result._repr_html_()
    assert result.show(tmp_path / "a.png") == tmp_path / "a.png"
    best = minitx.pipeline(model=folder)("the cat sat")
    assert str(best).count("\n") == 1
    (streamed,) = minitx.pipeline(model=folder)(iter(["the cat"]))
    assert str(streamed) == str(dict(streamed))
    with pytest.raises(ValueError, match="details=True"):
        streamed.show()


def test_hidden_states_show_their_size(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path / "model", "masked-lm")
    result = minitx.pipeline("feature-extraction", folder)("the cat sat")
    assert str(result).startswith("5 x 16 values, begins ")
    assert "<div" in result._repr_html_()
