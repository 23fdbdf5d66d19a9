"""Tiny models of all families in float64, with weights large enough for every part to matter."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

import minitx
from tests.unit.inspect.test_taps import CONFIGS, ENCODERS, GROUPED, SEQ2SEQS, SIZES

GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 60, "n_positions": 40}
MORE: dict[str, dict[str, Any]] = {
    **CONFIGS,
    "gpt2": GPT2,
    "gemma2": {"model_type": "gemma2", **GROUPED, "head_dim": 8, "sliding_window": 4},
    "olmo2": {"model_type": "olmo2", **GROUPED},
    "granite": {"model_type": "granite", **GROUPED, "residual_multiplier": 0.5, "logits_scaling": 2.0},
    "opt": {
        "model_type": "opt",
        **{
            key: value
            for key, value in SIZES.items()
            if key not in ("intermediate_size", "initializer_range")
        },
        "ffn_dim": 48,
        "word_embed_proj_dim": 16,
        "do_layer_norm_before": True,
    },
    "modernbert": {"model_type": "modernbert", **SIZES, "global_attn_every_n_layers": 2},
}
IDS = torch.tensor([[5, 6, 7, 8, 9], [20, 21, 22, 23, 24]])
OTHER = torch.tensor([[30, 31, 32, 33, 34], [40, 41, 42, 43, 44]])


@cache
def model_of(name: str) -> Any:
    """A tiny model with its language-model head."""
    encoders = (*ENCODERS, "modernbert")
    head = "masked-lm" if name in encoders else "seq2seq-lm" if name in SEQ2SEQS else "causal-lm"
    model: Any = minitx.from_config(MORE[name], head=head, seed=0).double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in {id(p): p for p in model.parameters()}.values():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.3, generator=generator)
            else:  # norms and biases that matter too
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def arguments(name: str, ids: Tensor) -> dict[str, Tensor]:
    """The arguments of a forward."""
    more = {"decoder_input_ids": ids[:, :4]} if name in SEQ2SEQS else {}
    return {"input_ids": ids, **more}


def stack_name(model: Any) -> str:
    """The stack that the head follows."""
    return str(model.families[-1])
