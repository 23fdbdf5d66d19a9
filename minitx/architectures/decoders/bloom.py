"""BLOOM (arXiv:2211.05100): GPT-2's layers with ALiBi in place of a position table.

Differs from GPT-2: the scores of far keys are lowered (arXiv:2108.12409); word embeddings are normed; the
residual may start behind the norms; Q, K and V are stored head by head, and matrices as (outputs, inputs).
"""

from __future__ import annotations

from minitx.architectures._decoder import DECODER_HEADS, decoder_heads
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.mapping import split_heads
from minitx.config import EmbedderConfig, HeadConfig, ModelConfig, StackConfig


def read(hf: ConfigReader) -> ModelConfig:
    if hf.size("pretraining_tp", 1) > 1:  # else it says nothing
        hf.expect("slow_but_exact", False)
    # How half precision and the training were computed, and a switch that ALiBi does without.
    hf.ignore("slow_but_exact", "attention_softmax_in_fp32", "masked_softmax_fusion", "bias_dropout_fusion")
    hf.ignore("skip_bias_add", "skip_bias_add_qkv", "offset_alibi")
    size, vocab_size = hf.size(hf.first_of("n_embed", "hidden_size")), hf.size("vocab_size")
    heads = hf.size(hf.first_of("num_attention_heads", "n_head"))
    eps, dropout = hf.number("layer_norm_epsilon", 1e-5), hf.probability("hidden_dropout", 0.0)
    hf.expect("n_inner", None, 4 * size)
    return ModelConfig(
        initializer_range=hf.number("initializer_range", 0.02),
        embedder=EmbedderConfig(
            vocab_size=vocab_size,
            embedding_size=size,
            hidden_size=size,
            pad_token_id=hf.pad_token_id(vocab_size),
            padding_is_trained=True,
            max_position_embeddings=hf.size("seq_length", 2048),
            position_embeddings=False,
            layer_norm_eps=eps,
            hidden_dropout_prob=None,
        ),
        decoder=StackConfig(
            causal=True,
            hidden_size=size,
            num_hidden_layers=hf.size(hf.first_of("num_hidden_layers", "n_layer")),
            num_attention_heads=heads,
            head_dim=hf.head_dim(size, heads),
            intermediate_size=4 * size,
            hidden_act="gelu_new",
            layer_norm_eps=eps,
            norm_placement="pre",
            residual_after_norm=hf.flag("apply_residual_connection_post_layernorm", False),
            attention_dropout=hf.probability("attention_dropout", 0.0),
            self_output_dropout=dropout,
            output_dropout=dropout,
            alibi=True,
        ),
    )


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    own = hf.number_or_none("classifier_dropout")
    return decoder_heads(hf, tied=True, dropout=hf.probability("hidden_dropout", 0.0) if own is None else own)


LAYER = "decoder.layers.{i}"
ATTENTION = f"{LAYER}.attention.self_attention"

ARCHITECTURE = Architecture(
    model_types={"bloom": "Bloom"},
    read=read,
    heads=heads,
    prefix="transformer.",
    weights={
        "embedder.word_emb": "word_embeddings",
        "embedder.layer_norm": "word_embeddings_layernorm",
        f"{LAYER}.attention_norm": "h.{i}.input_layernorm",
        (f"{ATTENTION}.Q", f"{ATTENTION}.K", f"{ATTENTION}.V"): split_heads(
            "h.{i}.self_attention.query_key_value"
        ),
        f"{LAYER}.attention.self_output.dense": "h.{i}.self_attention.dense",
        f"{LAYER}.feed_forward_norm": "h.{i}.post_attention_layernorm",
        f"{LAYER}.intermediate.dense": "h.{i}.mlp.dense_h_to_4h",
        f"{LAYER}.output.dense": "h.{i}.mlp.dense_4h_to_h",
        "decoder.layer_norm": "ln_f",
    },
    head_weights=DECODER_HEADS | {"token-classification": {"head.projection": "classifier"}},
)
