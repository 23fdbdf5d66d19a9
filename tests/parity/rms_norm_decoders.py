"""Tiny configurations of the decoders with RMSNorm."""

from __future__ import annotations

from tests.parity.case import FULL, SIZES, SLIDING, Case

LLAMA = {
    **SIZES,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "attention_dropout": 0.13,
    "rms_norm_eps": 1e-3,
}
GRANITE = {
    **LLAMA,
    "embedding_multiplier": 3.7,
    "attention_multiplier": 0.31,
    "residual_multiplier": 0.43,
    "logits_scaling": 5.3,
}
GEMMA = {**LLAMA, "head_dim": 10}
MISTRAL = {**LLAMA, "sliding_window": 7}
WINDOW = (6, 7, 8, 13, 14)  # both sides of its edge
MIXTRAL = {**LLAMA, "num_local_experts": 5, "num_experts_per_tok": 2}
QWEN3_MOE = {**LLAMA, "head_dim": 10, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 13}
GEMMA3 = {**GEMMA, "num_hidden_layers": 7, "sliding_window": 7, "query_pre_attn_scalar": 7}
PHI3 = {**LLAMA, "resid_pdrop": 0.11, "embd_pdrop": 0.17}
GPT_OSS = {
    **LLAMA,
    "head_dim": 10,
    "sliding_window": 7,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 500.0,
    "short_factor": [1.0, 1.3, 1.7],
    "long_factor": [2.0, 3.5, 6.0],
}
EXPERTS_CHANGE = (
    "where two experts are nearly equally good, bfloat16 decides for another one than float32, here or in "
    "the reference: those few tokens are most of the distance (with every expert chosen, the limit is 1.1)"
)


def rope(**values: object) -> dict[str, object]:
    return {**LLAMA, "rope_parameters": {"rope_theta": 500.0, **values}}


