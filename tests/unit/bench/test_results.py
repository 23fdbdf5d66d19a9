"""Results: files that can be read again, text within 80 columns, pictures, and the comparison of two."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx.bench.engine import ENGINES
from minitx.bench.results import compare, plot
from minitx.bench.results.files import comma_separated, json_lines, read, write
from minitx.bench.results.machine import machine
from minitx.bench.results.plot import color_of
from minitx.bench.results.report import bar, machine_texts, markdown, table, verdict_text
from minitx.bench.results.row import Row, Run

ROW = Row(
    workload="decode",
    summary="greedy, batch 1",
    unit="tokens/s",
    batch=1,
    length=32,
    new_tokens=64,
    num_beams=1,
    model="gpt2",
    engine="transformers",
    version="transformers 5.23.0",
    dtype="float32",
    device="cpu",
    threads=2,
    verdict={"kind": "reference"},
    samples=(3.0, 3.1, 2.9),
    figure=21.3,
    low=20.9,
    high=21.7,
    ratio=1.0,
    bound=42.0,
    share=0.507,
    memory={"loaded": 900_000_000, "peak": 1_100_000_000},
)
OTHERS = (
    replace(ROW, engine="minitx", samples=(1.5, 1.6, 1.4), figure=42.1, ratio=2.0, verdict={"kind": "same"}),
    replace(
        ROW,
        engine="sentence-transformers",
        verdict={"kind": "differs", "agreement": 0.873, "position": (3, 17), "distance": 0.0123},
        compile_seconds=12.3,
    ),
    replace(
        ROW,
        engine="transformers-compiled",
        samples=(),
        figure=None,
        verdict={"kind": "wrong", "position": (0, 2), "note": "tokens differ where logits differ by 0.31"},
    ),
    replace(
        ROW, engine="ctranslate2", samples=(), figure=None, verdict={}, skipped="it is not installed " * 9
    ),
    replace(ROW, engine="tied", verdict={"kind": "tie", "position": (1, 5), "margin": 2e-6}),
)


@pytest.fixture
def result() -> Run:
    peaks = {"float32, cpu": {"copy": 2e10, "vector": 2.1e10, "product": 3e11}}
    return Run(machine(2, "cpu"), [ROW, *OTHERS], peaks)


def test_results_can_be_read_again(result: Run, tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.jsonl"
    write(result, path)
    again = read(path)
    assert again.machine == json.loads(json.dumps(result.machine))
    assert again.peaks == result.peaks
    assert [row.to_json() for row in again.rows] == json.loads(
        json.dumps([row.to_json() for row in result.rows])
    )
    assert json_lines(again) == json_lines(result)


HEAD = '{"kind": "run", "machine": {}, "peaks": {}}'


def damaged(**values: Any) -> str:
    return json.dumps({"kind": "row", **ROW.to_json(), **values})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no results"),
        ("{", "line 1 is no result"),
        ('{"kind": "row"}', "a row before the machine"),
        ('{"kind": "run", "machine": {}, "peaks": {}}\n{"kind": "row", "workload": "x"}', "line 2"),
        ('{"kind": "other"}', "kind 'other'"),
        ("[1]", "line 1"),
        (f"{HEAD}\n{damaged(samples=-1)}", "line 2 .* samples is -1"),
        (f"{HEAD}\n{damaged(samples='x')}", "line 2 .* samples is 'x'"),
        (f"{HEAD}\n{damaged(samples=[1, None])}", "line 2 .* samples have None"),
        (f"{HEAD}\n{damaged(samples=[0.0])}", "line 2 .* samples have 0.0"),
        (f"{HEAD}\n{damaged(figure='x')}", "line 2 .* figure is 'x'"),
        (f"{HEAD}\n{damaged(workload=[])}", r"line 2 .* workload is \[\]"),
        (f"{HEAD}\n{damaged(batch=True)}", "line 2 .* batch is True"),
        ('{"kind": "run", "machine": null, "peaks": {}}', "line 1 .* machine is None"),
    ],
)
def test_other_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{}\n\xff")
    with pytest.raises(ValueError, match=r"a\.jsonl: line 2 is no result"):
        read(path)


def test_json_is_one_array_that_can_be_read_again(result: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write(result, path)
    first, *rows = json.loads(path.read_text())
    assert (first["kind"], len(rows)) == ("run", len(result.rows))
    assert json_lines(read(path)) == json_lines(result)
    path.write_text(json.dumps([first, 1]))
    with pytest.raises(ValueError, match=r"a\.json: record 2 is no result"):
        read(path)


def test_the_machine_has_what_a_comparison_needs(result: Run) -> None:
    assert {"processor", "flags", "cores", "threads", "torch", "minitx", "date"} <= set(result.machine)
    assert result.machine["threads"] == 2


def test_text_fits_a_terminal_and_shows_no_wrong_speed(result: Run) -> None:
    text = table(result.rows)
    assert max(map(len, text.splitlines())) <= 80
    wrong = next(line for line in text.splitlines() if "transformers-compiled" in line)
    assert wrong.split() == ["transformers-compiled", "WRONG"]
    for part in (
        "87% of the tokens agree",
        "row 3, token 17",
        "2.00x",
        "51%",
        "at a tie",
        "1.1 GB",
        "12.3 s",
    ):
        assert part in text, part
    assert "no such" not in verdict_text(ROW)


def test_columns_without_a_number_are_left_out(result: Run) -> None:
    header = table(result.rows).splitlines()[1].split()
    assert header == ["tokens/s", "spread", "ratio", "bound", "memory", "answer"]
    rows = [replace(row, share=None, memory={}) for row in result.rows]
    assert table(rows).splitlines()[1].split() == ["tokens/s", "spread", "ratio", "answer"]


def test_a_wide_spread_asks_for_more_rounds() -> None:
    assert "take more --rounds" not in table([ROW])
    text = table([ROW, replace(ROW, engine="minitx", low=18.0)])
    assert text.endswith("spread above 5 %: the machine was busy; take more --rounds")


def test_the_heading_has_the_load_of_the_machine(result: Run) -> None:
    assert "load average 7.5" in machine_texts({**result.machine, "load": 7.5})[0]


def test_markdown_and_csv_have_every_row(result: Run) -> None:
    lines = markdown(result).splitlines()
    assert sum(line.startswith("| ") for line in lines) == 1 + len(result.rows)
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    rows = list(csv.DictReader(io.StringIO(comma_separated(result))))
    assert [row["engine"] for row in rows] == [row.engine for row in result.rows]
    assert (rows[0]["figure"], rows[0]["peak_bytes"], rows[3]["figure"]) == ("21.3", "1100000000", "")


def test_bars() -> None:
    assert bar(1.0) == "█" * 6
    assert len(bar(0.55)) == 4
    assert bar(0.0) == "▏"


def test_pictures(result: Run, tmp_path: Path) -> None:
    result.rows.append(replace(ROW, workload="load", unit="ms", bound=None, low=None, high=None))
    for name in ("a.png", "a.svg"):
        write(result, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    svg = (tmp_path / "a.svg").read_text()
    assert svg.count("<svg") == 1
    with pytest.raises(ValueError, match="nothing to draw"):
        write(Run(result.machine, [OTHERS[3]]), tmp_path / "b.png")


def test_an_engine_has_one_colour() -> None:
    colors = {engine: color_of(engine) for engine in ENGINES}
    assert len({*colors.values()}) == len(ENGINES)
    assert color_of("another") == color_of("another")


def test_the_heading_of_a_picture_fits_and_names_what_is_drawn(result: Run, tmp_path: Path) -> None:
    """One panel is narrow; a bound far beyond the bars is not drawn."""
    machine = {**result.machine, "processor": "a processor with a long name " * 3}
    for bound, drawn in ((42.0, True), (4200.0, False), (None, False)):
        path = tmp_path / "a.svg"
        write(Run(machine, [replace(ROW, bound=bound)]), path)
        assert ("dashed" in "".join(re.findall("<!-- (.*) -->", path.read_text()))) == drawn
    figures: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plot, "save_figure", lambda figure, path: figures.append(figure))
        write(Run(machine, [ROW]), tmp_path / "b.png")
    for text in figures[0].texts:
        assert text.get_window_extent().x1 <= figures[0].bbox.x1


# --- comparison ------------------------------------------------------------------------------------


def test_the_rank_sum_test_is_exact() -> None:
    probability = compare.rank_sum_probability
    assert probability([1, 2, 3], [4, 5, 6]) == pytest.approx(2 / 20)
    assert probability([1, 2, 4], [3, 5, 6]) == pytest.approx(4 / 20)
    assert probability([1, 3, 6], [2, 4, 5]) == 1.0
    assert probability([1, 1, 1], [1, 1, 1]) == 1.0
    assert probability([1, 1, 2], [1, 2, 2]) == pytest.approx(1.0)
    assert probability(range(5), range(10, 15)) == pytest.approx(2 / 252)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=6), st.lists(st.integers(0, 5), min_size=1, max_size=6)
)
def test_the_rank_sum_test_does_not_depend_on_the_order(first: list[int], second: list[int]) -> None:
    value = compare.rank_sum_probability(first, second)
    assert 0 < value <= 1
    assert compare.rank_sum_probability(second, first) == pytest.approx(value)
    assert compare.rank_sum_probability(first[::-1], second) == pytest.approx(value)


def samples(mean: float, count: int = 9, seed: int = 0) -> tuple[float, ...]:
    source = random.Random(seed)
    return tuple(mean * (1 + 0.02 * source.gauss(0, 1)) for _ in range(count))


def run_of(*rows: Row, **facts: Any) -> Run:
    return Run({"minitx": "1", "date": "today", **facts}, list(rows))


@pytest.mark.parametrize(
    ("old", "new", "outcome"),
    [
        (samples(1.0), samples(1.2, seed=1), "slower"),
        (samples(1.0), samples(0.8, seed=1), "faster"),
        (samples(1.0), samples(1.0, seed=1), "noise"),
        (samples(1.0), tuple(1.02 * s for s in samples(1.0)), "noise"),  # below what matters
        (samples(1.0, 3), samples(2.0, 3), "few rounds"),
    ],
)
def test_the_noise_test(old: tuple[float, ...], new: tuple[float, ...], outcome: str) -> None:
    before, after = run_of(replace(ROW, samples=old)), run_of(replace(ROW, samples=new))
    (change,) = compare.changes(before, after)
    assert change.outcome == outcome
    low, high = change.interval
    assert low <= change.ratio <= high
    text = compare.table([change], before, after)
    assert outcome in text
    assert max(map(len, text.splitlines())) <= 80
    assert change.to_json()["outcome"] == outcome


def test_ratios_to_the_reference_leave_out_a_slower_machine() -> None:
    ours = replace(ROW, engine="minitx")
    before = run_of(replace(ROW, samples=samples(2.0)), replace(ours, samples=samples(1.0, seed=1)))
    after = run_of(
        replace(ROW, samples=samples(3.0, seed=2)), replace(ours, samples=samples(1.5, seed=3)), torch="2"
    )
    assert [c.outcome for c in compare.changes(before, after)] == ["slower", "slower"]
    (relative,) = compare.changes(before, after, relative=True)
    assert (relative.after.engine, relative.outcome) == ("minitx", "noise")
    text = compare.table([relative], before, after)
    assert "differ in torch" in text
    assert "speed in multiples of that of transformers" in text
    assert [float(x.rstrip("x")) for x in text.splitlines()[-1].split()[1:4]] == pytest.approx(
        [2.0, 2.0, 1.0], rel=0.05
    )
    assert relative.to_json()["before"] == pytest.approx(2.0, rel=0.05)
    hint = "The reference changed too"
    absolute = compare.changes(before, after)
    assert hint in compare.table(absolute, before, after)
    assert hint not in text
    assert hint not in compare.table(compare.changes(before, before), before, before)


def test_a_long_heading_is_wrapped() -> None:
    run = run_of(replace(ROW, model="a-model-with-a-long-name " * 4))
    text = compare.table(compare.changes(run, run), run, run)
    assert text.count("a-model-with-a-long-name") == 4
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(ROW, threads=4), r"the nearest rows differ in threads \(2 before, 4 after\)"),
        (replace(ROW, checkpoint="b"), r"the nearest rows differ in checkpoint \(a before, b after\)"),
        (replace(ROW, checkpoint="a", samples=(), skipped="none"), "no samples after"),
    ],
)
def test_results_without_a_common_row_are_refused(other: Row, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare.changes(run_of(replace(ROW, checkpoint="a")), run_of(other))


def test_a_reference_alone_has_nothing_relative() -> None:
    with pytest.raises(ValueError, match="relative to one reference, transformers: measure another engine"):
        compare.changes(run_of(ROW), run_of(ROW), relative=True)
