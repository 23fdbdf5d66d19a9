"""Keys of published config.json files, of each architecture: they are read, or known to have no effect."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import minitx
from minitx.architectures import REGISTRY
from minitx.architectures.encoders import bert
from minitx.architectures.known_keys import known_keys, second_names
from minitx.checkpoint.build import choose_architecture, read_config
from tests.parity.cases import CASES
from tests.parity.keys import file_of, keys_read

FIRST = {case.model_type: case for case in reversed(CASES)}
BERT = """
    gradient_checkpointing position_embedding_type directionality pooler_fc_size pooler_num_attention_heads
    pooler_num_fc_layers pooler_size_per_head pooler_type classifier_dropout output_past model_max_length
    language name
"""
BART = """
    activation_dropout add_bias_logits add_final_layer_norm attention_dropout classif_dropout
    decoder_layerdrop early_stopping encoder_layerdrop extra_pos_embeddings force_bos_token_to_be_generated
    forced_bos_token_id forced_eos_token_id gradient_checkpointing init_std length_penalty max_length
    min_length no_repeat_ngram_size normalize_before normalize_embedding num_beams num_hidden_layers
    output_past prefix save_step scale_embedding static_position_embeddings task_specific_params
    tokenizer_class _num_labels
"""
GPT = """
    gradient_checkpointing summary_activation summary_first_dropout summary_proj_to_labels summary_type
    summary_use_proj task_specific_params tokenizer_class
"""
LLAMA = """
    attention_bias attention_dropout head_dim hidden_act max_position_embeddings pretraining_tp rms_norm_eps
    rope_scaling rope_theta unsloth_fixed unsloth_version transformers.js_config
"""
T5 = """
    classifier_dropout dense_act_fn feed_forward_proj gradient_checkpointing initializer_factor is_gated_act
    output_past relative_attention_max_distance task_specific_params tokenizer_class
"""
EVERY = """
    _attn_implementation _commit_hash _name_or_path architectures bad_words_ids begin_suppress_tokens
    bos_token_id chunk_size_feed_forward decoder_start_token_id diversity_penalty do_sample dtype
    encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task id2label
    is_decoder is_encoder_decoder label2id length_penalty max_length min_length no_repeat_ngram_size
    num_beam_groups num_beams num_return_sequences output_attentions output_hidden_states output_scores
    pad_token_id prefix problem_type pruned_heads remove_invalid_values repetition_penalty return_dict
    return_dict_in_generate sep_token_id suppress_tokens temperature tf_legacy_loss tie_encoder_decoder
    tokenizer_class top_k top_p torch_dtype torchscript transformers_version typical_p use_bfloat16 use_cache
