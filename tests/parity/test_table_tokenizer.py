"""Questions about tables: every tensor equals that of transformers' TapasTokenizer."""

from __future__ import annotations

import json
import random
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
    st.sampled_from(["one", "Twelve", "third", "zeroth", "+5", "- 5", ".5", "1e5", "inf", "nan", "1,00", "½"]),
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
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, TableTokenizer]:
    return both(folder_of(tmp_path_factory.mktemp("tapas")))


def both(folder: Path) -> tuple[Any, TableTokenizer]:
    ours = minitx.load_tokenizer(folder)
    assert isinstance(ours, TableTokenizer)
    return transformers.TapasTokenizer.from_pretrained(folder), ours


def frame(table: dict[str, list[str]]) -> pandas.DataFrame:
    return pandas.DataFrame.from_dict(table).astype(object)


def compare(pair: tuple[Any, TableTokenizer], table: dict[str, list[str]], queries: list[str], **options: Any) -> bool:
    """Whether both tokenize, to the same lists; else both refuse."""
    theirs, ours = pair
    answers = options.pop("answers", None)
    texts = None if answers is None else [["x"] * len(cells) for cells in answers]
    try:
        expected = theirs(
            frame(table), list(queries), answer_coordinates=answers, answer_text=texts, **options
        )
    except (ValueError, AssertionError):
        with pytest.raises(ValueError):
            ours.encode_table(table, queries, answers=answers, as_tensors=False, **options)
        return False
    batch = ours.encode_table(table, queries, answers=answers, as_tensors=False, **options)
    assert set(batch) == set(expected)
    for name in batch:
        assert str(batch[name]) == str(list(expected[name])), name  # NaN equals NaN
    return True


@CHEAP
@given(tables(), QUERIES)
def test_random_tables(pair: tuple[Any, TableTokenizer], table: dict[str, list[str]], queries: list[str]) -> None:
    assert compare(pair, table, queries)


@CHEAP
@given(tables(rows=12), QUERIES, st.integers(4, 60), st.booleans())
def test_rows_are_dropped_to_fit(
    pair: tuple[Any, TableTokenizer], table: dict[str, list[str]], queries: list[str], length: int, padded: bool
) -> None:
    padding = "max_length" if padded else False
    compare(pair, table, queries, truncation="drop_rows_to_fit", max_length=length, padding=padding)
