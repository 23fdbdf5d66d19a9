#!/usr/bin/env python
"""Write tests/parity/fixtures/tapex.json: tables as transformers 4.57.6 writes and tokenizes them for TAPEX.

Later versions of transformers no longer have its tokenizer. Run it in a separate environment:

    python -m venv old && old/bin/pip install transformers==4.57.6 pandas
    old/bin/python scripts/make_tapex_fixtures.py

The tokenizer is trained here on a few sentences; tables are drawn by seed.
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

import pandas
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers.models.deprecated.tapex import TapexTokenizer

FIXTURE = Path(__file__).parents[1] / "tests" / "parity" / "fixtures" / "tapex.json"
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
CORPUS = [
    "the question is followed by the names of the columns and by the rows of the table",
    "col : year | name row 1 : 1990 | Anna row 2 : 2001 | Carl",
]
WORDS = [
    "Year",
    "name",
    "1990",
    "2,001.5",
    "",
    " ",
    "Ångström",
    "a|b",
    "ROW 1 :",
    "Été d'une NUIT",
    "東京",
    "n/a",
]


def train(folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.model.save(str(folder))


def drawn(draw: random.Random) -> tuple[dict[str, list[str]], str]:
    """A table and a question."""
    rows = draw.choice([0, 1, 2, 5])

    def cell() -> str:
        return " ".join(draw.choices(WORDS, k=draw.choice([1, 1, 1, 2, 6])))

    names = {cell(): None for _ in range(draw.choice([0, 1, 2, 3]))}
    table = {name: [cell() for _ in range(rows)] for name in names}
    return table, draw.choice(["", "Which YEAR ?", "how many rows", cell()])


def main() -> None:
    assert transformers.__version__ == "4.57.6", transformers.__version__
    draw, cases = random.Random(0), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train(folder)
        for _ in range(60):
            table, query = drawn(draw)
            options: dict[str, Any] = {"do_lower_case": draw.random() < 0.8}
            options["max_cell_length"] = draw.choice([15, 15, 3])
            tokenizer = TapexTokenizer(folder / "vocab.json", folder / "merges.txt", **options)
            ids = tokenizer(table=pandas.DataFrame(table), query=query)["input_ids"]
            cases.append({"table": table, "query": query, **options, "ids": ids})
        files = {
            "vocab": json.loads((folder / "vocab.json").read_text(encoding="utf-8")),
            "merges": (folder / "merges.txt").read_text(encoding="utf-8"),
        }
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    text = json.dumps(files, ensure_ascii=False)[:-1] + f', "cases": [\n{lines}\n]}}\n'
    FIXTURE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
