"""Drawings of results: text for a terminal, HTML, figures."""

from __future__ import annotations

from pathlib import Path

import pytest

import minitx
from minitx.pictures.drawings import Bars, Drawing, Mark, Marks, Plain
from minitx.pictures.grids import Grid, Matrix, shown
from minitx.pictures.layout import break_lines, place, width_of
from minitx.pictures.text import columns_of, fill
from minitx.pipelines.registry import SPECS
from minitx.pipelines.result import Details, Prediction, Predictions
from minitx.pipelines.show import DRAWINGS
from tests.unit.pipelines.folders import bert_folder

pytestmark = pytest.mark.filterwarnings("ignore:.*no installed font has")
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
    "masks": Bars("[MASK] [MASK]", [("mask 1", None), ("<cat>", 0.5), ("mask 2", None), ("猫", 0.7)]),
    "right to left": Marks("سافرت آنا إلى باريس", [Mark(6, 9, "PER", 0.9)]),
    "matrix": Matrix(["A <cat>", "東京", "x" * 90], [[1, 0.5, -0.1], [0.5, 1, 0.2], [-0.1, 0.2, 1]]),
    "distances": Matrix(["a"] * 9, [[-12.5 * abs(i - j) for i in range(9)] for j in range(9)]),
    "a large table": Grid(
        "Which?", [f"c{j}" for j in range(30)], [["x" * 50] * 30] * 300, frozenset({(150, 20)})
    ),
    "a long text": Marks("東京は日本の首都です。" * 900 + "word " * 900, [Mark(0, 2, "LOC")]),
}