RMS_NORM_DECODERS = [
    Case("llama", "llama", LLAMA),
    Case(
        "llama-biases",
        "llama",
        {
            **LLAMA,
            "num_key_value_heads": None,
            "attention_bias": True,
            "mlp_bias": True,
            "head_dim": 10,
            "hidden_act": "gelu",
            "tie_word_embeddings": True,
            "num_labels": 5,
        },
    ),
    Case("llama-linear", "llama", rope(rope_type="linear", factor=3.0)),
    Case(
        "llama-dynamic",
        "llama",
        {**rope(rope_type="dynamic", factor=2.0), "max_position_embeddings": 16},
        lengths=(16, 17),
        depends_on_length=True,
    ),
    Case(
        "llama-yarn",
        "llama",
        rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=12, beta_fast=4.0, beta_slow=0.5),
    ),
    Case(
        "llama-3",
        "llama",
        rope(
            rope_type="llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=40,
        ),
    ),
    Case("granite", "granite", GRANITE),
    Case(
        "granite-biases",
        "granite",
        {
            **GRANITE,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
            "num_key_value_heads": None,
        },
    ),
    Case("gemma", "gemma", GEMMA),
    Case(
        "gemma-untied",
        "gemma",
        {**GEMMA, "num_labels": 5, "tie_word_embeddings": False, "hidden_act": "gelu"},
    ),
    Case(
        "gemma2",
        "gemma2",
        {
            **GEMMA,
            "sliding_window": 7,
            "query_pre_attn_scalar": 7,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
        lengths=WINDOW,
        reference="eager",
    ),
    Case(
        "gemma2-uncapped",
        "gemma2",
        {
            **GEMMA,
            "layer_types": [FULL, SLIDING, SLIDING],
            "sliding_window": 4,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "attention_bias": True,
        },
        lengths=(3, 4, 5),
        reference="eager",
    ),
    Case("mistral", "mistral", MISTRAL, lengths=WINDOW),
    Case("mistral-no-window", "mistral", {**MISTRAL, "sliding_window": None, "num_attention_heads": 6}),
    Case("mixtral", "mixtral", MIXTRAL, bfloat16=1.3, because=EXPERTS_CHANGE),
    Case("mixtral-every-expert", "mixtral", {**MIXTRAL, "num_experts_per_tok": 5, "num_labels": 5}),
    Case(
        "mixtral-window",
        "mixtral",
        {**MIXTRAL, "sliding_window": 7, "num_experts_per_tok": 1},
        lengths=WINDOW,
    ),
    Case("qwen2", "qwen2", LLAMA),
    Case(
        "qwen2-window",
        "qwen2",
        {**LLAMA, "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1, "num_labels": 5},
        lengths=WINDOW,
    ),
    Case("qwen3", "qwen3", {**LLAMA, "head_dim": 10}),
    Case(
        "qwen3-window",
        "qwen3",
        {
            **LLAMA,
            "head_dim": 6,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 7,
            "layer_types": [SLIDING, FULL, SLIDING],
            "num_key_value_heads": 4,
        },
        lengths=WINDOW,
    ),
    Case("qwen3-moe", "qwen3_moe", QWEN3_MOE, bfloat16=1.3, because=EXPERTS_CHANGE),
    Case(
        "qwen3-moe-every-expert",
        "qwen3_moe",
        {
            **QWEN3_MOE,
            "num_experts_per_tok": 5,
            "norm_topk_prob": True,
            "mlp_only_layers": [1],
            "use_sliding_window": True,
            "sliding_window": 7,
            "num_labels": 5,
        },
        lengths=WINDOW,
    ),
    Case(
        "qwen3-moe-sparse-step",
        "qwen3_moe",
        {**QWEN3_MOE, "decoder_sparse_step": 2, "attention_bias": True, "num_experts_per_tok": 5},
    ),
    Case("olmo2", "olmo2", LLAMA),
    Case(
        "olmo2-biases", "olmo2", {**LLAMA, "attention_bias": True, "num_key_value_heads": 4, "num_labels": 5}
    ),
    Case("smollm3", "smollm3", {**LLAMA, "num_hidden_layers": 5}),
    Case(
        "smollm3-window",
        "smollm3",
        {
            **LLAMA,
            "no_rope_layers": [0, 1, 0],
            "use_sliding_window": True,
            "sliding_window": 7,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": False,
            "num_labels": 5,
        },
        lengths=WINDOW,
    ),
    Case(
        "smollm3-listed-windows",
        "smollm3",
        {**LLAMA, "layer_types": [SLIDING, FULL, FULL], "sliding_window": 7, "no_rope_layer_interval": 2},
        lengths=WINDOW,
    ),
    Case("gemma3", "gemma3_text", GEMMA3, lengths=WINDOW, reference="eager"),
    Case(
        "gemma3-capped",
        "gemma3_text",
        {
            **GEMMA3,
            "num_hidden_layers": 3,
            "attn_logit_softcapping": 2.0,  # without effect
            "final_logit_softcapping": 3.0,
            "attention_bias": True,
            "layer_types": [FULL, SLIDING, SLIDING],
            "rope_parameters": {
                FULL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 500.0},
                SLIDING: {"rope_type": "default", "rope_theta": 30.0},
            },
            "num_labels": 5,
            "tie_word_embeddings": False,
        },
        lengths=WINDOW,
        reference="eager",
    ),
    Case("phi3", "phi3", PHI3),
    Case(
        "phi3-window",
        "phi3",
        {
            **PHI3,
            "sliding_window": 7,
            "num_key_value_heads": 4,
            "num_labels": 5,
            "rope_parameters": {"rope_theta": 500.0, "partial_rotary_factor": 0.67},
        },
        lengths=WINDOW,
    ),
    Case(
        "phi3-long",
        "phi3",
        {**PHI3, "original_max_position_embeddings": 12, "rope_parameters": LONGROPE},
        lengths=(12, 13),
        depends_on_length=True,
    ),
    Case(
        "llama-longrope",
        "llama",
        rope(**LONGROPE, original_max_position_embeddings=16, attention_factor=1.3, factor=5.0),
        lengths=(16, 17),
        depends_on_length=True,
    ),
    Case(
        "llama-yarn-magnitudes",
        "llama",
        rope(
            rope_type="yarn",
            factor=4.0,
            original_max_position_embeddings=12,
            mscale=0.7,
            mscale_all_dim=1.3,
            truncate=False,
        ),
    ),
    Case(
        "llama-yarn-given",
        "llama",
        rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=12, attention_factor=0.8),
    ),
    Case(
        "llama-3-bands",
        "llama",
        rope(
            rope_type="llama3",
            factor=4.0,
            low_freq_factor=2.0,
            high_freq_factor=6.0,
            original_max_position_embeddings=40,
        ),
    ),
    Case(
        "gpt-oss", "gpt_oss", GPT_OSS, lengths=WINDOW, reference="eager", bfloat16=3.0, because=EXPERTS_CHANGE
    ),
    Case(
        "gpt-oss-every-expert",
        "gpt_oss",
        {
            **GPT_OSS,
            "num_experts_per_tok": 6,
            "swiglu_limit": 0.3,
            "swiglu_alpha": 1.1,
            "attention_bias": False,
            "layer_types": [FULL, SLIDING, FULL],
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
            "num_labels": 5,
            "tie_word_embeddings": True,
        },
        lengths=WINDOW,
        reference="eager",
    ),
]
