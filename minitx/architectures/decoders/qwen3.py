"""Qwen3 (arXiv:2505.09388).

Differs from Llama: queries and keys are normed, each head by itself, before they turn; heads are as wide as
the config says. Windows as in Qwen2.
"""

from __future__ import annotations

from minitx.architectures._decoder import DECODER_HEADS, decoder_heads
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.decoders import llama, qwen2
from minitx.architectures.mapping import Table
from minitx.config import (
    ModelConfig,
    replace_in,
)


def read(hf: ConfigReader) -> ModelConfig:
    config = llama.read(hf, key_value_heads=32, head_dim=128)
    return qwen2.windowed(hf, replace_in(config, "decoder.layer.attention", qk_norm="head"))


LAYER, SOURCE = llama.LAYER, llama.SOURCE

QK_NORMS: Table = {
    f"{LAYER}.attention.self_attention.q_norm": f"{SOURCE}.self_attn.q_norm",
    f"{LAYER}.attention.self_attention.k_norm": f"{SOURCE}.self_attn.k_norm",
}

ARCHITECTURE = Architecture(
    model_types={"qwen3": "Qwen3"},
    read=read,
    heads=decoder_heads,
    prefix="model.",
    weights=llama.WEIGHTS | QK_NORMS,
    head_weights=DECODER_HEADS,
    unused_tensors=llama.STORED,
)
