"""Tables as text equal transformers 4.57.6's, which had a tokenizer for TAPEX; the fixture is in its ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import minitx
from minitx.tokenizer import Tokenizer
from minitx.tokenizer.tables.linearize import fit_rows, linearize, shorten_cells

FIXTURE = json.loads((Path(__file__).parent / "fixtures" / "tapex.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tapex")
    (folder / "vocab.json").write_text(json.dumps(FIXTURE["vocab"]), encoding="utf-8")
    (folder / "merges.txt").write_text(FIXTURE["merges"], encoding="utf-8")
    stated = {"tokenizer_class": "TapexTokenizer", "do_lower_case": True, "max_cell_length": 15}
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    (folder / "config.json").write_text('{"model_type": "bart"}')
    return minitx.load_tokenizer(folder)


@pytest.mark.parametrize("case", FIXTURE["cases"])
def test_ids_equal_the_fixture(tokenizer: Tokenizer, case: dict[str, Any]) -> None:
    lower = case["do_lower_case"]
    table = shorten_cells(case["table"], tokenizer, case["max_cell_length"], lower=lower)
    text = linearize(table, case["query"], lower=lower)
    assert tokenizer.encode(text) == case["ids"]


def test_the_text_of_a_table() -> None:
    table = {"Year": [1990, 2001], "Name": ["Anna", None]}
    assert linearize(table, "Who ?") == "who ? col : year | name row 1 : 1990 | anna row 2 : 2001 |"
    assert linearize(table, lower=False).startswith("col : Year | Name row 1 : 1990 | Anna")
    assert linearize({}, "Who ?") == "who ?"


def test_rows_that_fit(tokenizer: Tokenizer) -> None:
    table = {"a": [str(number) for number in range(50)]}
    for length in (1, 20, 60, 61, 62, 63, 10_000):
        shortened = fit_rows(table, "which ?", tokenizer, length)
        count = len(shortened.rows)
        assert shortened.rows == tuple((cell,) for cell in table["a"][:count])
        one_more = {"a": table["a"][: count + 1]}
        assert count == 0 or len(tokenizer.encode(linearize(shortened, "which ?"))) <= length
        assert count == 50 or len(tokenizer.encode(linearize(one_more, "which ?"))) > length
