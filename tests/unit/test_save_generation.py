"""generation_config.json belongs to a checkpoint: it is read with it, and goes back with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import minitx
from minitx import Greedy
from minitx.decoding.special_tokens import end_tokens
from minitx.models import DecoderModel

SIZES = {"vocab_size": 20, "n_embd": 8, "n_head": 2, "n_layer": 1, "n_positions": 32}
GPT2: dict[str, Any] = {"model_type": "gpt2", **SIZES, "eos_token_id": 6}
FILE = "generation_config.json"


def folder_with(tmp_path: Path, content: bytes | None, config: dict[str, Any] = GPT2) -> Path:
    head = "causal-lm" if config is GPT2 else "none"
    minitx.save(minitx.from_config(config, head=head, seed=0), tmp_path)
    assert not (tmp_path / FILE).exists()
    if content is not None:
        (tmp_path / FILE).write_bytes(content)
    return tmp_path


def loaded(folder: Path) -> DecoderModel:
    model = minitx.load(folder)
    assert isinstance(model, DecoderModel)
    return model


def rows(model: DecoderModel) -> list[list[int]]:
    return [row.tokens.tolist() for row in minitx.generate(model, [[5], [7, 8]], "checkpoint")]


def test_it_comes_back_byte_for_byte(tmp_path: Path) -> None:
    stated = b'{"top_k": 3, "do_sample": false,\r\n "eos_token_id": [4, 9], "max_new_tokens": 9}\n \n'
    model = loaded(folder_with(tmp_path / "one", stated))
    minitx.save(model, tmp_path / "two")
    assert (tmp_path / "two" / FILE).read_bytes() == stated
    assert model.checkpoint is not None
    assert list((model.checkpoint.generation or {}).items()) == list(json.loads(stated).items())
    again = loaded(tmp_path / "two")
    assert end_tokens(again, None) == end_tokens(model, None) == (4, 9)
    assert rows(again) == rows(model)


def test_a_checkpoint_without_one_stays_without(tmp_path: Path) -> None:
    model = loaded(folder_with(tmp_path / "one", None))
    minitx.save(model, tmp_path / "two")
    assert not (tmp_path / "two" / FILE).exists()
    assert end_tokens(model, None) == (6,)
    with pytest.raises(ValueError, match=rf"strategy='checkpoint' must .*one has no {FILE}"):
        minitx.generate(model, [[5]], "checkpoint")


def test_what_was_loaded_counts_and_not_what_the_folder_holds_later(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "one", b'{"eos_token_id": 4, "max_new_tokens": 3}')
    model = loaded(folder)
    before = rows(model)
    (folder / FILE).write_text('{"eos_token_id": 5, "max_new_tokens": 1}')
    assert (end_tokens(model, None), rows(model)) == ((4,), before)
    shutil.rmtree(folder)
    assert (end_tokens(model, None), rows(model)) == ((4,), before)


BERT = {
    "model_type": "bert",
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 16,
}


@pytest.mark.parametrize("content", [b"{", b"[3]", b"\xff\xfe"])
@pytest.mark.parametrize("config", [GPT2, BERT])
def test_a_damaged_one_is_an_error_where_it_is_used(
    content: bytes, config: dict[str, Any], tmp_path: Path
) -> None:
    model = minitx.load(folder_with(tmp_path / "one", content, config))
    minitx.save(model, tmp_path / "two")
    assert (tmp_path / "two" / FILE).read_bytes() == content
    if isinstance(model, DecoderModel):
        for strategy in ("checkpoint", Greedy()):
            with pytest.raises(ValueError, match=rf"one/{FILE}: (not valid JSON|holds a list)"):
                minitx.generate(model, [[5]], strategy, max_new_tokens=2)  # type: ignore[arg-type]
