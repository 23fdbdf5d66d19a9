"""GPT-2 (Radford et al. 2019): the pre-norm decoder with learned positions.

Differs from BERT: causal, pre-norm with a final norm, GELU by its tanh approximation; the head is the word
embedding, without a bias. Its matrices are stored as (inputs, outputs), and Q, K and V as one.
"""

from __future__ import annotations

import math

from minitx.architectures._decoder import DECODER_HEADS, decoder_heads, pre_norm_decoder
from minitx.architectures._text import attention, feed_forward, text_inputs
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.mapping import split_transposed, transposed
from minitx.config import HeadConfig, LearnedPositions, ModelConfig, NormConfig
from minitx.models import Model
from minitx.models.initialization import Draw, Rules


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    hf.reject_decoder_flags()
    size, heads, dropout = hf.size("n_embd"), hf.size("n_head"), hf.probability("resid_pdrop", 0.1)
    inner, embedded = hf.size_or_none("n_inner") or 4 * size, hf.probability("embd_pdrop", 0.1)
    return ModelConfig(
        initializer_range=hf.number("initializer_range", 0.02),
        inputs=text_inputs(
            hf,
            size,
            length="n_positions",
            positions=LearnedPositions(),
            padding_is_trained=True,
            dropout=embedded,
        ),
        decoder=pre_norm_decoder(
            size,
            hf.size("n_layer"),
            attention(
                hf,
                size,
                heads,
                scale=None if hf.flag("scale_attn_weights", True) else 1.0,
                scale_by_layer=hf.flag("scale_attn_by_inverse_layer_idx", False),
                dropout=hf.probability("attn_pdrop", 0.1),
                output_dropout=dropout,
            ),
            feed_forward(inner, hf.activation("activation_function", "gelu_new"), dropout),
            NormConfig(eps=hf.number("layer_norm_epsilon", 1e-5)),
            causal=hf.flag("is_causal", True),
        ),
    )


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the head of each task."""
    return decoder_heads(hf, tied=True)


def initialization(model: Model) -> Rules:
    """Scales the projections into the residual connections down with their number (section 2.3)."""
    std, layers = model.config.initializer_range, model.config.stack.num_hidden_layers
    return {"decoder.*output.dense.weight": Draw(std=std / math.sqrt(2 * layers))}


LAYER_PREFIX = "decoder.layers.{i}"
ATTENTION = f"{LAYER_PREFIX}.attention.self_attention"
CROSS = f"{LAYER_PREFIX}.cross_attention"

ARCHITECTURE = Architecture(
    model_types={"gpt2": "GPT2"},
    classes={"causal-lm": "GPT2LMHeadModel"},
    read=read,
    heads=heads,
    initialization=initialization,
    prefix="transformer.",
    weights={
        "embedder.word_emb": "wte",
        "embedder.pos_emb": "wpe",
        f"{LAYER_PREFIX}.attention_norm": "h.{i}.ln_1",
        (f"{ATTENTION}.Q", f"{ATTENTION}.K", f"{ATTENTION}.V"): split_transposed("h.{i}.attn.c_attn"),
        f"{LAYER_PREFIX}.attention.self_output.dense": transposed("h.{i}.attn.c_proj"),
        f"{LAYER_PREFIX}.feed_forward_norm": "h.{i}.ln_2",
        f"{LAYER_PREFIX}.intermediate.dense": transposed("h.{i}.mlp.c_fc"),
        f"{LAYER_PREFIX}.output.dense": transposed("h.{i}.mlp.c_proj"),
        "decoder.layer_norm": "ln_f",
    },
    head_weights=DECODER_HEADS | {"token-classification": {"head.projection": "classifier"}},
    unused_tensors=(
        "h.{i}.attn.bias",
        "h.{i}.attn.masked_bias",
        "h.{i}.crossattention.bias",
        "h.{i}.crossattention.masked_bias",
    ),
    cross_attention_weights={
        f"{LAYER_PREFIX}.cross_attention_norm": "h.{i}.ln_cross_attn",
        f"{CROSS}.cross_attention.Q": transposed("h.{i}.crossattention.q_attn"),
        (f"{CROSS}.cross_attention.K", f"{CROSS}.cross_attention.V"): split_transposed(
            "h.{i}.crossattention.c_attn"
        ),
        f"{CROSS}.cross_output.dense": transposed("h.{i}.crossattention.c_proj"),
    },
)
