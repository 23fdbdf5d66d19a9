"""OPT (arXiv:2205.01068): GPT-2's layers with ReLU.

Differs from GPT-2: positions skip padding, and start at row 2 of their table; Q, K and V are stored apart,
and matrices as (outputs, inputs). The 350m is post-norm, and its word embeddings are narrower than its
stack: a projection widens them, another one narrows the last hidden states for the tied head.
"""

from __future__ import annotations

from dataclasses import replace

from minitx.architectures._decoder import DECODER_HEADS, decoder_heads, pre_norm_decoder
from minitx.architectures._text import text_inputs
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.config import (
    AttentionConfig,
    FeedForwardConfig,
    HeadConfig,
    LearnedPositions,
    ModelConfig,
    NormConfig,
)

OFFSET = 2  # from fairseq, whose tables begin with rows for special positions


def read(hf: ConfigReader) -> ModelConfig:
    hf.expect("layer_norm_elementwise_affine", True)
    hf.expect("layerdrop", 0.0, 0)
    hf.ignore("activation_dropout")  # of files only; the models have no such place
    size, heads = hf.size("hidden_size"), hf.size("num_attention_heads")
    width, bias = hf.size_or_none("word_embed_proj_dim") or size, hf.flag("enable_bias", True)
    dropout = hf.probability("dropout", 0.1)
    return ModelConfig(
        initializer_range=hf.number("init_std", 0.02),
        inputs=text_inputs(
            hf,
            size,
            pad=1,
            embedding_size=width,
            length=hf.size("max_position_embeddings") + OFFSET,
            positions=LearnedPositions(numbering="mask", offset=OFFSET),
            projection="none" if width == size else "words",
        ),
        decoder=replace(
            pre_norm_decoder(
                size,
                hf.size("num_hidden_layers"),
                AttentionConfig(
                    num_attention_heads=heads,
                    head_dim=hf.head_dim(size, heads),
                    bias=bias,
                    output_bias=bias,
                    dropout=hf.probability("attention_dropout", 0.0),
                    output_dropout=dropout,
                ),
                FeedForwardConfig(
                    intermediate_size=hf.size("ffn_dim"),
                    hidden_act=hf.name("activation_function", "relu"),
                    bias=bias,
                    output_dropout=dropout,
                ),
                NormConfig(eps=1e-5),
                norm_placement="pre" if hf.flag("do_layer_norm_before", True) else "post",
            ),
            final_norm=not hf.flag("_remove_final_layer_norm", False),
            output_size=None if width == size else width,
        ),
    )


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    return {task: head for task, head in decoder_heads(hf, tied=True).items() if task in HEADS}


HEADS = {task: DECODER_HEADS[task] for task in ("causal-lm", "sequence-classification")}
LAYER = "decoder.layers.{i}"  # in both

ARCHITECTURE = Architecture(
    model_types={"opt": "OPT"},
    read=read,
    heads=heads,
    prefix="model.",
    weights={
        "embedder.word_emb": "decoder.embed_tokens",
        "embedder.pos_emb": "decoder.embed_positions",
        "embedder.projection": "decoder.project_in",
        f"{LAYER}.attention_norm": f"{LAYER}.self_attn_layer_norm",
        f"{LAYER}.attention.self_attention.Q": f"{LAYER}.self_attn.q_proj",
        f"{LAYER}.attention.self_attention.K": f"{LAYER}.self_attn.k_proj",
        f"{LAYER}.attention.self_attention.V": f"{LAYER}.self_attn.v_proj",
        f"{LAYER}.attention.self_output.dense": f"{LAYER}.self_attn.out_proj",
        f"{LAYER}.attention.self_output.layer_norm": f"{LAYER}.self_attn_layer_norm",  # of the 350m
        f"{LAYER}.feed_forward_norm": f"{LAYER}.final_layer_norm",
        f"{LAYER}.intermediate.dense": f"{LAYER}.fc1",
        f"{LAYER}.output.dense": f"{LAYER}.fc2",
        f"{LAYER}.output.layer_norm": f"{LAYER}.final_layer_norm",
        "decoder.layer_norm": "decoder.final_layer_norm",
        "decoder.projection": "decoder.project_out",
    },
    head_weights=HEADS,
    unused_tensors=("decoder.version",),
)
