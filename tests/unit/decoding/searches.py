"""A tiny model of few tokens, of which all texts can be enumerated; and searches run on it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

import minitx
from minitx.decoding import exhaustive
from minitx.decoding.generate import generate
from minitx.decoding.output import Result
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.search.base import Search
from minitx.decoding.text.stopping import Stop
from minitx.models import DecoderModel

VOCAB, EOS = 5, 0
PROMPT = (3, 4)
Text = tuple[int, ...]


@cache
def tiny(vocab_size: int = VOCAB, seed: int = 1) -> DecoderModel:
    config = {
        "model_type": "gpt2",
        "vocab_size": vocab_size,
        "initializer_range": 1.0,
        "n_embd": 8,
        "n_head": 2,
        "n_layer": 1,
        "n_positions": 24,
        "eos_token_id": EOS,
        "bos_token_id": 1,
    }
    made = minitx.from_config(config, head="causal-lm", seed=seed).eval()
    assert isinstance(made, DecoderModel)
    return made


def search(
    strategy: Search,
    prompts: Sequence[Sequence[int]],
    *,
    model: DecoderModel | None = None,
    max_new_tokens: int = 3,
    eos: int | Sequence[int] = EOS,
    stop: Stop | None = None,
    seed: int = 0,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Any:
    """What `generate` finds, by default on the tiny model."""
    if isinstance(strategy, Sample):
        options |= {"seed": seed} if generator is None else {"generator": generator}
    return generate(
        tiny() if model is None else model,
        [list(prompt) for prompt in prompts],
        strategy,
        max_new_tokens=max_new_tokens,
        stop=stop or Stop(eos=eos),
        **options,
    )


def tokens(result: Result) -> list[Text]:
    return [tuple(row.tolist()) for row in result.sequences]


@cache
def all_texts(
    length: int = 3, temperature: float = 1.0, vocab_size: int = VOCAB, seed: int = 1, prompt: Text = PROMPT
) -> dict[Text, float]:
    """Every text and its log-probability: it ends with the end token, or has `length` tokens.

    `test_exhaustive.py` compares the enumeration with one that runs each beginning anew.
    """
    strategy = Sample(temperature=temperature)
    found = exhaustive(tiny(vocab_size, seed), prompt, strategy, max_new_tokens=length, stop=Stop(eos=EOS))
    return {tuple(row): float(p) for row, p in zip(found.sequences, found.log_probs, strict=True)}