@pytest.mark.parametrize("drawing", DRAWN.values(), ids=DRAWN)
def test_every_form(drawing: Drawing, tmp_path: Path) -> None:
    assert max(map(columns_of, drawing.text().splitlines()), default=0) <= 80
    html = drawing.save(tmp_path / "new" / "a.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert not any(tag in html for tag in ("<b>Barack", "<i>did", "<Pitt>", "<two>", "<cat>"))
    assert drawing.save(tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert drawing.save(tmp_path / "a.svg").read_bytes() == drawing.save(tmp_path / "b.svg").read_bytes()
    with pytest.raises(ValueError, match=r"\.html or \.png or \.svg"):
        drawing.save(tmp_path / "a.pdf")
    (tmp_path / "b.png").mkdir()
    with pytest.raises(ValueError, match=r"the name of a file; b\.png is a folder"):
        drawing.save(tmp_path / "b.png")


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


def test_groups_of_bars_are_separate() -> None:
    lines = DRAWN["masks"].text(str.upper).splitlines()
    assert [line.split()[0] if line else "" for line in lines] == [
        "[MASK]",
        "",
        "mask",
        "<CAT>",
        "",
        "mask",
        "猫",
    ]
    assert [columns_of(line.partition("0.")[0]) for line in (lines[3], lines[6])] == [8, 8]


def test_masks_are_groups(tmp_path: Path) -> None:
    pipe = minitx.pipeline(model=bert_folder(tmp_path / "model", "masked-lm"), top_k=2)
    lines = str(pipe("the [MASK] sat on a [MASK]")).splitlines()
    assert (lines[0], lines[2], lines[6]) == ("the [MASK] sat on a [MASK]", "mask 1", "mask 2")
    assert "mask 1" not in str(pipe("the [MASK] sat"))


def test_an_empty_text_has_a_heading(tmp_path: Path) -> None:
    pipe = minitx.pipeline(model=bert_folder(tmp_path / "model", "sequence-classification", num_labels=2))
    assert str(pipe("")).splitlines()[0] == "(empty)"


def test_similarities_of_several_sentences_are_a_matrix(tmp_path: Path) -> None:
    pipe = minitx.pipeline("sentence-similarity", bert_folder(tmp_path / "model", "none"))
    several = pipe("the cat", ["a dog", "the cat sat"])
    assert isinstance(several.show(), Matrix)
    assert several.matrix[0][1:] == pytest.approx(list(several), abs=1e-6)
    assert several.matrix[2][1] == pytest.approx(pipe("the cat sat", ["a dog"])[0], abs=1e-6)
    assert [line.split()[0] for line in str(several).splitlines()] == ["1", "1", "2", "3"]
    assert isinstance(pipe("the cat", ["a dog"]).show(), Bars)
    assert isinstance(pipe("the cat", ["a dog"] * 40).show(), Bars)
    assert str(pipe("the cat", ["a dog"] * 20)).splitlines()[0] == "the cat"


def test_a_title_is_within_the_picture() -> None:
    for title in ("How old is Bob? → 27", "What is the age of everybody whose name begins with a B? " * 4):
        figure = Grid(title, ["name", "age"], [["Ann", "34"]]).figure()
        shown_lines = [text.get_text() for text in figure.texts]
        assert max(map(width_of, shown_lines)) + 0.2 < figure.get_figwidth()
        assert len(shown_lines) in (1, 3)


def test_wide_letters_are_within_the_picture() -> None:
    lines = break_lines([("東京は日本の首都です。" * 9, None), ("word", 1), ("x" * 200, None)], 4.0)
    assert all(width_of("".join(piece.text for piece in line)) <= 4.05 for line in lines)
    assert (
        "".join(piece.text for line in lines for piece in line)
        == "東京は日本の首都です。" * 9 + "word" + "x" * 200
    )


def test_text_from_right_to_left_begins_at_the_right() -> None:
    (line,) = break_lines([("سافرت ", None), ("آنا", 1), (" إلى", None)], 4.0)
    placed = place(line, 4.0, right_to_left=True)
    assert [piece.mark for _, piece in placed] == [None, 1, None]
    assert [x for x, _ in placed] == sorted((x for x, _ in placed), reverse=True)
    assert placed[0][0] + width_of("سافرت") == pytest.approx(4.0)
    (line,) = break_lines([("He said ", None), ("שלום", 1), (" ", None), ("עולם", 2), (" twice", None)], 4.0)
    assert [piece.mark for _, piece in place(line, 4.0, right_to_left=False)] == [None, 2, 1, None]


def test_an_answer_is_shown_without_most_of_a_long_context() -> None:
    context = "one two three four five " * 100 + "Ann did it. " + "six seven eight nine ten " * 100
    start = context.index("Ann")
    text = Marks(context, [Mark(start, start + 3, "", 0.5)], title="Who?").excerpt(50).text()
    assert text.startswith("Who?\n… ")
    assert "[Ann](0.50) did it. six" in text
    assert text.endswith(" … ".rstrip())
    assert len(text) < 200
    whole = Marks("Ann did it.", [Mark(0, 3, "", 0.5)])
    assert whole.excerpt(50) == whole


def test_of_a_large_table_the_chosen_cells_are_shown() -> None:
    assert shown(3, {1}, 3) == [0, 1, 2]
    assert shown(9, {5, 8}, 4) == [0, 1, None, 5, None, 8]
    assert shown(9, (), 2) == [0, 1, None]
    text = DRAWN["a large table"].text()
    assert "c20" in text
    assert "[x" in text
    assert len(text.splitlines()) < 50


def test_letters_without_a_font_are_named(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"a\.png: no installed font has '.U000f0000', drawn"):
        Bars("\U000f0000", []).save(tmp_path / "a.png")


def test_several_answers_are_all_shown(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path / "model", "question-answering")
    answers = minitx.pipeline(model=folder)(question="the cat?", context="a dog ran to the park", top_k=3)
    title, *lines = str(answers).splitlines()
    assert title == "the cat?"
    assert [line.split("  ")[0] for line in lines] == [answer.answer for answer in answers]


def test_a_long_list_is_cropped() -> None:
    bars = Bars("title", [(f"label {i}", 1 - i / 1000) for i in range(1000)])
    lines = bars.text().splitlines()
    assert len(lines) == 42
    assert lines[-1] == "… 960 more"
    assert bars.html().count("<tr>") == 1000
    assert bars.figure().get_figheight() < 20
    masks = Bars("", [(f"x{i}", None if i % 500 == 0 else 0.5) for i in range(1000)])
    shown, more = masks.shown()
    assert [label for label, value in shown if value is None] == ["x0", "x500"]
    assert (len(shown), more) == (42, 958)
    assert Bars("", [("a", 0.5)] * 40).shown()[1] == 0


def test_a_text_of_many_marks_is_cropped() -> None:
    text = "Ann went home early. " * 1500
    marks = [Mark(21 * i, 21 * i + 3, "PER", 0.9) for i in range(1500)]
    excerpt = Marks(text, marks).excerpt(60, 40)
    assert [mark.start for mark in excerpt.marks] == [21 * i for i in range(40)]
    assert excerpt.content.endswith("Ann went home early. … 1460 more")
    assert excerpt.figure().get_figheight() < 10
    answers = Predictions({"start": m.start, "end": m.end, "entity": "PER", "score": 0.9} for m in marks)
    answers.details = Details("token-classification", {"text": text}, (), ())
    assert len(answers.show().text().splitlines()) < 40


def test_an_answer_without_cells() -> None:
    table = {"name": ["Ann"], "age": ["34"]}
    for answer, title in (("", "(no cell)"), ("SUM > ", "SUM > (no cell)")):
        result = Prediction(answer=answer, coordinates=[], cells=[])
        result.details = Details("table-question-answering", {"table": table, "query": "How old?"}, (), ())
        assert result.show().text().startswith(f"How old? → {title}\n")


def test_a_long_header_stays_in_its_cell() -> None:
    header = ["a very long name of a column of this table number " + str(j) for j in range(8)]
    figure = Grid("", header, [["1"] * 8]).figure()
    (table,) = figure.axes[0].tables
    figure.draw_without_rendering()
    for cell in (table[0, j] for j in range(8)):
        assert cell.get_text().get_window_extent().x1 <= cell.get_window_extent().x1


def test_an_attribute_is_its_key() -> None:
    result = Prediction(score=0.5)
    result.score = 3
    assert result == {"score": 3}
    result.details = None
    assert result == {"score": 3}


def test_bars_of_numbers_that_are_not_finite(tmp_path: Path) -> None:
    bars = Bars("", [("a", float("nan")), ("b", float("inf")), ("c", 0.5)])
    lines = bars.text().splitlines()
    assert [line.count("█") for line in lines] == [0, 0, 15]
    assert "nan%" not in bars.html()
    bars.save(tmp_path / "bars.png")


def test_a_long_text_without_spaces_is_read_once() -> None:
    lines = fill(f"one {'東' * 100_000} two", 80).split("\n")  # this took a minute
    assert lines[0] == "one"
    assert {columns_of(line) for line in lines[1:-1]} == {80}
    assert lines[-1] == "two"
    assert fill("one 東京東京 two three", 5) == "one\n東京\n東京\ntwo\nthree"


def test_a_text_without_entities() -> None:
    assert str(DRAWINGS["marks"]([], {"text": "It rains."})) == "(no entities)\nIt rains."
