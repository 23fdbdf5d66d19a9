"""Assisted generation and prompt lookup of transformers give the same tokens."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import transformers

import minitx
from minitx.decoding import DraftModel, PromptLookup, Speculative

NEW = 40
PROMPT = [5, 6, 7, 8, 5, 6, 9, 5, 6, 7]


@cache
def models(kind: str) -> tuple[Any, Any, Any, Any]:
    """A model of both sides in float64, and its first layer alone as an assistant."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": 40,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "eos_token_id": 11,
    }
    if kind == "gpt2":
        config: Any = transformers.GPT2Config(n_embd=32, n_head=4, n_layer=2, n_positions=64, **sizes)
        name = "n_layer"
    elif kind == "t5":
        config = transformers.T5Config(
            vocab_size=40, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
        )
        name = "num_layers"
    else:
        window = {"sliding_window": 8} if kind == "mistral" else {}
        config = transformers.AutoConfig.for_model(
            kind,
            hidden_size=32,
            num_attention_heads=4,
            num_key_value_heads=2,
            num_hidden_layers=2,
            intermediate_size=48,
            max_position_embeddings=64,
            **window,
            **sizes,
        )
        name = "num_hidden_layers"
    only = {"num_decoder_layers": 1} if kind == "t5" else {}
    auto = transformers.AutoModelForSeq2SeqLM if kind == "t5" else transformers.AutoModelForCausalLM
    reference = auto.from_config(config).eval()
    small = auto.from_config(type(config)(**{**config.to_dict(), name: 1, **only})).eval()
    small.load_state_dict(reference.state_dict(), strict=False)
    ours = []
    for model in (reference, small):
        with TemporaryDirectory() as folder:
            model.save_pretrained(Path(folder))
            ours.append(minitx.load(folder).double())
    return reference.double(), small.double(), *ours


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mistral", "t5"])
@pytest.mark.parametrize("how", ["assistant", "lookup"])
def test_greedy_tokens(kind: str, how: str) -> None:
    reference, assistant, ours, small = models(kind)
    options: dict[str, Any] = (
        {"assistant_model": assistant} if how == "assistant" else {"prompt_lookup_num_tokens": 4}
    )
    ids = torch.tensor([PROMPT])
    with torch.inference_mode():
        output = reference.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW, **options
        )
    expected = output[0, 1 if kind == "t5" else len(PROMPT) :].tolist()
    draft: Any = DraftModel(small) if how == "assistant" else PromptLookup(max_ngram=2)
    found = minitx.generate(ours, [PROMPT], Speculative(draft=draft), max_new_tokens=NEW)
    assert found.sequences[0].tolist() == expected
    assert len(expected) > 2
