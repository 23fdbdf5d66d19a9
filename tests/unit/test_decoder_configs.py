"""config.json files of decoders with LayerNorm, as they stand on the Hub: read as transformers reads them."""

from __future__ import annotations

import re
from typing import Any

import pytest
import transformers

from minitx.architectures import architecture
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.known_keys import second_names, unknown_keys
from minitx.config import HeadConfig, ModelConfig, Rotary
from minitx.config.model import FULL, SLIDING

# Sizes, flags and stray keys of well-known checkpoints; the prose of them left out.
SUMMARY = {
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
}
BLOOM = {
    "apply_residual_connection_post_layernorm": False,
    "architectures": ["BloomForCausalLM"],
    "attention_dropout": 0.0,
    "attention_softmax_in_fp32": True,
    "bias_dropout_fusion": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_dropout": 0.0,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "masked_softmax_fusion": True,
    "model_type": "bloom",
    "n_embed": 1024,
    "n_inner": None,
    "n_layer": 24,
    "num_attention_heads": 16,
    "offset_alibi": 100,
    "pad_token_id": 3,
    "pretraining_tp": 2,
    "skip_bias_add": True,
    "skip_bias_add_qkv": False,
    "slow_but_exact": False,
    "unk_token_id": 0,
    "use_cache": True,
    "vocab_size": 250880,
}
OPT = {
    "_remove_final_layer_norm": False,
    "activation_dropout": 0.0,
    "activation_function": "relu",
    "architectures": ["OPTForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 2,
    "do_layer_norm_before": True,
    "dropout": 0.1,
    "eos_token_id": 2,
    "ffn_dim": 3072,
    "hidden_size": 768,
    "init_std": 0.02,
    "layerdrop": 0.0,
    "max_position_embeddings": 2048,
    "model_type": "opt",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "prefix": "</s>",
    "torch_dtype": "float16",
    "use_cache": True,
    "vocab_size": 50272,
    "word_embed_proj_dim": 768,
}
GPT_NEO = {
    **SUMMARY,
    "activation_function": "gelu_new",
    "architectures": ["GPTNeoForCausalLM"],
    "attention_dropout": 0,
    "attention_layers": ["global", "local"] * 6,
    "attention_types": [[["global", "local"], 6]],
    "bos_token_id": 50256,
    "embed_dropout": 0,
    "eos_token_id": 50256,
    "gradient_checkpointing": False,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": None,
    "layer_norm_epsilon": 1e-05,
    "max_position_embeddings": 2048,
    "model_type": "gpt_neo",
    "num_heads": 12,
    "num_layers": 12,
    "resid_dropout": 0,
    "use_cache": True,
    "vocab_size": 50257,
    "window_size": 256,
}
GPTJ = {
    **SUMMARY,
    "activation_function": "gelu_new",
    "architectures": ["GPTJForCausalLM"],
    "attn_pdrop": 0.0,
    "bos_token_id": 50256,
    "embd_pdrop": 0.0,
    "eos_token_id": 50256,
    "gradient_checkpointing": False,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gptj",
    "n_embd": 4096,
    "n_head": 16,
    "n_inner": None,
    "n_layer": 28,
    "n_positions": 2048,
    "resid_pdrop": 0.0,
    "rotary": True,
    "rotary_dim": 64,
    "scale_attn_weights": True,
    "task_specific_params": {"text-generation": {"do_sample": True}},
    "tie_word_embeddings": False,
    "tokenizer_class": "GPT2Tokenizer",
    "use_cache": True,
    "vocab_size": 50400,
}
PYTHIA = {
    "architectures": ["GPTNeoXForCausalLM"],
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "gelu",
    "hidden_size": 512,
    "initializer_range": 0.02,
    "intermediate_size": 2048,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "model_type": "gpt_neox",
    "num_attention_heads": 8,
    "num_hidden_layers": 6,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "use_cache": True,
    "use_parallel_residual": True,
    "vocab_size": 50304,
}
PHI = {
    "architectures": ["PhiForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 50256,
    "embd_pdrop": 0.0,
    "eos_token_id": 50256,
    "hidden_act": "gelu_new",
    "hidden_size": 2560,
    "initializer_range": 0.02,
    "intermediate_size": 10240,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "model_type": "phi",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "partial_rotary_factor": 0.4,
    "qk_layernorm": False,
    "resid_pdrop": 0.1,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "use_cache": True,
    "vocab_size": 51200,
}
NARROW = {"hidden_size": 1024, "ffn_dim": 4096, "num_attention_heads": 16, "num_hidden_layers": 24}
CONFIGS: dict[str, dict[str, Any]] = {
    "bloom-560m": BLOOM,
    "opt-125m": OPT,
    "opt-350m": {**OPT, **NARROW, "do_layer_norm_before": False, "word_embed_proj_dim": 512},
    "gpt-neo-125m": GPT_NEO,
    "gpt-j-6b": GPTJ,
    "pythia-70m": PYTHIA,
    "pythia-70m stretched": {
        **PYTHIA,
        "rotary_pct": 0.5,
        "rope_scaling": {"type": "linear", "factor": 4.0},
        "rotary_emb_base": 5000,
    },
    "phi-2": PHI,
    "phi-2 stretched": {**PHI, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
}


def read(config: dict[str, Any]) -> tuple[ModelConfig, dict[str, HeadConfig], list[str]]:
    found, reader = architecture(config["model_type"]), ConfigReader(config)
    reader.rename(second_names(config["model_type"]))
    numbers, heads = found.read(reader), found.heads(reader)
    return numbers, heads, unknown_keys(reader, config["model_type"])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_real_config_is_read_whole_and_means_what_it_means_in_transformers(name: str) -> None:
    config = CONFIGS[name]
    numbers, heads, unread = read(config)
    assert unread == []
    arguments = {key: value for key, value in config.items() if key != "model_type"}
    theirs = transformers.AutoConfig.for_model(config["model_type"], **arguments).to_dict()
    assert (numbers, heads, []) == read(theirs)


def test_what_they_mean() -> None:
    small, narrow = (read(CONFIGS[name])[0] for name in ("opt-125m", "opt-350m"))
    assert (small.stack.layer.norm_placement, small.inputs.projection, small.stack.output_size) == (
        "pre",
        "none",
        None,
    )
    assert (narrow.stack.layer.norm_placement, narrow.inputs.projection, narrow.stack.output_size) == (
        "post",
        "words",
        512,
    )
    assert narrow.inputs.max_position_embeddings == 2050
    assert read(BLOOM)[0].stack.layer.attention.head_dim == 64
    assert read(GPT_NEO)[0].stack.layer_types == (FULL, SLIDING) * 6
    for config, rotary_dim in ((GPTJ, 64), (PYTHIA, 16), (PHI, 32)):
        positions = read(config)[0].stack.positions
        assert isinstance(positions, Rotary)
        assert positions.ropes[FULL].rotary_dim == rotary_dim


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({**BLOOM, "slow_but_exact": True}, ["slow_but_exact"]),
        ({**BLOOM, "n_inner": 100}, ["n_inner=100"]),
        ({**OPT, "layer_norm_elementwise_affine": False}, ["layer_norm_elementwise_affine"]),
        ({**OPT, "layerdrop": 0.1}, ["layerdrop"]),
        ({**GPT_NEO, "attention_layers": ["global"] * 11}, ["attention_layers", "num_layers=12"]),
        ({**GPT_NEO, "attention_layers": ["global", "sparse"] * 6}, ["attention_layers", "'local'"]),
        ({**GPT_NEO, "attention_layers": None, "attention_types": [[["global"], 13]]}, ["num_layers=12"]),
        ({**GPTJ, "rotary_dim": 258}, ["rotary_dim=258", "256"]),
        ({**GPTJ, "rotary_dim": 63}, ["rotary_dim=63", "even"]),
        ({**PYTHIA, "rotary_pct": 0.01}, ["cannot rotate 0 features", "head_dim=64"]),
        ({**PYTHIA, "rope_parameters": {FULL: 3}}, ["rope_parameters", "must be an object"]),
        ({**PHI, "partial_rotary_factor": 1.5}, ["cannot rotate 120 features", "head_dim=80"]),
        ({**PHI, "num_key_value_heads": 5}, ["32 attention heads", "num_key_value_heads=5"]),
    ],
)
def test_what_cannot_be_is_refused(config: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ValueError, match=re.escape(parts[0])) as refused:
        read(config)
    assert all(part in str(refused.value) for part in parts)
