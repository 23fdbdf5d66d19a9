"""Phi-3 (arXiv:2404.14219).

Differs from Llama: dropout at the end of the branches; a sliding window, if the config has one; LongRoPE for
long contexts. Its files hold Q, K and V as one matrix, and both halves of the gated feed-forward as another.
"""

from __future__ import annotations

from dataclasses import replace

from minitx.architectures._rope import rope_values
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.decoders import llama, mistral
from minitx.architectures.mapping import Table, split
from minitx.config import ModelConfig, replace_in


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    hf.expect("full_attn_mod", 1)  # of a larger relative
    hf.expect("interpolate_factor", 1)
    hf.expect("lm_head_bias", False)
    # "original" is 4096 by default; the first files call LongRoPE "su" or "yarn"
    original = hf.size("original_max_position_embeddings", 4096)
    rope = rope_values(hf)
    if rope.get("rope_type", rope.get("type")) in ("su", "yarn"):
        rope["rope_type"] = "longrope"
    known = {"original_max_position_embeddings": original, "rope_parameters": rope, "rope_scaling": None}
    values = hf.with_values(**known)
    config = mistral.read(values, eps=1e-5, window=None, key_value_heads=None, pad=32000, partial=True)
    dropout = hf.probability("resid_pdrop", 0.0)
    config = replace_in(config, "decoder.layer.attention", output_dropout=dropout)
    return replace_in(config, "decoder.layer.feed_forward", output_dropout=dropout)


LAYER_PREFIX, SOURCE_LAYER = llama.LAYER_PREFIX, llama.SOURCE_LAYER
ATTENTION = f"{LAYER_PREFIX}.attention.self_attention"

WEIGHTS: Table = {
    "embedder.word_emb": "embed_tokens",
    f"{LAYER_PREFIX}.attention_norm": f"{SOURCE_LAYER}.input_layernorm",
    (f"{ATTENTION}.Q", f"{ATTENTION}.K", f"{ATTENTION}.V"): split(f"{SOURCE_LAYER}.self_attn.qkv_proj"),
    f"{LAYER_PREFIX}.attention.self_output.dense": f"{SOURCE_LAYER}.self_attn.o_proj",
    f"{LAYER_PREFIX}.feed_forward_norm": f"{SOURCE_LAYER}.post_attention_layernorm",
    (f"{LAYER_PREFIX}.intermediate.gate", f"{LAYER_PREFIX}.intermediate.dense"): split(
        f"{SOURCE_LAYER}.mlp.gate_up_proj"
    ),
    f"{LAYER_PREFIX}.output.dense": f"{SOURCE_LAYER}.mlp.down_proj",
    "decoder.layer_norm": "norm",
}

ARCHITECTURE = replace(
    llama.ARCHITECTURE,
    model_types={"phi3": "Phi3"},
    read=read,
    weights=WEIGHTS,
)
