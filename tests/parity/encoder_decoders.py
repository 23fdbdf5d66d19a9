"""The tiny configurations of the encoder-decoders."""

from __future__ import annotations

from typing import Any

from tests.parity.case import Case

T5: dict[str, Any] = {
    "vocab_size": 99,
    "d_model": 24,
    "d_kv": 7,
    "d_ff": 37,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "dropout_rate": 0.11,
    "classifier_dropout": 0.37,
    "initializer_factor": 0.5,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 0,
}
GATED = {"feed_forward_proj": "gated-gelu", "num_heads": 3, "relative_attention_num_buckets": 12}
BART: dict[str, Any] = {
    "vocab_size": 99,
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 37,
    "decoder_ffn_dim": 29,
    "max_position_embeddings": 48,
    "dropout": 0.11,
    "attention_dropout": 0.23,
    "activation_dropout": 0.31,
    "classifier_dropout": 0.37,
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "num_labels": 3,
}
NO_CLASSES = {key: value for key, value in BART.items() if key not in ("classifier_dropout", "num_labels")}
MARIAN = {**NO_CLASSES, "pad_token_id": 0, "decoder_start_token_id": 0, "activation_function": "silu"}
BERT: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 99,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 48,
    "hidden_dropout_prob": 0.11,
    "attention_probs_dropout_prob": 0.23,
    "type_vocab_size": 2,
}
ROBERTA = {**BERT, "model_type": "roberta", "pad_token_id": 1, "max_position_embeddings": 52}
GPT2: dict[str, Any] = {
    "model_type": "gpt2",
    "vocab_size": 99,
    "n_embd": 12,
    "n_layer": 3,
    "n_head": 3,
    "n_positions": 48,
    "resid_pdrop": 0.13,
    "embd_pdrop": 0.17,
    "attn_pdrop": 0.29,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# Norms here round once where the reference rounds twice: mostly closer to float32 (median over seeds 0.94),
# but other roundings move a single seed either way.
ROUNDS_ONCE: dict[str, Any] = {"bfloat16": 1.3, "because": "norms round once, the reference's twice"}
DECODES = {"is_decoder": True, "add_cross_attention": True}
GLUED = {"decoder_start_token_id": 3, "pad_token_id": 0}

ENCODER_DECODERS = [
    Case("t5", "t5", T5, lengths=(17, 40), **ROUNDS_ONCE),
    Case("t5-gated", "t5", {**T5, **GATED, "tie_word_embeddings": False, "num_labels": 5}, **ROUNDS_ONCE),
    Case(
        "t5-near",
        "t5",
        {**T5, "relative_attention_max_distance": 9, "relative_attention_num_buckets": 8},
        **ROUNDS_ONCE,
    ),
    Case("mt5", "mt5", {**T5, "feed_forward_proj": "gated-silu"}, **ROUNDS_ONCE),
    Case("umt5", "umt5", {**T5, **GATED}, **ROUNDS_ONCE),
    Case("bart", "bart", BART),
    Case(
        "bart-scaled",
        "bart",
        {**BART, "scale_embedding": True, "activation_function": "relu", "num_labels": 5},
    ),
    Case("mbart", "mbart", {**BART, "scale_embedding": True}),
    Case("marian", "marian", MARIAN),
    Case("marian-untied", "marian", {**MARIAN, "tie_word_embeddings": False}),
    Case(
        "marian-two-vocabularies",
        "marian",
        {
            **MARIAN,
            "d_model": 12,
            "scale_embedding": True,
            "share_encoder_decoder_embeddings": False,
            "decoder_vocab_size": 105,
        },
    ),
    Case(
        "pegasus",
        "pegasus",
        {**NO_CLASSES, "pad_token_id": 0, "decoder_start_token_id": 0, "scale_embedding": True},
    ),
    Case("m2m_100", "m2m_100", NO_CLASSES),
    Case("blenderbot", "blenderbot", {**NO_CLASSES, "pad_token_id": 0, "decoder_start_token_id": 1}),
    Case(
        "bert-bert",
        "encoder-decoder",
        {"encoder": BERT, "decoder": {**BERT, **DECODES, "num_hidden_layers": 3}, **GLUED},
    ),
    Case("bert-gpt2", "encoder-decoder", {"encoder": BERT, "decoder": {**GPT2, **DECODES}, **GLUED}),
    Case(
        "roberta-roberta",
        "encoder-decoder",
        {"encoder": ROBERTA, "decoder": {**ROBERTA, **DECODES}, **GLUED, "pad_token_id": 1},
    ),
]
