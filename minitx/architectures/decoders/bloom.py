"""BLOOM (arXiv:2211.05100): GPT-2's layers with ALiBi in place of a position table.

Differs from GPT-2: scores fall with the distance (arXiv:2108.12409); word embeddings are normalised; the
residual may be taken after the norms; Q, K and V are stored head by head, and matrices as (outputs, inputs).
"""

from __future__ import annotations

from minitx.architectures._decoder import DECODER_HEADS, decoder_heads, pre_norm_decoder
from minitx.architectures._text import attention, feed_forward, text_inputs
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.mapping import split_heads
from minitx.config import Alibi, HeadConfig, ModelConfig, NormConfig


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    if hf.size("pretraining_tp", 1) > 1:  # else it has no effect
        hf.expect("slow_but_exact", False)
    size, heads = (
        hf.size(hf.first_of("n_embed", "hidden_size")),
        hf.size(hf.first_of("num_attention_heads", "n_head")),
    )
    norm, dropout = (
        NormConfig(eps=hf.number("layer_norm_epsilon", 1e-5)),
        hf.probability("hidden_dropout", 0.0),
    )
    hf.expect("n_inner", None, 4 * size)
    return ModelConfig(
        initializer_range=hf.number("initializer_range", 0.02),
        inputs=text_inputs(hf, size, length=hf.size("seq_length", 2048), padding_is_trained=True, norm=norm),
        decoder=pre_norm_decoder(
            size,
            hf.size(hf.first_of("num_hidden_layers", "n_layer")),
            attention(
                hf, size, heads, dropout=hf.probability("attention_dropout", 0.0), output_dropout=dropout
            ),
            feed_forward(4 * size, "gelu_new", dropout),
            norm,
            positions=Alibi(),
            causal=hf.flag("is_causal", True),
            residual_after_norm=hf.flag("apply_residual_connection_post_layernorm", False),
        ),
    )


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the head of each task."""
    dropout = hf.number_or_none("classifier_dropout")
    if dropout is None:
        dropout = hf.probability("hidden_dropout", 0.0)
    return decoder_heads(hf, tied=True, dropout=dropout)


LAYER_PREFIX = "decoder.layers.{i}"
ATTENTION = f"{LAYER_PREFIX}.attention.self_attention"

ARCHITECTURE = Architecture(
    model_types={"bloom": "Bloom"},
    read=read,
    heads=heads,
    prefix="transformer.",
    weights={
        "embedder.word_emb": "word_embeddings",
        "embedder.layer_norm": "word_embeddings_layernorm",
        f"{LAYER_PREFIX}.attention_norm": "h.{i}.input_layernorm",
        (f"{ATTENTION}.Q", f"{ATTENTION}.K", f"{ATTENTION}.V"): split_heads(
            "h.{i}.self_attention.query_key_value"
        ),
        f"{LAYER_PREFIX}.attention.self_output.dense": "h.{i}.self_attention.dense",
        f"{LAYER_PREFIX}.feed_forward_norm": "h.{i}.post_attention_layernorm",
        f"{LAYER_PREFIX}.intermediate.dense": "h.{i}.mlp.dense_h_to_4h",
        f"{LAYER_PREFIX}.output.dense": "h.{i}.mlp.dense_4h_to_h",
        "decoder.layer_norm": "ln_f",
    },
    head_weights=DECODER_HEADS | {"token-classification": {"head.projection": "classifier"}},
)