"""
REAL = {
    "albert": "classifier_dropout_prob down_scale_factor gap_size inner_group_num layers_to_keep "
    "net_structure_type num_hidden_groups num_memory_blocks output_past position_embedding_type",
    "bart": BART,
    "bert": BERT,
    "blenderbot": BART + "do_blenderbot_90_layernorm extra_layer_norm layernorm_variant variant",
    "bloom": "apply_residual_connection_post_layernorm attention_softmax_in_fp32 bias_dropout_fusion "
    "masked_softmax_fusion n_embed n_inner num_attention_heads offset_alibi pretraining_tp seq_length "
    "skip_bias_add skip_bias_add_qkv slow_but_exact unk_token_id",
    "camembert": BERT,
    "deberta-v2": "conv_act conv_kernel_size is_causal max_relative_positions norm_rel_ebd pooler_dropout "
    "pooler_hidden_act pooler_hidden_size pos_att_type position_biased_input position_buckets "
    "relative_attention share_att_key summary_type",
    "distilbert": "output_past qa_dropout seq_classif_dropout sinusoidal_pos_embds tie_weights_ "
    "vocab_size_or_config_json_file",
    "electra": BERT + "summary_activation summary_last_dropout summary_type summary_use_proj",
    "tapas": "aggregation_labels answer_loss_cutoff gradient_checkpointing no_aggregation_label_index "
    "softmax_temperature type_vocab_size type_vocab_sizes use_gumbel_for_cells",
    "gemma": LLAMA + "hidden_activation",
    "gemma2": LLAMA.replace("rope_scaling", "")
    + "attn_logit_softcapping cache_implementation final_logit_softcapping hidden_activation "
    "query_pre_attn_scalar sliding_window sliding_window_size",
    "gemma3_text": "_sliding_window_pattern attn_logit_softcapping cache_implementation hidden_activation "
    "final_logit_softcapping query_pre_attn_scalar rope_local_base_freq sliding_window_pattern",
    "gpt2": GPT + "n_ctx n_special output_past predict_special_tokens vocab_size_or_config_json_file",
    "gpt_neo": GPT + "attention_layers classifier_dropout embed_dropout is_causal resid_dropout window_size",
    "gpt_neox": "attention_probs_dropout_prob classifier_dropout hidden_dropout_prob rotary_emb_base "
    "rotary_pct unk_token_id use_parallel_residual",
    "gpt_oss": "experts_per_token initial_context_length output_router_logits router_aux_loss_coef "
    "swiglu_limit",
    "gptj": GPT + "n_ctx rotary scale_attn_weights",
    "granite": LLAMA + "attention_multiplier embedding_multiplier logits_scaling residual_multiplier",
    "llama": LLAMA + "is_llama_config max_sequence_length mlp_bias rope_interleaved",
    "m2m_100": BART + "variant",
    "marian": BART + "decoder_vocab_size share_encoder_decoder_embeddings",
    "mbart": BART,
    "mistral": LLAMA.replace("attention_bias", "").replace("pretraining_tp", "")
    + "model_name sliding_window",
    "mixtral": "num_experts_per_tok num_local_experts output_router_logits router_aux_loss_coef "
    "router_jitter_noise sliding_window",
    "modernbert": "deterministic_flash_attn global_rope_theta initializer_cutoff_factor layer_norm_eps "
    "local_attention local_rope_theta position_embedding_type reference_compile repad_logits_with_grad "
    "sparse_pred_ignore_index sparse_prediction",
    "mpnet": "is_causal relative_attention_num_buckets",
    "mt5": T5,
    "olmo2": LLAMA.replace("head_dim", ""),
    "opt": "_remove_final_layer_norm activation_dropout do_layer_norm_before enable_bias init_std "
    "layer_norm_elementwise_affine layerdrop prefix word_embed_proj_dim",
    "pegasus": BART,
    "phi": "embd_pdrop partial_rotary_factor qk_layernorm resid_pdrop rope_scaling",
    "phi3": "auto_map embd_pdrop original_max_position_embeddings partial_rotary_factor resid_pdrop",
    "qwen2": "max_window_layers model_name rope_scaling sliding_window use_sliding_window",
    "qwen3": "attention_bias head_dim max_window_layers sliding_window use_sliding_window",
    "qwen3_moe": "decoder_sparse_step mlp_only_layers moe_intermediate_size norm_topk_prob num_experts "
    "num_experts_per_tok output_router_logits router_aux_loss_coef max_window_layers use_sliding_window",
    "roberta": BERT,
    "smollm3": "max_window_layers no_rope_layer_interval no_rope_layers pretraining_tp use_sliding_window",
    "t5": T5 + "n_positions",
    "umt5": T5 + "scalable_attention",
    "xlm-roberta": BERT,
}


@pytest.mark.parametrize("model_type", sorted({*REGISTRY} - {"encoder-decoder"}))
def test_keys_of_published_files_are_known(model_type: str) -> None:
    case = FIRST[model_type]
    known = {*known_keys(model_type), *second_names(model_type)}
    known |= {key for form in ("short", "full") for key in keys_read(case, file_of(case, form))}
    assert {*EVERY.split(), *REAL[model_type].split()} - known == set()


@pytest.mark.parametrize(
    ("model_type", "value"), [("gpt_neo", True), ("mpnet", False), ("deberta-v2", False)]
)
def test_the_default_of_is_causal_is_read(model_type: str, value: bool) -> None:
    def _read(value: Any) -> Any:
        config = {**file_of(FIRST[model_type], "short"), "is_causal": value}
        return read_config(*choose_architecture(config, None), config)

    assert _read(value) == _read(None)
    with pytest.raises(ValueError, match=f"is_causal={not value} must be None or {value}"):
        _read(not value)


def test_a_changed_copy_of_an_architecture_knows_the_same_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minitx.architectures.registry._REGISTERED", {})
    minitx.register(replace(bert.ARCHITECTURE, model_types={"my-bert": "MyBert"}))
    config = {
        **file_of(FIRST["bert"], "short"),
        "model_type": "my-bert",
        "pooler_type": "first_token_transform",
    }
    config["num_hidden_layers"] = 1
    assert minitx.from_config(config, head="masked-lm").config.encoder.num_hidden_layers == 1
    with pytest.raises(ValueError, match="novelty"):
        minitx.from_config({**config, "novelty": 1}, head="masked-lm")
