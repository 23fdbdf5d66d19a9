"""OPT (arXiv:2205.01068): GPT-2's layers with ReLU.

Differs from GPT-2: positions skip padding, and position 0 is row 2 of the table; Q, K and V are stored
separately, and matrices as (outputs, inputs). The 350m is post-norm, and its word embeddings are narrower
than its stack: one projection widens them, another narrows the last hidden states for the tied head.
"""

from __future__ import annotations

from dataclasses import replace

from minitx.architectures._decoder import TWO_HEADS, pre_norm_decoder, two_decoder_heads
from minitx.architectures._text import attention, feed_forward, text_inputs
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.mapping import attention_entries
from minitx.config import HeadConfig, LearnedPositions, ModelConfig, NormConfig

OFFSET = 2  # from fairseq, whose tables begin with rows for special positions


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    hf.expect("layer_norm_elementwise_affine", True)
    hf.expect("layerdrop", 0.0, 0)
    size, heads = hf.size("hidden_size"), hf.size("num_attention_heads")
    width, bias = hf.size_or_none("word_embed_proj_dim") or size, hf.flag("enable_bias", True)
    dropout, weights = hf.probability("dropout", 0.1), hf.probability("attention_dropout", 0.0)
    stack = pre_norm_decoder(
        size,
        hf.size("num_hidden_layers"),
        attention(hf, size, heads, bias=bias, output_bias=bias, dropout=weights, output_dropout=dropout),
        feed_forward(hf.size("ffn_dim"), hf.activation("activation_function", "relu"), dropout, bias=bias),
        NormConfig(eps=1e-5),
        causal=hf.flag("is_causal", True),
        norm_placement="pre" if hf.flag("do_layer_norm_before", True) else "post",
    )
    final_norm, narrow = not hf.flag("_remove_final_layer_norm", False), width != size
    return ModelConfig(
        initializer_range=hf.number("init_std", 0.02),
        inputs=text_inputs(
            hf,
            size,
            pad=1,
            embedding_size=width,
            length=hf.size("max_position_embeddings") + OFFSET,
            positions=LearnedPositions(numbering="mask", offset=OFFSET),
            projection="words" if narrow else "none",
        ),
        decoder=replace(stack, final_norm=final_norm, output_size=width if narrow else None),
    )


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the head of each task."""
    return two_decoder_heads(hf, tied=True)


LAYER_PREFIX = "decoder.layers.{i}"  # in both

ARCHITECTURE = Architecture(
    model_types={"opt": "OPT"},
    read=read,
    heads=heads,
    prefix="model.",
    weights={
        "embedder.word_emb": "decoder.embed_tokens",
        "embedder.pos_emb": "decoder.embed_positions",
        "embedder.projection": "decoder.project_in",
        f"{LAYER_PREFIX}.attention_norm": f"{LAYER_PREFIX}.self_attn_layer_norm",
        **attention_entries(
            f"{LAYER_PREFIX}.attention", f"{LAYER_PREFIX}.self_attn", "q_proj k_proj v_proj out_proj"
        ),
        f"{LAYER_PREFIX}.attention.self_output.layer_norm": f"{LAYER_PREFIX}.self_attn_layer_norm",  # 350m
        f"{LAYER_PREFIX}.feed_forward_norm": f"{LAYER_PREFIX}.final_layer_norm",
        f"{LAYER_PREFIX}.intermediate.dense": f"{LAYER_PREFIX}.fc1",
        f"{LAYER_PREFIX}.output.dense": f"{LAYER_PREFIX}.fc2",
        f"{LAYER_PREFIX}.output.layer_norm": f"{LAYER_PREFIX}.final_layer_norm",
        "decoder.layer_norm": "decoder.final_layer_norm",
        "decoder.projection": "decoder.project_out",
    },
    head_weights=TWO_HEADS,
    unused_tensors=("decoder.version",),
)
