"""GPT-J (Wang and Komatsuzaki 2021): GPT-2 with RoPE and parallel branches.

Differs from GPT-2: attention and feed-forward start from one shared norm and are added together; RoPE rotates
pairs of neighbouring features (arXiv:2104.09864), and there is no position table; attention has no biases;
the head has its own projection, with a bias; matrices are stored as (outputs, inputs).
"""

from __future__ import annotations

from minitx.architectures._decoder import TWO_HEADS, pre_norm_decoder, two_decoder_heads
from minitx.architectures._text import attention, feed_forward, text_inputs
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.mapping import attention_entries
from minitx.config import HeadConfig, ModelConfig, NormConfig, RopeConfig, Rotary
from minitx.config.model import FULL


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    size, heads = hf.size("n_embd"), hf.size("n_head")
    head_dim, rotary_dim = hf.head_dim(size, heads), hf.size("rotary_dim", 64)
    if rotary_dim > head_dim or rotary_dim % 2:
        raise hf.error("rotary_dim", rotary_dim, f"even, and at most head_dim={head_dim}")
    rope = RopeConfig(rope_theta=10_000.0, rotary_dim=rotary_dim, interleaved=True)
    inner, dropout = hf.size_or_none("n_inner") or 4 * size, hf.probability("resid_pdrop", 0.0)
    weights, embedded = hf.probability("attn_pdrop", 0.0), hf.probability("embd_pdrop", 0.0)
    return ModelConfig(
        initializer_range=hf.number("initializer_range", 0.02),
        inputs=text_inputs(hf, size, length="n_positions", padding_is_trained=True, dropout=embedded),
        decoder=pre_norm_decoder(
            size,
            hf.size("n_layer"),
            attention(
                hf, size, heads, bias=False, output_bias=False, dropout=weights, output_dropout=dropout
            ),
            feed_forward(inner, hf.activation("activation_function", "gelu_new"), dropout),
            NormConfig(eps=hf.number("layer_norm_epsilon", 1e-5)),
            positions=Rotary(ropes={FULL: rope}),
            causal=hf.flag("is_causal", True),
            parallel="one_norm",
        ),
    )


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the head of each task."""
    return two_decoder_heads(hf, bias=True)


LAYER_PREFIX, SOURCE_LAYER = "decoder.layers.{i}", "h.{i}"

ARCHITECTURE = Architecture(
    model_types={"gptj": "GPTJ"},
    read=read,
    heads=heads,
    prefix="transformer.",
    weights={
        "embedder.word_emb": "wte",
        f"{LAYER_PREFIX}.attention_norm": f"{SOURCE_LAYER}.ln_1",
        **attention_entries(
            f"{LAYER_PREFIX}.attention", f"{SOURCE_LAYER}.attn", "q_proj k_proj v_proj out_proj"
        ),
        f"{LAYER_PREFIX}.intermediate.dense": f"{SOURCE_LAYER}.mlp.fc_in",
        f"{LAYER_PREFIX}.output.dense": f"{SOURCE_LAYER}.mlp.fc_out",
        "decoder.layer_norm": "ln_f",
    },
    head_weights=TWO_HEADS,
    unused_tensors=(f"{SOURCE_LAYER}.attn.bias", f"{SOURCE_LAYER}.attn.masked_bias"),
)
