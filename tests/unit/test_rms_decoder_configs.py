"""config.json files of decoders with RMSNorm, as they stand on the Hub: read as transformers reads them."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import Any

import pytest
import transformers

from minitx.architectures import architecture
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.known_keys import second_names, unknown_keys
from minitx.config import ExpertsConfig, HeadConfig, ModelConfig, Rotary
from minitx.config.model import FULL, SLIDING
from minitx.layers.experts import Experts

# Sizes, flags and stray keys of well-known checkpoints; what only a tokenizer or a search reads is left out.
COMMON = {"initializer_range": 0.02, "torch_dtype": "bfloat16", "use_cache": True}
LLAMA_2 = {
    **COMMON,
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
LLAMA_3_2 = {
    **LLAMA_2,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "head_dim": 64,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "vocab_size": 128256,
}
STRETCHED = {
    **LLAMA_2,
    "max_position_embeddings": 131072,
    "rope_scaling": {
        "factor": 32.0,
        "finetuned": True,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
}
MISTRAL = {
    **COMMON,
    "architectures": ["MistralForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
MIXTRAL = {
    **MISTRAL,
    "architectures": ["MixtralForCausalLM"],
    "attention_dropout": 0.0,
    "model_type": "mixtral",
    "num_experts_per_tok": 2,
    "num_local_experts": 8,
    "output_router_logits": False,
    "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.02,
    "sliding_window": None,
}
QWEN2 = {
    **COMMON,
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 21,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3 = {
    **COMMON,
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3_MOE = {
    **QWEN3,
    "architectures": ["Qwen3MoeForCausalLM"],
    "decoder_sparse_step": 1,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "max_window_layers": 48,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
    "tie_word_embeddings": False,
}
GEMMA = {
    **COMMON,
    "architectures": ["GemmaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "head_dim": 256,
    "hidden_act": "gelu",
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "max_position_embeddings": 8192,
    "model_type": "gemma",
    "num_attention_heads": 8,
    "num_hidden_layers": 18,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "vocab_size": 256000,
}
GEMMA_2 = {
    **GEMMA,
    "architectures": ["Gemma2ForCausalLM"],
    "attn_logit_softcapping": 50.0,
    "cache_implementation": "hybrid",
    "final_logit_softcapping": 30.0,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "model_type": "gemma2",
    "num_hidden_layers": 26,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}
GEMMA_3 = {
    **COMMON,
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "bos_token_id": 2,
    "cache_implementation": "hybrid",
    "eos_token_id": [1, 106],
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "intermediate_size": 6912,
    "max_position_embeddings": 32768,
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_hidden_layers": 26,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "vocab_size": 262144,
}
SMOLLM3 = {
    **COMMON,
    "architectures": ["SmolLM3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": 128012,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "layer_types": [FULL] * 36,
    "max_position_embeddings": 65536,
    "max_window_layers": 28,
    "mlp_bias": False,
    "model_type": "smollm3",
    "no_rope_layer_interval": 4,
    "no_rope_layers": [1, 1, 1, 0] * 9,
    "num_attention_heads": 16,
    "num_hidden_layers": 36,
    "num_key_value_heads": 4,
    "pad_token_id": 128004,
    "pretraining_tp": 2,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 5000000.0,
    "sliding_window": None,
    "use_sliding_window": False,
    "vocab_size": 128256,
}
OLMO_2 = {
    **COMMON,
    "architectures": ["Olmo2ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "eos_token_id": 100257,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "max_position_embeddings": 4096,
    "model_type": "olmo2",
    "num_attention_heads": 16,
    "num_hidden_layers": 16,
    "num_key_value_heads": 16,
    "pad_token_id": 100277,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 500000,
    "tie_word_embeddings": False,
    "vocab_size": 100352,
}
PHI_3 = {
    **COMMON,
    "architectures": ["Phi3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"},
    "bos_token_id": 1,
    "embd_pdrop": 0.0,
    "eos_token_id": 32000,
    "hidden_act": "silu",
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "max_position_embeddings": 4096,
    "model_type": "phi3",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "original_max_position_embeddings": 4096,
    "pad_token_id": 32000,
    "resid_pdrop": 0.0,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "sliding_window": 2047,
    "tie_word_embeddings": False,
    "vocab_size": 32064,
}
SHORT, LONG = [1.0 + i / 50 for i in range(48)], [1.0 + i for i in range(48)]
PHI_3_LONG = {
    **PHI_3,
    "max_position_embeddings": 131072,
    "rope_scaling": {"long_factor": LONG, "short_factor": SHORT, "type": "longrope"},
    "sliding_window": 262144,
}
PHI_4_MINI = {
    **PHI_3_LONG,
    "bos_token_id": 199999,
    "eos_token_id": 199999,
    "full_attn_mod": 1,
    "interpolate_factor": 1,
    "lm_head_bias": False,
    "mlp_bias": False,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "pad_token_id": 199999,
    "partial_rotary_factor": 0.75,
    "tie_word_embeddings": True,
    "vocab_size": 200064,
}
GPT_OSS = {
    **COMMON,
    "architectures": ["GptOssForCausalLM"],
    "attention_bias": True,
    "attention_dropout": 0.0,
    "eos_token_id": 200002,
    "experts_per_token": 4,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2880,
    "initial_context_length": 4096,
    "intermediate_size": 2880,
    "layer_types": [SLIDING, FULL] * 12,
    "max_position_embeddings": 131072,
    "model_type": "gpt_oss",
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "output_router_logits": False,
    "pad_token_id": 199999,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "rope_type": "yarn",
        "truncate": False,
    },
    "rope_theta": 150000,
    "router_aux_loss_coef": 0.9,
    "sliding_window": 128,
    "swiglu_limit": 7.0,
    "tie_word_embeddings": False,
    "vocab_size": 201088,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama-2-7b": LLAMA_2,
    "llama-3.2-1b": LLAMA_3_2,
    "yarn-llama-2-7b-128k": STRETCHED,
    "mistral-7b": MISTRAL,
    "mixtral-8x7b": MIXTRAL,
    "qwen2.5-0.5b": QWEN2,
    "qwen2.5-0.5b with windows": {**QWEN2, "use_sliding_window": True},
    "qwen3-0.6b": QWEN3,
    "qwen3-0.6b stretched": {
        **QWEN3,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
    },
    "qwen3-30b-a3b": QWEN3_MOE,
    "gemma-2b": GEMMA,
    "gemma-2-2b": GEMMA_2,
    "gemma-3-1b": GEMMA_3,
    "gemma-3 stretched": {**GEMMA_3, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}},
    "smollm3-3b": SMOLLM3,
    "olmo-2-1b": OLMO_2,
    "phi-3-mini-4k": PHI_3,
    "phi-3-mini-128k": PHI_3_LONG,
    "phi-4-mini": PHI_4_MINI,
    "gpt-oss-20b unquantised": GPT_OSS,
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
    # transformers writes into the objects that it is given
    arguments = {key: copy.deepcopy(value) for key, value in config.items() if key != "model_type"}
    theirs = transformers.AutoConfig.for_model(config["model_type"], **arguments).to_dict()
    assert (numbers, heads) == read(theirs)[:2]


@pytest.mark.parametrize("name", ["su", "yarn"])
def test_names_that_longrope_had(name: str) -> None:
    """Of the files with these names transformers wants a key that they do not have."""
    old = {**PHI_3_LONG, "rope_scaling": {**PHI_3_LONG["rope_scaling"], "type": name}}
    assert read(old) == read(PHI_3_LONG)


def test_what_they_mean() -> None:
    stacks = {name: read(config)[0].stack for name, config in CONFIGS.items()}
    assert stacks["qwen2.5-0.5b"].sliding_window is None
    windows = stacks["qwen2.5-0.5b with windows"]
    assert (windows.layer_types, windows.sliding_window) == ((FULL,) * 21 + (SLIDING,) * 3, 32768)
    assert (windows.layer.attention.bias, windows.layer.attention.output_bias) == (True, False)
    gemma = stacks["gemma-3 stretched"]
    assert gemma.layer_types == ((SLIDING,) * 5 + (FULL,)) * 4 + (SLIDING,) * 2
    assert isinstance(gemma.positions, Rotary)
    bases = {kind: (rope.rope_theta, rope.factor) for kind, rope in gemma.positions.ropes.items()}
    assert bases == {FULL: (1e6, 8.0), SLIDING: (1e4, 1.0)}
    assert stacks["smollm3-3b"].positions.layers == (True, True, True, False) * 9
    qwen, olmo = stacks["qwen3-0.6b"].layer, stacks["olmo-2-1b"].layer
    assert (qwen.attention.head_dim, qwen.attention.qk_norm) == (128, "head")
    assert (olmo.norm_placement, olmo.attention.qk_norm) == ("branch", "width")
    for name, rotary_dim in (("phi-3-mini-128k", 96), ("phi-4-mini", 96)):
        positions = stacks[name].positions
        assert isinstance(positions, Rotary)
        rope = positions.ropes
        assert (rope[FULL].rope_type, rope[FULL].rotary_dim) == ("longrope", rotary_dim)
        assert (rope[FULL].factor, rope[FULL].original_max_position_embeddings) == (32.0, 4096)
    oss = stacks["gpt-oss-20b unquantised"]
    experts = oss.layer.feed_forward
    assert isinstance(experts, ExpertsConfig)
    assert isinstance(oss.positions, Rotary)
    assert (experts.num_experts, experts.num_experts_per_tok) == (32, 4)
    assert (experts.swiglu_limit, experts.swiglu_alpha) == (7.0, 1.702)
    rope = oss.positions.ropes[FULL]
    assert (rope.rope_type, rope.truncate, oss.layer.attention.sinks) == ("yarn", False, True)


WITHOUT_MLP_BIAS = [config for config in CONFIGS.values() if config["model_type"] not in ("llama", "smollm3")]


@pytest.mark.parametrize("key", ["head_dim", "num_key_value_heads"])
def test_null_is_no_zero(key: str) -> None:
    absent = {name: value for name, value in LLAMA_3_2.items() if name != key}
    assert read({**LLAMA_3_2, key: None}) == read(absent)


@pytest.mark.parametrize(
    ("config", "key"),
    [(config, "attention_bias") for config in (LLAMA_2, GEMMA, GEMMA_2, GEMMA_3, QWEN3, OLMO_2, SMOLLM3)]
    + [(config, "mlp_bias") for config in (LLAMA_2, SMOLLM3)],
)
def test_biases_that_transformers_has_too(config: dict[str, Any], key: str) -> None:
    for flag in (True, False):
        layer = read({**config, key: flag})[0].stack.layer
        part = layer.attention if key == "attention_bias" else layer.feed_forward
        assert part.bias is flag


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({**QWEN2, "layer_types": [SLIDING] * 24}, ["layer_types", "sliding_window", "use_sliding_window"]),
        ({**QWEN2, "layer_types": [FULL] * 23}, ["layer_types", "24 layers"]),
        ({**QWEN2, "use_mrope": True}, ["use_mrope=True"]),
        ({**SMOLLM3, "layer_types": [SLIDING] * 36}, ["layer_types", "sliding_window"]),
        ({**SMOLLM3, "no_rope_layers": [1, 0]}, ["no_rope_layers", "36 layers"]),
        ({**SMOLLM3, "no_rope_layers": [2] * 36}, ["no_rope_layers", "0 or 1"]),
        ({**QWEN3_MOE, "mlp_only_layers": ["0"]}, ["mlp_only_layers", "numbers of layers"]),
        ({**QWEN3_MOE, "num_experts_per_tok": 129}, ["num_experts_per_tok=129", "num_experts=128"]),
        ({**PHI_4_MINI, "lm_head_bias": True}, ["lm_head_bias=True"]),
        ({**PHI_4_MINI, "partial_rotary_factor": 1.0}, ["short_factor", "64 positive numbers"]),
        ({**LLAMA_2, "num_key_value_heads": 5}, ["num_key_value_heads=5", "32"]),
        ({**GPT_OSS, "hidden_act": "gelu"}, ["hidden_act='gelu'", "'silu'"]),
        # biases that transformers has no place for
        ({**MISTRAL, "attention_bias": True}, ["attention_bias=True"]),
        ({**MIXTRAL, "attention_bias": True}, ["attention_bias=True"]),
        ({**PHI_3, "attention_bias": True}, ["attention_bias=True"]),
        *(({**config, "mlp_bias": True}, ["mlp_bias=True"]) for config in WITHOUT_MLP_BIAS),
        # zeros that would be divided by, or stand for a size
        ({**GEMMA_2, "query_pre_attn_scalar": 0}, ["config.json: query_pre_attn_scalar=0", "positive"]),
        ({**GEMMA_3, "query_pre_attn_scalar": 0}, ["config.json: query_pre_attn_scalar=0", "positive"]),
        ({**GEMMA_2, "attn_logit_softcapping": 0}, ["config.json: attn_logit_softcapping=0", "positive"]),
        ({**GEMMA_2, "final_logit_softcapping": 0}, ["config.json: final_logit_softcapping=0", "positive"]),
        ({**GEMMA_3, "final_logit_softcapping": 0}, ["config.json: final_logit_softcapping=0", "positive"]),
        ({**GEMMA_3, "rope_theta": 0}, ["config.json: rope_theta=0", "positive"]),
        ({**GEMMA_3, "rope_local_base_freq": 0}, ["config.json: rope_local_base_freq=0", "positive"]),
        ({**LLAMA_2, "rope_theta": 0}, ["config.json: rope_theta=0", "positive"]),
        ({**GPT_OSS, "swiglu_limit": 0}, ["config.json: swiglu_limit=0", "positive"]),
        ({**LLAMA_3_2, "head_dim": 0}, ["config.json: head_dim=0", "from 1"]),
        ({**LLAMA_2, "num_key_value_heads": 0}, ["config.json: num_key_value_heads=0", "from 1"]),
    ],
)
def test_what_cannot_be_is_refused(config: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ValueError, match=re.escape(parts[0])) as refused:
        read(config)
    assert all(part in str(refused.value) for part in parts)


NEEDED = {
    "linear": {"factor": 2.0},
    "dynamic": {"factor": 2.0},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "yarn": {"factor": 4.0},
    "longrope": {"short_factor": [1.0] * 64, "long_factor": [2.0] * 64},
}


def stretched(kind: str, **more: Any) -> dict[str, Any]:
    return {**LLAMA_2, "rope_scaling": {"rope_type": kind, **NEEDED[kind], **more}}


@pytest.mark.parametrize(
    ("kind", "key"), [(kind, key) for kind in NEEDED for key in NEEDED[kind] if kind != "yarn"]
)
def test_every_number_that_a_kind_needs_is_asked_for(kind: str, key: str) -> None:
    read(stretched(kind))
    with pytest.raises(ValueError, match=rf"({key}=None must be present|{key} must list)"):
        read(stretched(kind, **{key: None}))


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        (stretched("linear", factor=0), ["factor=0", "must be positive"]),
        (stretched("yarn", factor=-1), ["factor=-1"]),
        (stretched("yarn", attention_factor=0), ["attention_factor=0", "must be positive"]),
        (stretched("yarn", beta_fast=0), ["beta_fast=0", "must be positive"]),
        (stretched("yarn", beta_slow=40.0), ["beta_slow=40.0", "beta_fast=32.0"]),
        (stretched("yarn", rope_theta=1), ["rope_theta=1", "rotate equally"]),
        (stretched("yarn", truncate=0), ["truncate=0", "true or false"]),
        (stretched("yarn", original_max_position_embeddings=1), ["original_max_position_embeddings=1"]),
        (stretched("yarn", partial_rotary_factor=0.4), ["partial_rotary_factor=0.4"]),
        (stretched("yarn", mrope_section=[1]), ["mrope_section", "'yarn'"]),
        (stretched("llama3", low_freq_factor=0), ["low_freq_factor=0", "must be positive"]),
        (stretched("llama3", low_freq_factor=4), ["low_freq_factor=4", "high_freq_factor=4"]),
        (stretched("longrope", short_factor=[1.0] * 63), ["short_factor", "64 positive numbers"]),
        (stretched("longrope", long_factor=[0.0] * 64), ["long_factor", "64 positive numbers"]),
        (stretched("longrope", long_factor=["1"] * 64), ["long_factor", "64 positive numbers"]),
        (stretched("dynamic", partial_rotary_factor=0.02), ["partial_rotary_factor=0.02"]),
        ({**LLAMA_2, "rope_parameters": {"global": {}}}, ["has global", FULL, SLIDING]),
        ({**LLAMA_2, "rope_scaling": 3}, ["rope_parameters=3", "must be an object"]),
        # transformers passes over what is not of a type of layer
        (
            {**GEMMA_3, "rope_parameters": {"rope_type": "linear", "factor": 8.0}},
            ["rope_parameters has factor, rope_type", "an object for each type of layer", FULL, SLIDING],
        ),
        ({**GEMMA_3, "rope_parameters": {FULL: {}, "global": {}}}, ["has global", FULL, SLIDING]),
        ({**GEMMA_3, "rope_parameters": {FULL: 3}}, [f"rope_parameters['{FULL}']=3", "must be an object"]),
        ({**GEMMA_3, "rope_parameters": 3}, ["rope_parameters=3", "must be an object"]),
        ({**GEMMA_3, "rope_parameters": {SLIDING: {"rope_theta": 0}}}, ["rope_theta=0", "positive"]),
    ],
)
def test_rotary_values_that_cannot_be_are_refused(config: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ValueError, match=re.escape(parts[0])) as refused:
        read(config)
    assert all(part in str(refused.value) for part in parts)


def test_a_clamped_swiglu_has_no_other_activation() -> None:
    for config, has in ((GPT_OSS, False), (MIXTRAL, True)):
        experts = read(config)[0].stack.layer.feed_forward
        assert isinstance(experts, ExpertsConfig)
        small = replace(experts, num_experts=1, num_experts_per_tok=1, intermediate_size=8)
        parts = dict(Experts(small, 8).named_children())
        assert ("activation" in parts) is has
