"""Questions about tables: every tensor equals that of transformers' TapasTokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minitx
from minitx.tokenizer import TableTokenizer
from tests.parity.test_tokenizer import ALPHABET, CORPUS, _train_word_pieces

SPECIAL = ["[PAD]", "[EMPTY]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
NAMES = ("input_ids", "attention_mask", "token_type_ids")
TARGETS = ("labels", "numeric_values", "numeric_values_scale")
MONTHS = ("January", "feb", "Mar", "April", "May", "June", "sept", "October", "Dec")
NUMBERS = st.one_of(
    st.integers(-3000, 3000).map(str),
    st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: f"{x:,.2f}"),
    st.integers(0, 10**9).map(lambda x: f"{x:,}"),
    st.integers(0, 100).map(lambda x: f"{x}%"),
    st.integers(0, 40).map(lambda x: f"{x}" + {1: "st", 2: "nd", 3: "rd"}.get(x % 10, "th")),
    st.integers(0, 500).map(lambda x: f"${x}.50 to {x + 3}"),
    st.sampled_from(
        ["one", "Twelve", "third", "zeroth", "+5", "- 5", ".5", "1e5", "inf", "nan", "1,00", "½"]
    ),
)
YEARS = st.integers(1650, 2040)
DATES = st.one_of(
    YEARS.map(str),
    YEARS.map(lambda y: f"{y}s"),
    st.dates().map(lambda d: d.strftime("%Y-%m-%d")),
    st.builds("{}-{}-{}".format, st.integers(0, 14), st.integers(0, 33), YEARS),
    st.builds("{}.{}.{}".format, st.integers(0, 33), st.integers(0, 14), YEARS),
    st.builds("{} {}, {}".format, st.sampled_from(MONTHS), st.integers(0, 33), YEARS),
    st.builds("{} {} {}".format, st.integers(0, 33), st.sampled_from(MONTHS), YEARS),
    st.builds("{} {}".format, st.sampled_from(MONTHS), st.integers(0, 33)),
    st.builds("{} {}".format, st.sampled_from(MONTHS), YEARS),
    st.builds("{}, {} {}".format, st.sampled_from(["Monday", "friday"]), st.sampled_from(MONTHS), st.just(3)),
    st.sampled_from(MONTHS),
)
WORDS = st.one_of(
    st.sampled_from([word for text in CORPUS for word in text.split()]),
    st.sampled_from(["", " ", "?", "n/a", "N/A ", "-", "_", "—", "[MASK]", "a[SEP]b", "##ing", "[EMPTY]"]),
    st.text(st.sampled_from(ALPHABET), max_size=6),
    st.text(max_size=4),
    st.lists(st.sampled_from(CORPUS[0].split()), max_size=9).map(" ".join),
)
CELLS = {"numbers": NUMBERS, "dates": DATES, "words": WORDS, "any": st.one_of(NUMBERS, DATES, WORDS)}
Pair = tuple[Any, TableTokenizer]
CHEAP = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


@st.composite
def tables(draw: st.DrawFn, rows: int = 6) -> dict[str, list[str]]:
    count = draw(st.integers(0, rows))
    names = draw(st.lists(st.one_of(WORDS, DATES), max_size=4, unique=True))
    kinds = [draw(st.sampled_from(list(CELLS))) for _ in names]
    table = {
        name: draw(st.lists(CELLS[kind], min_size=count, max_size=count))
        for name, kind in zip(names, kinds, strict=True)
    }
    return {
        "".join(c for c in name if not has_surrogates(c)): [
            "".join(c for c in cell if not has_surrogates(c)) for cell in cells
        ]
        for name, cells in table.items()
    }


QUERIES = st.lists(
    st.lists(st.one_of(NUMBERS, DATES, WORDS), max_size=5).map(
        lambda words: "".join(c for c in " ".join(words) if not has_surrogates(c))
    ),
    min_size=1,
    max_size=3,
)


def folder_of(path: Path, special: list[str] = SPECIAL, **config: Any) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    _train_word_pieces(path, special)
    stated = {"tokenizer_class": "TapasTokenizer", **config}
    (path / "tokenizer_config.json").write_text(json.dumps(stated))
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return both(folder_of(tmp_path_factory.mktemp("tapas")))


def both(folder: Path) -> Pair:
    ours = minitx.load_tokenizer(folder)
    assert isinstance(ours, TableTokenizer)
    return transformers.TapasTokenizer.from_pretrained(folder), ours


def frame(table: dict[str, list[str]]) -> pandas.DataFrame:
    return pandas.DataFrame.from_dict(table).astype(object)


def compare(pair: Pair, table: dict[str, list[str]], queries: list[str], **options: Any) -> bool:
    """Whether both tokenize, to the same lists; else both refuse."""
    theirs, ours = pair
    answers = options.pop("answers", None)
    texts = None if answers is None else [["x"] * len(cells) for cells in answers]
    try:
        expected = theirs(
            frame(table), list(queries), answer_coordinates=answers, answer_text=texts, **options
        )
    except (ValueError, AssertionError):
        with pytest.raises(ValueError, match="must be"):
            ours.encode_table(table, queries, answers=answers, as_tensors=False, **options)
        return False
    batch = ours.encode_table(table, queries, answers=answers, as_tensors=False, **options)
    assert set(batch) == set(expected)
    for name in batch:
        assert str(batch[name]) == str(list(expected[name])), name  # NaN equals NaN
    return True


@CHEAP
@given(tables(), QUERIES)
def test_random_tables(pair: Pair, table: dict[str, list[str]], queries: list[str]) -> None:
    assert compare(pair, table, queries)


@CHEAP
@given(tables(rows=12), QUERIES, st.integers(4, 60), st.booleans())
def test_rows_are_dropped_to_fit(
    pair: Pair,
    table: dict[str, list[str]],
    queries: list[str],
    length: int,
    padded: bool,
) -> None:
    padding = "max_length" if padded else False
    compare(pair, table, queries, truncation="drop_rows_to_fit", max_length=length, padding=padding)


OPTIONS = {
    "cell_trim_length": [0, 1, 2, 5],
    "max_column_id": [1, 3],
    "max_row_id": [2, 4],
    "strip_column_names": [True],
    "min_question_length": [2],
    "max_question_length": [3],
    "do_lower_case": [False],
    "strip_accents": [False],
    "tokenize_chinese_chars": [False],
    "never_split": [["model", "##s"]],
    "model_max_length": [12, 30],
    "padding_side": ["left"],
    "additional_special_tokens": [["[BLANK]"], ["[EMPTY]", "[X]"]],
    "extra_special_tokens": [["[EMPTY]"]],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key in OPTIONS for value in OPTIONS[key]])
def test_options_of_the_folder(key: str, value: Any, tmp_path: Path) -> None:
    loaded = both(folder_of(tmp_path, **{key: value}))
    equal = 0

    @settings(CHEAP, max_examples=25)
    @given(tables(), QUERIES, st.booleans())
    def run(table: dict[str, list[str]], queries: list[str], cut: bool) -> None:
        nonlocal equal
        equal += compare(loaded, table, queries, truncation=cut, padding="longest")

    run()
    assert equal > 5


@CHEAP
@given(tables(rows=4), QUERIES, st.data())
def test_answers_become_labels(
    pair: Pair, table: dict[str, list[str]], queries: list[str], data: st.DataObject
) -> None:
    rows, columns = len(next(iter(table.values()), [])), len(table)
    cells = [(row, column) for row in range(rows) for column in range(columns)]
    some = st.lists(st.sampled_from(cells), max_size=3, unique=True) if cells else st.just([])
    answers = [data.draw(some) for _ in queries]
    compare(pair, table, queries, answers=answers, padding="longest")


def test_without_the_empty_token_in_the_vocabulary(tmp_path: Path) -> None:
    loaded = both(folder_of(tmp_path, [token for token in SPECIAL if token != "[EMPTY]"]))
    assert compare(loaded, {"a": ["", "?", "b[EMPTY]c", "[EMPTY]"]}, ["what [EMPTY]?", "?", ""])


def test_a_saved_tokenizer_is_read_by_both(pair: Pair, tmp_path: Path) -> None:
    theirs, ours = pair
    ours.save(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    automatic = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert isinstance(automatic, transformers.TapasTokenizer)
    table, queries = (
        {"year": ["1990", "2001", "?"], "name": ["déjà vu", "n/a", "x-y"]},
        ["before 1995 ?", "x"],
    )
    for folder in ("ours", "theirs"):
        again = both(tmp_path / folder)
        assert compare(again, table, queries)
        assert compare((theirs, again[1]), table, queries)


def test_forms_of_a_table(pair: Pair) -> None:
    _, ours = pair
    columns = {"year": ["1990", "2001"], "name": ["abc", "x y"]}
    rows = [{"year": "1990", "name": "abc"}, {"name": "x y", "year": "2001"}]
    lists = [["year", "name"], ["1990", "abc"], ["2001", "x y"]]
    expected = ours.encode_table(columns, "after 2000?")
    numbers = {"year": [1990, 2001], "name": ["abc", "x y"]}
    for table in (rows, lists, frame(columns), pandas.DataFrame(columns), expected.table, numbers):
        batch = ours.encode_table(table, ["after 2000?"])
        assert all(torch.equal(batch[name], expected[name]) for name in NAMES)
    assert expected.token_type_ids.shape == (*expected.input_ids.shape, 7)
    assert {cell for cell in expected.cells[0] if cell} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert len(expected.cells[0]) == expected.input_ids.shape[1]


def test_a_batch_goes_into_the_model(pair: Pair) -> None:
    _, ours = pair
    config = {"model_type": "tapas", "vocab_size": len(ours), "hidden_size": 8, "num_hidden_layers": 1}
    config |= {
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "num_aggregation_labels": 4,
        "max_position_embeddings": 99,
    }
    model = minitx.from_config(config, head="table-question-answering", seed=0).eval()
    batch = ours.encode_table({"a": ["1", "2"], "b": ["x", "?"]}, ["a of x", "b of 1 2 3"], padding=True)
    output = model(**batch)
    assert output.logits.shape == batch.input_ids.shape
    assert output.logits_aggregation.shape == (2, 4)
    assert model(**ours("a question alone")).logits.shape[0] == 1


BAD = [
    (5, "a", "table=5 must be a dict of columns"),
    ("text", "a", "table='text' must be a dict of columns"),
    ({"a": "text"}, "a", r"table\['a'\]='text' must be a list of cells"),
    ({"a": ["1"], "b": []}, "a", r"table\['b'\]=\[\] must be of 1 cells"),
    ([["a", "b"], ["1"]], "a", "row 0=.* must be of 2 cells"),
    ([{"a": 1}, {"b": 2}], "a", r"table\[1\]=.* must be a dict with the keys"),
    ({"a": [["1"]]}, "a", "a cell of the table=.* must be a string or a number"),
    ({"a": ["1"]}, None, "queries=None must be a question"),
    ({"a": ["1"]}, [None], "queries=.* must be a question"),
    ({"a": ["\ud800"]}, "a", "a cell of the table=.* must be valid Unicode"),
]


@pytest.mark.parametrize(("table", "queries", "message"), BAD)
def test_what_is_no_table_or_question(pair: Pair, table: Any, queries: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        pair[1].encode_table(table, queries)


def test_options_that_contradict(pair: Pair) -> None:
    encode, table = pair[1].encode_table, {"a": ["1", "2"], "b": ["x", "a b c d e f g"]}
    with pytest.raises(ValueError, match="padding=False must be True for rows of different lengths"):
        encode(table, ["a", "a b c"])
    with pytest.raises(ValueError, match="max_length=3 must be larger for this table"):
        encode(table, "a b c", truncation=True, max_length=3)
    with pytest.raises(ValueError, match="truncation='longest_first' must be one of"):
        encode(table, "a", truncation="longest_first")
    with pytest.raises(ValueError, match=r"answers\[0\]=\(2, 0\) must be cells of the table"):
        encode(table, "a", answers=[[(2, 0)]])
    with pytest.raises(ValueError, match=r"answers=.* must be one list of cells for each of 1 questions"):
        encode(table, "a", answers=[])
    with pytest.raises(ValueError, match=r"answers=\(1, 1\) must be cells with tokens"):
        encode(table, "a", answers=[[(1, 1)]], truncation=True, max_length=8)


@pytest.mark.parametrize(
    ("key", "value"),
    [("update_answer_coordinates", True), ("do_basic_tokenize", False), ("cell_trim_length", "a")],
)
def test_options_that_are_refused(key: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=key):
        minitx.load_tokenizer(folder_of(tmp_path, **{key: value}))
