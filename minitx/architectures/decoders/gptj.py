"""GPT-J (Wang and Komatsuzaki 2021): GPT-2 with rotary positions and both branches side by side.

Differs from GPT-2: attention and feed-forward read one norm and are added at once; the first features of
each head turn, in pairs of neighbours (arXiv:2104.09864), and no table of positions is left; attention has
no biases; the head has its own projection, with a bias; matrices are stored as (outputs, inputs).
"""

from __future__ import annotations

from minitx.architectures._decoder import DECODER_HEADS, decoder_heads, pre_norm_decoder
from minitx.architectures._text import text_inputs
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.config import (
    AttentionConfig,
    FeedForwardConfig,
    HeadConfig,
    ModelConfig,
    NormConfig,
    RopeConfig,
    Rotary,
)
from minitx.layers.stack import FULL


def read(hf: ConfigReader) -> ModelConfig:
    # The heads of another class, switches that are always on, and a size said twice.
    hf.ignore("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels")
    hf.ignore("summary_first_dropout", "scale_attn_weights", "rotary", "n_ctx")
    size, heads = hf.size("n_embd"), hf.size("n_head")
    head_dim, rotary_dim = hf.head_dim(size, heads), hf.size("rotary_dim", 64)
    if rotary_dim > head_dim or rotary_dim % 2:
        raise ValueError(
            f"config.json: rotary_dim={rotary_dim} must be even, and of a head's {head_dim} features."
        )
    rope = RopeConfig(rope_theta=10_000.0, rotary_dim=rotary_dim, interleaved=True)
    dropout = hf.probability("resid_pdrop", 0.0)
    return ModelConfig(
        initializer_range=hf.number("initializer_range", 0.02),
        inputs=text_inputs(
            hf,
            size,
            length="n_positions",
            padding_is_trained=True,
            dropout=hf.probability("embd_pdrop", 0.0),
        ),
        decoder=pre_norm_decoder(
            size,
            hf.size("n_layer"),
            AttentionConfig(
                num_attention_heads=heads,
                head_dim=head_dim,
                bias=False,
                output_bias=False,
                dropout=hf.probability("attn_pdrop", 0.0),
                output_dropout=dropout,
            ),
            FeedForwardConfig(
                intermediate_size=hf.size_or_none("n_inner") or 4 * size,
                hidden_act=hf.name("activation_function", "gelu_new"),
                output_dropout=dropout,
            ),
            NormConfig(eps=hf.number("layer_norm_epsilon", 1e-5)),
            positions=Rotary(ropes={FULL: rope}),
            parallel="one_norm",
        ),
    )


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    return {task: head for task, head in decoder_heads(hf, bias=True).items() if task in HEADS}


HEADS = {task: DECODER_HEADS[task] for task in ("causal-lm", "sequence-classification")}
LAYER, SOURCE = "decoder.layers.{i}", "h.{i}"

ARCHITECTURE = Architecture(
    model_types={"gptj": "GPTJ"},
    read=read,
    heads=heads,
    prefix="transformer.",
    weights={
        "embedder.word_emb": "wte",
        f"{LAYER}.attention_norm": f"{SOURCE}.ln_1",
        f"{LAYER}.attention.self_attention.Q": f"{SOURCE}.attn.q_proj",
        f"{LAYER}.attention.self_attention.K": f"{SOURCE}.attn.k_proj",
        f"{LAYER}.attention.self_attention.V": f"{SOURCE}.attn.v_proj",
        f"{LAYER}.attention.self_output.dense": f"{SOURCE}.attn.out_proj",
        f"{LAYER}.intermediate.dense": f"{SOURCE}.mlp.fc_in",
        f"{LAYER}.output.dense": f"{SOURCE}.mlp.fc_out",
        "decoder.layer_norm": "ln_f",
    },
    head_weights=HEADS,
    unused_tensors=(f"{SOURCE}.attn.bias", f"{SOURCE}.attn.masked_bias"),
)
