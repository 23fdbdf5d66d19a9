"""Phi-1, Phi-1.5 and Phi-2 (arXiv:2306.11644, 2309.05463): GPT-J with Llama's names.

Differs from GPT-J: RoPE pairs features in halves; attention has biases; there may be fewer key/value heads;
queries and keys may be normalised, head by head (arXiv:2010.04245).
"""

from __future__ import annotations

from minitx.architectures._decoder import DECODER_HEADS, decoder_heads, pre_norm_decoder
from minitx.architectures._rope import rope_per_type, rope_values
from minitx.architectures._text import attention, feed_forward, text_inputs
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.decoders import llama
from minitx.architectures.mapping import attention_entries
from minitx.config import HeadConfig, ModelConfig, NormConfig, Rotary
from minitx.config.model import FULL


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    size, heads = hf.size("hidden_size"), hf.size("num_attention_heads")
    stored, dropout = hf.get("head_dim", None), hf.probability("resid_pdrop", 0.0)
    head_dim = hf.head_dim(size, heads) if stored is None else hf.size("head_dim")
    return ModelConfig(
        initializer_range=hf.number("initializer_range", 0.02),
        inputs=text_inputs(hf, size, dropout=hf.probability("embd_pdrop", 0.0)),
        decoder=pre_norm_decoder(
            size,
            hf.size("num_hidden_layers"),
            attention(
                hf,
                size,
                heads,
                num_key_value_heads=hf.key_value_heads(heads),
                head_dim=head_dim,
                qk_norm="head" if hf.flag("qk_layernorm", False) else "none",
                dropout=hf.probability("attention_dropout", 0.0),
                output_dropout=dropout,
            ),
            feed_forward(hf.size("intermediate_size"), hf.activation("hidden_act", "gelu_new"), dropout),
            NormConfig(eps=hf.number("layer_norm_eps", 1e-5)),
            causal=hf.flag("is_causal", True),
            positions=Rotary(ropes=rope_per_type(hf, rope_values(hf, partial=0.5), (FULL,), head_dim)),
            parallel="one_norm",
        ),
    )


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the head of each task."""
    return decoder_heads(hf, bias=True)


LAYER_PREFIX, SOURCE_LAYER = "decoder.layers.{i}", "layers.{i}"
ATTENTION = f"{LAYER_PREFIX}.attention.self_attention"

ARCHITECTURE = Architecture(
    model_types={"phi": "Phi"},
    read=read,
    heads=heads,
    prefix="model.",
    weights={
        "embedder.word_emb": "embed_tokens",
        f"{LAYER_PREFIX}.attention_norm": f"{SOURCE_LAYER}.input_layernorm",
        **attention_entries(
            f"{LAYER_PREFIX}.attention", f"{SOURCE_LAYER}.self_attn", "q_proj k_proj v_proj dense"
        ),
        f"{ATTENTION}.q_norm": f"{SOURCE_LAYER}.self_attn.q_layernorm",
        f"{ATTENTION}.k_norm": f"{SOURCE_LAYER}.self_attn.k_layernorm",
        f"{LAYER_PREFIX}.intermediate.dense": f"{SOURCE_LAYER}.mlp.fc1",
        f"{LAYER_PREFIX}.output.dense": f"{SOURCE_LAYER}.mlp.fc2",
        "decoder.layer_norm": "final_layernorm",
    },
    head_weights=DECODER_HEADS,
    unused_tensors=llama.UNUSED_TENSORS,
)
