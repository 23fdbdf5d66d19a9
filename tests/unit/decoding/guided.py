"""Guided generation from its definition: the model runs over the whole text at every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import minitx

SMALL = {"vocab_size": 40, "initializer_range": 0.5}
LLAMA = {
    **SMALL,
    "model_type": "llama",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
GPT2 = {**SMALL, "model_type": "gpt2", "n_embd": 16, "n_head": 2, "n_layer": 2, "n_positions": 64}
T5 = {
    "vocab_size": 40,
    "model_type": "t5",
    "d_model": 16,
    "d_kv": 4,
    "d_ff": 24,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "initializer_factor": 1.0,
}
NO_END = minitx.Stop(eos=())

# (number of the prompt, its generated tokens) -> (V,)
Definition = Callable[[int, list[int]], Tensor]


def model_of(config: dict[str, Any], seed: int = 0) -> Any:
    head = "seq2seq-lm" if config["model_type"] == "t5" else "causal-lm"
    return minitx.from_config(config, head=head, seed=seed).eval()


@torch.no_grad()
def logits_after(model: Any, ids: Sequence[int], source: Sequence[int] | None = None) -> Tensor:
    """The logits (V,) float64 of the token after the ids."""
    if source is None:
        out = model(torch.tensor([[*ids]]))
    else:
        out = model(torch.tensor([[*source]]), decoder_input_ids=torch.tensor([[*ids]]))
    logits: Tensor = out.logits[0, -1].double()
    return logits


def greedy(definition: Definition, prompts: int, steps: int) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in range(prompts)]
    for number, row in enumerate(rows):
        for _ in range(steps):
            row.append(int(definition(number, row).argmax()))
    return rows


def check(
    model: Any, prompts: list[list[int]], guidance: Any, definition: Definition, steps: int = 5
) -> None:
    """Tokens and distributions of a ragged batch, and the tokens of its rows alone."""
    options: dict[str, Any] = {"max_new_tokens": steps, "stop": NO_END, "guidance": guidance}
    size = model.head.config.num_labels
    result = minitx.generate(model, prompts, minitx.Greedy(), logprobs="raw", top_logprobs=size, **options)
    expected = greedy(definition, len(prompts), steps)
    assert [row.tolist() for row in result.sequences] == expected
    assert result.top_logprobs is not None
    for number, (row, tables) in enumerate(zip(expected, result.top_logprobs, strict=True)):
        for place in range(steps):
            wanted = definition(number, row[:place]).log_softmax(-1).float()
            ours = torch.empty(size).scatter_(0, tables.ids[place], tables.values[place])
            torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)
