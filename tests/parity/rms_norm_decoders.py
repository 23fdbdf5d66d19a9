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
GEMMA = {**LLAMA, "head_dim": 10}
MISTRAL = {**LLAMA, "sliding_window": 7}
WINDOW = (6, 7, 8, 13, 14)  # both sides of its edge
MIXTRAL = {**LLAMA, "num_local_experts": 5, "num_experts_per_tok": 2}
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
]
