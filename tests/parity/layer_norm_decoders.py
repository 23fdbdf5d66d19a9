"""Tiny configurations of the decoders with LayerNorm."""

from __future__ import annotations

from tests.parity.case import ODD, SIZES, Case

IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
IN_THE_TEXTS = 27  # a padding id that texts use too; with a gradient, or without
GPT2 = {
    "vocab_size": 99,
    "n_embd": 24,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 48,
    "n_inner": 37,
    **IDS,
    "embd_pdrop": 0.11,
    "attn_pdrop": 0.23,
    "resid_pdrop": 0.17,
    "layer_norm_epsilon": 1e-3,
}
BLOOM = {
    "vocab_size": 99,
    "hidden_size": 24,
    "n_layer": 3,
    "n_head": 4,
    **IDS,
    "hidden_dropout": 0.11,
    "attention_dropout": 0.23,
    "layer_norm_epsilon": 1e-3,
}
GPT_NEO = {
    "vocab_size": 99,
    "hidden_size": 24,
    "num_layers": 3,
    "num_heads": 4,
    "max_position_embeddings": 48,
    "intermediate_size": 37,
    **IDS,
    "attention_types": [[["global", "local"], 1], [["local"], 1]],
    "window_size": 7,
    "embed_dropout": 0.11,
    "attention_dropout": 0.23,
    "resid_dropout": 0.17,
    "classifier_dropout": 0.31,
    "layer_norm_epsilon": 1e-3,
}
GPTJ = {**GPT2, "rotary_dim": 4}
GPT_NEOX = {
    **SIZES,
    **IDS,
    "num_attention_heads": 3,
    "hidden_dropout": 0.11,
    "attention_dropout": 0.23,
    "classifier_dropout": 0.31,
    "layer_norm_eps": 1e-3,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
}
OPT = {
    **ODD,
    **IDS,
    "ffn_dim": 37,
    "max_position_embeddings": 48,
    "dropout": 0.11,
    "attention_dropout": 0.23,
}
PHI = {
    **SIZES,
    **IDS,
    "num_attention_heads": 3,
    "embd_pdrop": 0.11,
    "attention_dropout": 0.23,
    "resid_pdrop": 0.17,
    "layer_norm_eps": 1e-3,
}
EIGHT_DIGITS = (
    "the reference's GELU has sqrt(2 / pi) with eight digits, and its gradient another number as short"
)

LAYER_NORM_DECODERS = [
    Case("gpt2", "gpt2", GPT2),
    Case(
        "gpt2-scaled-by-layer",
        "gpt2",
        {
            **GPT2,
            "n_inner": None,
            "scale_attn_by_inverse_layer_idx": True,
            "scale_attn_weights": False,
            "pad_token_id": IN_THE_TEXTS,
            "activation_function": "relu",
            "tie_word_embeddings": False,
            "num_labels": 5,
            "classifier_dropout": 0.31,
        },
    ),
    Case("bloom", "bloom", BLOOM, float64=1e-8, because=EIGHT_DIGITS, reference="eager"),
    Case(
        "bloom-residual-after-norm",
        "bloom",
        {
            **BLOOM,
            "n_head": 6,
            "apply_residual_connection_post_layernorm": True,
            "tie_word_embeddings": False,
            "num_labels": 5,
            "classifier_dropout": 0.31,
        },
        float64=1e-8,
        because=EIGHT_DIGITS,
        reference="eager",
    ),
    Case("opt", "opt", OPT),
    Case(
        "opt-350m",
        "opt",
        {**OPT, "word_embed_proj_dim": 10, "do_layer_norm_before": False, "num_labels": 5},
    ),
    Case(
        "opt-no-biases",
        "opt",
        {
            **OPT,
            "enable_bias": False,
            "_remove_final_layer_norm": True,
            "activation_function": "gelu",
            "tie_word_embeddings": False,
            "pad_token_id": IN_THE_TEXTS,
        },
    ),
    Case("gpt-neo", "gpt_neo", GPT_NEO, lengths=(6, 7, 8, 13, 14), reference="eager"),
    Case(
        "gpt-neo-global",
        "gpt_neo",
        {
            **GPT_NEO,
            "num_heads": 6,
            "intermediate_size": None,
            "attention_types": [[["global"], 3]],
            "activation_function": "relu",
            "tie_word_embeddings": False,
            "num_labels": 5,
        },
        reference="eager",
    ),
    Case("gptj", "gptj", GPTJ, reference="eager"),
    Case(
        "gptj-whole-heads",
        "gptj",
        {
            **GPTJ,
            "n_head": 3,
            "n_inner": None,
            "rotary_dim": 8,
            "activation_function": "relu",
            "tie_word_embeddings": True,
            "pad_token_id": IN_THE_TEXTS,
            "num_labels": 5,
        },
        reference="eager",
    ),
    Case("gpt-neox", "gpt_neox", GPT_NEOX),
    Case(
        "gpt-neox-one-after-the-other",
        "gpt_neox",
        {
            **GPT_NEOX,
            "num_attention_heads": 4,
            "use_parallel_residual": False,
            "attention_bias": False,
            "hidden_act": "relu",
            "rope_parameters": {"rope_type": "linear", "factor": 3.0, "partial_rotary_factor": 0.7},
            "tie_word_embeddings": True,
            "pad_token_id": IN_THE_TEXTS,
            "num_labels": 5,
        },
    ),
    Case("phi", "phi", PHI),
    Case(
        "phi-normed-heads",
        "phi",
        {
            **PHI,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "qk_layernorm": True,
            "hidden_act": "relu",
            "tie_word_embeddings": True,
            "pad_token_id": IN_THE_TEXTS,
            "num_labels": 5,
            "classifier_dropout": 0.31,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 1.0},
        },
    ),
]
