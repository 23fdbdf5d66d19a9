"""The end token of a turn is an end token of a model that a recipe trained on conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import minitx
from minitx.decoding.special_tokens import end_tokens
from minitx.training import read_recipe, run_recipe
from minitx.training.recipe.end import TrainingEnd
from minitx.training.tokenizers import train_tokenizer
from tests.unit.training.test_recipe import write

TALK = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat"}]
LLAMA = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "eos_token_id": 2,
}


def trained(folder: Path, row: dict[str, Any], **model: Any) -> TrainingEnd:
    """The end of a run of `instruct`, or of `dpo`, on a saved model with ChatML."""
    tokenizer = train_tokenizer(["the cat sat"], "llama", vocab_size=300, chat_template="chatml")
    base = minitx.from_config(LLAMA | {"vocab_size": len(tokenizer)}, head="causal-lm", seed=0)
    minitx.save(base, folder / "base", tokenizer=tokenizer)
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    tables = {"model": {"name": "base"} | model, "tokenizer": {}, "data": {"files": "rows.jsonl"}}
    objective = {"name": "dpo" if "chosen" in row else "instruct"}
    train = {"steps": 1, "batch_size": 1}
    recipe = read_recipe(write(folder, **tables, objective=objective, train=train))
    return TrainingEnd.of(recipe, run_recipe(recipe, progress=False))


@pytest.mark.parametrize("model", [{}, {"lora": {"rank": 2}}], ids=["full", "lora"])
@pytest.mark.parametrize("row", [{"messages": TALK}, {"chosen": TALK, "rejected": TALK}], ids=["sft", "dpo"])
def test_a_trained_turn_ends_the_text(tmp_path: Path, row: dict[str, Any], model: dict[str, Any]) -> None:
    end = trained(tmp_path, row, **model)
    tokenizer = minitx.load_tokenizer(end.model)
    ends = [2, tokenizer.token_to_id("<|im_end|>")]
    assert end_tokens(minitx.load(end.model), tokenizer) == tuple(ends)
    assert json.loads((Path(end.model) / "generation_config.json").read_text()) == {"eos_token_id": ends}
    assert end.use.startswith("minitx chat ")


@pytest.mark.parametrize("model", [{}, {"lora": {"rank": 2}}], ids=["full", "lora"])
def test_texts_end_with_the_end_token_alone(tmp_path: Path, model: dict[str, Any]) -> None:
    end = trained(tmp_path, {"prompt": "the cat", "response": "sat"}, **model)
    assert end_tokens(minitx.load(end.model), minitx.load_tokenizer(end.model)) == (2,)
    assert not (Path(end.model) / "generation_config.json").exists()
    assert end.use.startswith("minitx generate ")
