"""Qwen3 (arXiv:2505.09388).

Differs from Llama: queries and keys are normalised, each head by itself, before RoPE; the config sets the
width of the heads. Windows as in Qwen2.
"""

from __future__ import annotations

from dataclasses import replace

from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.decoders import llama, qwen2
from minitx.architectures.mapping import Table
from minitx.config import ModelConfig, replace_in


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    config = llama.read(hf, key_value_heads=32, head_dim=128)
    return qwen2.windowed(hf, replace_in(config, "decoder.layer.attention", qk_norm="head"))


LAYER_PREFIX, SOURCE_LAYER = llama.LAYER_PREFIX, llama.SOURCE_LAYER

QK_NORMS: Table = {
    f"{LAYER_PREFIX}.attention.self_attention.q_norm": f"{SOURCE_LAYER}.self_attn.q_norm",
    f"{LAYER_PREFIX}.attention.self_attention.k_norm": f"{SOURCE_LAYER}.self_attn.k_norm",
}

ARCHITECTURE = replace(
    llama.ARCHITECTURE,
    model_types={"qwen3": "Qwen3"},
    read=read,
    weights=llama.WEIGHTS | QK_NORMS,
)
