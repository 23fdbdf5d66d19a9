"""Copies of tokenizers and models compute the same: pickled, deep-copied and in other processes."""

from __future__ import annotations

import copy
import json
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

import minitx
from tests.parity.cases import CASES
from tests.unit.test_cli import make

TEXTS = ["the [SEP] cat[MASK]", "a  dog , it 's [CLS]"]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    make(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**config, "split_special_tokens": True}))
    tokenizer = minitx.load_tokenizer(tmp_path)
    tokenizer.padding_side = tokenizer.truncation_side = "left"
    tokenizer.model_max_length = 7
    tokenizer.tidies_spaces = True
    tokenizer.model_input_names = ("input_ids", "attention_mask")
    tokenizer.add_tokens(["<new>"], special=True)
    return tokenizer


def results(tokenizer: Any) -> tuple[Any, ...]:
    batch = tokenizer(TEXTS, padding=True, truncation=True)
    ids = [tokenizer.encode(text) for text in (*TEXTS, "<new>")]
    state = {k: v for k, v in vars(tokenizer).items() if isinstance(v, str | int | tuple | None)}
    return (
        ids,
        {name: value.tolist() for name, value in batch.items()},
        tokenizer.decode_batch(ids),
        state,
        tokenizer.contents(),
    )


def test_copies_of_a_tokenizer(tokenizer: Any) -> None:
    expected = results(tokenizer)
    assert expected[0][0].count(tokenizer.sep_token_id) == 1  # the text's own is split
    for each in (copy.copy(tokenizer), copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert results(each) == expected
    assert results(pickle.loads(pickle.dumps(copy.deepcopy(tokenizer)))) == expected


def test_a_tokenizer_in_another_process(tokenizer: Any) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(results, (tokenizer,)) == results(tokenizer)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_copies_of_a_model(case: Any, tmp_path: Path) -> None:
    model = minitx.from_config({**case.config, "model_type": case.model_type}, seed=0).eval()
    for number, each in enumerate((copy.deepcopy(model), pickle.loads(pickle.dumps(model)))):
        state = model.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in each.state_dict().items())
        assert each.ties == model.ties
        minitx.save(each, tmp_path / str(number))
