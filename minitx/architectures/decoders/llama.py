"""Llama 1 to 3 (arXiv:2302.13971, 2407.21783): the decoder that most later ones are compared with.

- pre-norm with RMS norms, gated SiLU feed-forward, no biases by default
- RoPE on halves of each head; no position table
- fewer key/value heads than query heads, shared by groups
"""

from __future__ import annotations

from collections.abc import Collection

from minitx.architectures._decoder import DECODER_HEADS, decoder_heads, pre_norm_decoder
from minitx.architectures._rope import rope_per_type, rope_values
from minitx.architectures._text import attention, feed_forward, text_inputs
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.mapping import Table, attention_entries
from minitx.config import ModelConfig, NormConfig, Rotary
from minitx.config.model import FULL, SLIDING

BIASES = ("attention_bias", "mlp_bias")


def read(
    hf: ConfigReader,
    *,
    eps: float = 1e-6,
    key_value_heads: int | None = None,
    head_dim: int | None = None,
    pad: int | None = None,
    theta: float = 10_000.0,
    partial: bool = False,
    biases: Collection[str] = ("attention_bias",),
) -> ModelConfig:
    """Reads the keys that most relatives share; the parameters are their defaults for absent keys.

    Args:
        hf: the config.
        eps: of the norms.
        key_value_heads: number of key/value heads; None: the number of heads.
        head_dim: width of a head; None: hidden_size / heads.
        pad: padding id.
        theta: base of RoPE.
        partial: whether RoPE may rotate part of a head.
        biases: flags of the biases that the architecture supports; the others must be false.
    """
    size, heads = hf.size("hidden_size"), hf.size("num_attention_heads")
    stored = hf.get("head_dim", head_dim)
    width = hf.head_dim(size, heads) if stored is None else hf.size("head_dim", head_dim)
    attention_bias, mlp_bias = (
        hf.flag(key, False) if key in biases else hf.expect(key, False) for key in BIASES
    )
    inner, values = hf.size("intermediate_size"), rope_values(hf, theta=theta)
    if not partial and values["partial_rotary_factor"] != 1:
        share = values["partial_rotary_factor"]
        raise hf.error("partial_rotary_factor", share, "1", "this architecture rotates whole heads")
    return ModelConfig(
        initializer_range=hf.number("initializer_range", 0.02),
        inputs=text_inputs(hf, size, pad=pad),
        decoder=pre_norm_decoder(
            size,
            hf.size("num_hidden_layers"),
            attention(
                hf,
                size,
                heads,
                num_key_value_heads=hf.key_value_heads(heads, key_value_heads),
                head_dim=width,
                bias=attention_bias,
                output_bias=attention_bias,
                dropout=hf.probability("attention_dropout", 0.0),
            ),
            feed_forward(inner, hf.activation("hidden_act", "silu"), gated=True, bias=mlp_bias),
            NormConfig(kind="rms_norm", eps=hf.number("rms_norm_eps", eps)),
            causal=hf.flag("is_causal", True),
            positions=Rotary(ropes=rope_per_type(hf, values, (FULL, SLIDING), width)),
        ),
    )


LAYER_PREFIX, SOURCE_LAYER = "decoder.layers.{i}", "layers.{i}"

NON_FFN_WEIGHTS: Table = {
    "embedder.word_emb": "embed_tokens",
    f"{LAYER_PREFIX}.attention_norm": f"{SOURCE_LAYER}.input_layernorm",
    **attention_entries(
        f"{LAYER_PREFIX}.attention", f"{SOURCE_LAYER}.self_attn", "q_proj k_proj v_proj o_proj"
    ),
    f"{LAYER_PREFIX}.feed_forward_norm": f"{SOURCE_LAYER}.post_attention_layernorm",
    "decoder.layer_norm": "norm",
}

WEIGHTS = NON_FFN_WEIGHTS | {
    f"{LAYER_PREFIX}.intermediate.gate": f"{SOURCE_LAYER}.mlp.gate_proj",
    f"{LAYER_PREFIX}.intermediate.dense": f"{SOURCE_LAYER}.mlp.up_proj",
    f"{LAYER_PREFIX}.output.dense": f"{SOURCE_LAYER}.mlp.down_proj",
}

UNUSED_TENSORS = (f"{SOURCE_LAYER}.self_attn.rotary_emb.inv_freq",)


def read_llama(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a Llama, which may have both kinds of biases."""
    return read(hf, biases=BIASES)


ARCHITECTURE = Architecture(
    model_types={"llama": "Llama"},
    read=read_llama,
    heads=decoder_heads,
    prefix="model.",
    weights=WEIGHTS,
    head_weights=DECODER_HEADS,
    unused_tensors=UNUSED_TENSORS,
)
