"""Gemma 2 (arXiv:2408.00118): Llama's parts with norms on both sides of each branch.

Differs from Gemma: layers alternate between a sliding window and full attention; four norms per layer; scores
and logits are capped by tanh; the config sets the scale of the queries.
"""

from __future__ import annotations

from dataclasses import replace

from minitx.architectures._decoder import decoder_heads, layer_types, with_windows
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.decoders import gemma, llama
from minitx.architectures.mapping import Table
from minitx.config import HeadConfig, ModelConfig, replace_in
from minitx.config.model import FULL, SLIDING


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    config = gemma.read(hf)
    layers = config.stack.num_hidden_layers
    config = replace_in(
        config,
        "decoder.layer.attention",
        scale=hf.positive("query_pre_attn_scalar", 256) ** -0.5,
        softcap=hf.positive_or_none("attn_logit_softcapping", 50.0),
    )
    config = replace_in(config, "decoder.layer", norm_placement="sandwich")
    types = layer_types(hf, tuple(FULL if i % 2 else SLIDING for i in range(layers)))
    window = hf.size("sliding_window", 4096)
    return replace(config, decoder=with_windows(config.stack, types, window))


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the head of each task."""
    return decoder_heads(hf, tied=True, softcap=hf.positive_or_none("final_logit_softcapping", 30.0))


LAYER_PREFIX, SOURCE_LAYER = llama.LAYER_PREFIX, llama.SOURCE_LAYER

WEIGHTS: Table = llama.WEIGHTS | {
    f"{LAYER_PREFIX}.attention.self_output.branch_norm": f"{SOURCE_LAYER}.post_attention_layernorm",
    f"{LAYER_PREFIX}.feed_forward_norm": f"{SOURCE_LAYER}.pre_feedforward_layernorm",
    f"{LAYER_PREFIX}.output.branch_norm": f"{SOURCE_LAYER}.post_feedforward_layernorm",
}

ARCHITECTURE = replace(
    llama.ARCHITECTURE,
    model_types={"gemma2": "Gemma2"},
    read=read,
    heads=heads,
    weights=WEIGHTS,
)
