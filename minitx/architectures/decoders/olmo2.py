"""OLMo 2 (arXiv:2501.00656).

Differs from Llama: a branch is normalised at its end instead of its beginning; queries and keys are
normalised over their whole width.
"""

from __future__ import annotations

from dataclasses import replace

from minitx.architectures._decoder import TWO_HEADS, two_decoder_heads
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.decoders import llama, qwen3
from minitx.architectures.mapping import Table
from minitx.config import ModelConfig, replace_in


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    config = llama.read(hf, eps=1e-5, pad=1)
    config = replace_in(config, "decoder.layer.attention", qk_norm="width")
    return replace_in(config, "decoder.layer", norm_placement="branch")


LAYER_PREFIX, SOURCE_LAYER = llama.LAYER_PREFIX, llama.SOURCE_LAYER
BEFORE = (f"{LAYER_PREFIX}.attention_norm", f"{LAYER_PREFIX}.feed_forward_norm")


WEIGHTS: Table = {name: row for name, row in llama.WEIGHTS.items() if name not in BEFORE} | {
    f"{LAYER_PREFIX}.attention.self_output.branch_norm": f"{SOURCE_LAYER}.post_attention_layernorm",
    f"{LAYER_PREFIX}.output.branch_norm": f"{SOURCE_LAYER}.post_feedforward_layernorm",
}

ARCHITECTURE = replace(
    llama.ARCHITECTURE,
    model_types={"olmo2": "Olmo2"},
    read=read,
    heads=two_decoder_heads,
    weights=WEIGHTS | qwen3.QK_NORMS,
    head_weights=TWO_HEADS,
)
