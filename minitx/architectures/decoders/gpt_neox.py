"""GPT-NeoX (arXiv:2204.06745) and Pythia (arXiv:2304.01373): GPT-J with a norm for each branch.

Differs from GPT-J: the branches may be sequential; RoPE pairs features in halves; attention has biases, the
head has none; Q, K and V are stored head by head.
"""

from __future__ import annotations

from minitx.architectures._decoder import DECODER_HEADS, decoder_heads, pre_norm_decoder
from minitx.architectures._rope import rope_per_type, rope_values
from minitx.architectures._text import attention, feed_forward, text_inputs
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.mapping import either, split_heads
from minitx.config import HeadConfig, ModelConfig, NormConfig, Rotary
from minitx.config.model import FULL


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    size, heads = hf.size("hidden_size"), hf.size("num_attention_heads")
    head_dim, bias = hf.head_dim(size, heads), hf.flag("attention_bias", True)
    hf.expect("head_dim", None, head_dim)
    dropout, weights = hf.probability("hidden_dropout", 0.0), hf.probability("attention_dropout", 0.0)
    theta, share = hf.positive("rotary_emb_base", 10_000.0), hf.probability("rotary_pct", 0.25)
    others: dict[str, None] = {"rope_theta": None, "partial_rotary_factor": None}
    rope = rope_values(hf.with_values(**others), theta=theta, partial=share)
    for key in others:  # copies in files of some versions; transformers 5 ignores them
        if hf.get(key, None) not in (None, rope[key]):
            raise hf.error(
                key, hf.get(key), repr(rope[key]), "its names here are rotary_emb_base, rotary_pct"
            )
    return ModelConfig(
        initializer_range=hf.number("initializer_range", 0.02),
        inputs=text_inputs(hf, size, padding_is_trained=True, dropout=dropout),
        decoder=pre_norm_decoder(
            size,
            hf.size("num_hidden_layers"),
            attention(hf, size, heads, bias=bias, output_bias=bias, dropout=weights, output_dropout=dropout),
            feed_forward(hf.size("intermediate_size"), hf.activation("hidden_act", "gelu"), dropout),
            NormConfig(eps=hf.number("layer_norm_eps", 1e-5)),
            causal=hf.flag("is_causal", True),
            positions=Rotary(ropes=rope_per_type(hf, rope, (FULL,), head_dim)),
            parallel="two_norms" if hf.flag("use_parallel_residual", True) else "none",
        ),
    )


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the head of each task."""
    return decoder_heads(hf, dropout=hf.probability("classifier_dropout", 0.1))


LAYER_PREFIX, SOURCE_LAYER = "decoder.layers.{i}", "layers.{i}"
ATTENTION = f"{LAYER_PREFIX}.attention.self_attention"

ARCHITECTURE = Architecture(
    model_types={"gpt_neox": "GPTNeoX"},
    read=read,
    heads=heads,
    prefix="gpt_neox.",
    weights={
        "embedder.word_emb": "embed_in",
        f"{LAYER_PREFIX}.attention_norm": f"{SOURCE_LAYER}.input_layernorm",
        (f"{ATTENTION}.Q", f"{ATTENTION}.K", f"{ATTENTION}.V"): split_heads(
            f"{SOURCE_LAYER}.attention.query_key_value"
        ),
        f"{LAYER_PREFIX}.attention.self_output.dense": f"{SOURCE_LAYER}.attention.dense",
        f"{LAYER_PREFIX}.feed_forward_norm": f"{SOURCE_LAYER}.post_attention_layernorm",
        f"{LAYER_PREFIX}.intermediate.dense": f"{SOURCE_LAYER}.mlp.dense_h_to_4h",
        f"{LAYER_PREFIX}.output.dense": f"{SOURCE_LAYER}.mlp.dense_4h_to_h",
        "decoder.layer_norm": "final_layer_norm",
    },
    head_weights=DECODER_HEADS
    | {
        "causal-lm": {"head.projection": either("lm_head", "embed_out")},
        "token-classification": {"head.projection": "classifier"},
    },
    unused_tensors=(
        f"{SOURCE_LAYER}.attention.bias",
        f"{SOURCE_LAYER}.attention.masked_bias",
        f"{SOURCE_LAYER}.attention.rotary_emb.inv_freq",
    ),
)
