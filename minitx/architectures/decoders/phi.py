"""Phi-1, Phi-1.5 and Phi-2 (arXiv:2306.11644, 2309.05463): GPT-J with Llama's names.

Differs from GPT-J: the features that turn are paired in halves; attention has biases; key/value heads may
be fewer; queries and keys may be normed, head by head (arXiv:2010.04245).
"""

from __future__ import annotations

from minitx.architectures._decoder import DECODER_HEADS, decoder_heads
from minitx.architectures._rope import rope_per_type, rope_values
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.decoders import llama
from minitx.config import EmbedderConfig, HeadConfig, ModelConfig, StackConfig
from minitx.layers.stack import FULL


def read(hf: ConfigReader) -> ModelConfig:
    size, heads, vocab_size = hf.size("hidden_size"), hf.size("num_attention_heads"), hf.size("vocab_size")
    head_dim, dropout = hf.head_dim(size, heads), hf.probability("resid_pdrop", 0.0)
    return ModelConfig(
        initializer_range=hf.number("initializer_range", 0.02),
        embedder=EmbedderConfig(
            vocab_size=vocab_size,
            embedding_size=size,
            hidden_size=size,
            pad_token_id=hf.pad_token_id(vocab_size),
            max_position_embeddings=hf.size("max_position_embeddings"),
            position_embeddings=False,
            layer_norm_eps=None,
            hidden_dropout_prob=hf.probability("embd_pdrop", 0.0),
        ),
        decoder=StackConfig(
            causal=True,
            hidden_size=size,
            num_hidden_layers=hf.size("num_hidden_layers"),
            num_attention_heads=heads,
            num_key_value_heads=hf.key_value_heads(heads),
            head_dim=head_dim,
            intermediate_size=hf.size("intermediate_size"),
            hidden_act=hf.name("hidden_act", "gelu_new"),
            layer_norm_eps=hf.number("layer_norm_eps", 1e-5),
            norm_placement="pre",
            parallel="one_norm",
            qk_norm="head" if hf.flag("qk_layernorm", False) else "none",
            attention_dropout=hf.probability("attention_dropout", 0.0),
            self_output_dropout=dropout,
            output_dropout=dropout,
            rope=rope_per_type(hf, rope_values(hf, partial=0.5), (FULL,), head_dim),
        ),
    )


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    return decoder_heads(hf, bias=True)


LAYER, SOURCE = "decoder.layers.{i}", "layers.{i}"
ATTENTION = f"{LAYER}.attention.self_attention"

ARCHITECTURE = Architecture(
    model_types={"phi": "Phi"},
    read=read,
    heads=heads,
    prefix="model.",
    weights={
        "embedder.word_emb": "embed_tokens",
        f"{LAYER}.attention_norm": f"{SOURCE}.input_layernorm",
        f"{ATTENTION}.Q": f"{SOURCE}.self_attn.q_proj",
        f"{ATTENTION}.K": f"{SOURCE}.self_attn.k_proj",
        f"{ATTENTION}.V": f"{SOURCE}.self_attn.v_proj",
        f"{ATTENTION}.q_norm": f"{SOURCE}.self_attn.q_layernorm",
        f"{ATTENTION}.k_norm": f"{SOURCE}.self_attn.k_layernorm",
        f"{LAYER}.attention.self_output.dense": f"{SOURCE}.self_attn.dense",
        f"{LAYER}.intermediate.dense": f"{SOURCE}.mlp.fc1",
        f"{LAYER}.output.dense": f"{SOURCE}.mlp.fc2",
        "decoder.layer_norm": "final_layernorm",
    },
    head_weights=DECODER_HEADS,
    unused_tensors=llama.STORED,
)
