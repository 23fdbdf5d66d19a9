"""GGUF files for tests: tiny checkpoints written as llama.cpp's converter writes them, by its own package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file
from torch import Tensor

# Entries of config.json, tiny: head widths that no default has, more query than key/value heads
_LLAMA = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_WIDE = {**_LLAMA, "head_dim": 32}
_GEMMA = {**_WIDE, "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True}
_EXPERTS = {"num_experts_per_tok": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**_LLAMA, "rope_theta": 50_000.0, "attention_bias": True, "mlp_bias": True},
    "mistral": {**_WIDE, "sliding_window": 5},
    "mixtral": {**_LLAMA, **_EXPERTS, "num_local_experts": 4, "rope_theta": 1e6},
    "smollm3": {**_LLAMA, "num_hidden_layers": 4, "rope_theta": 2e6, "pad_token_id": 0},
    "granite": {
        **_LLAMA,
        "attention_multiplier": 0.3,
        "embedding_multiplier": 6.0,
        "residual_multiplier": 0.22,
        "logits_scaling": 4.0,
    },
    "qwen2": {**_LLAMA, "tie_word_embeddings": True},
    "qwen3": {**_WIDE, "rope_theta": 1e6},
    "qwen3_moe": {
        **_WIDE,
        **_EXPERTS,
        "num_experts": 4,
        "moe_intermediate_size": 32,
        "norm_topk_prob": True,
    },
    "olmo2": dict(_LLAMA),
    "gemma": {**_GEMMA, "hidden_act": "gelu_pytorch_tanh"},
    "gemma2": {
        **_GEMMA,
        "query_pre_attn_scalar": 32,
        "sliding_window": 5,
        "attn_logit_softcapping": 20.0,
        "final_logit_softcapping": 10.0,
    },
    "gemma3_text": {
        **_GEMMA,
        "num_hidden_layers": 7,
        "query_pre_attn_scalar": 32,
        "sliding_window": 5,
        "rope_theta": 1e6,
    },
    "phi3": {**_LLAMA, "sliding_window": 5, "pad_token_id": 0},
    "phi": {
        **{key: value for key, value in _LLAMA.items() if key != "rms_norm_eps"},
        "layer_norm_eps": 1e-5,
        "partial_rotary_factor": 0.5,
    },
    "gpt2": {
        "vocab_size": 96,
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 64,
        "layer_norm_epsilon": 1e-5,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "gpt_neox": {
        "vocab_size": 96,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "rotary_pct": 0.25,
        "rotary_emb_base": 20_000,
        "use_parallel_residual": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "bloom": {
        "vocab_size": 96,
        "hidden_size": 64,
        "n_layer": 2,
        "n_head": 4,
        "seq_length": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
}
NAMES = {
    "mistral": "llama",
    "mixtral": "llama",
    "qwen3_moe": "qwen3moe",
    "gemma3_text": "gemma3",
    "phi": "phi2",
    "gpt_neox": "gptneox",
}
PAIRED = ("llama", "mistral", "mixtral", "smollm3", "granite")  # by its LlamaModel
ARCHITECTURES = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}


def family_name(model_type: str) -> str:
    """Returns llama.cpp's name of an architecture."""
    return NAMES.get(model_type, model_type)


# --- what the converter does to tensors --------------------------------------------------------------


def _paired(tensor: Tensor, heads: int) -> Tensor:
    """Rows of Q and K: the halves of each head become neighbours."""
    return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def _parts_first(tensor: Tensor, heads: int) -> Tensor:
    """Q, K and V of each head become all of Q, all of K, all of V."""
    return tensor.reshape(heads, 3, -1, *tensor.shape[1:]).transpose(0, 1).reshape(tensor.shape)


def _converted(model_type: str, config: Mapping[str, Any], name: str, tensor: Tensor) -> Tensor:
    heads = config.get("num_attention_heads") or config.get("n_head")
    if model_type in PAIRED and ".q_proj." in name:
        return _paired(tensor, heads)
    if model_type in PAIRED and ".k_proj." in name:
        return _paired(tensor, config["num_key_value_heads"])
    if model_type in ("bloom", "gpt_neox") and "query_key_value" in name:
        return _parts_first(tensor, heads)
    if model_type == "gpt2" and tensor.dim() == 2 and ".h." in name:
        return tensor.T
    if model_type.startswith("gemma") and name.endswith("norm.weight"):
        return tensor + 1
    return tensor


def converted_tensors(model_type: str, config: Mapping[str, Any], folder: Path) -> dict[str, Tensor]:
    """Returns the tensors of a folder by llama.cpp's names and in its form."""
    layers = config.get("num_hidden_layers") or config["n_layer"]
    names = gguf.get_tensor_name_map(ARCHITECTURES[family_name(model_type)], layers)
    result: dict[str, Tensor] = {}
    experts: dict[str, dict[int, Tensor]] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if model_type == "bloom":
            name = name.removeprefix("transformer.")
        plain, _, expert = name.partition(".experts.")
        if expert:
            number, _, rest = expert.partition(".")
            experts.setdefault(f"{plain}.experts.{rest}", {})[int(number)] = tensor
            continue
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert stored is not None, name
        result[stored] = _converted(model_type, config, name, tensor)
    for name, members in experts.items():
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert stored is not None, name
        result[stored] = torch.stack([members[index] for index in sorted(members)])
    return result


# --- metadata ----------------------------------------------------------------------------------------


def _add_keys(writer: gguf.GGUFWriter, model_type: str, config: Mapping[str, Any]) -> None:
    def first(*keys: str) -> Any:
        return next((config[key] for key in keys if config.get(key) is not None), None)

    size, heads = first("hidden_size", "n_embd"), first("num_attention_heads", "n_head")
    writer.add_context_length(first("max_position_embeddings", "n_positions", "seq_length"))
    writer.add_embedding_length(size)
    writer.add_block_count(first("num_hidden_layers", "n_layer"))
    writer.add_feed_forward_length(first("intermediate_size", "n_inner") or 4 * size)
    writer.add_head_count(heads)
    for key, add in (
        ("num_key_value_heads", writer.add_head_count_kv),
        ("rms_norm_eps", writer.add_layer_norm_rms_eps),
        ("layer_norm_eps", writer.add_layer_norm_eps),
        ("layer_norm_epsilon", writer.add_layer_norm_eps),
        ("rope_theta", writer.add_rope_freq_base),
        ("rotary_emb_base", writer.add_rope_freq_base),
        ("sliding_window", writer.add_sliding_window),
        ("attn_logit_softcapping", writer.add_attn_logit_softcapping),
        ("final_logit_softcapping", writer.add_final_logit_softcapping),
        ("attention_multiplier", writer.add_attention_scale),
        ("embedding_multiplier", writer.add_embedding_scale),
        ("residual_multiplier", writer.add_residual_scale),
        ("logits_scaling", writer.add_logit_scale),
        ("moe_intermediate_size", writer.add_expert_feed_forward_length),
        ("num_experts_per_tok", writer.add_expert_used_count),
        ("use_parallel_residual", writer.add_parallel_residual),
        ("bos_token_id", writer.add_bos_token_id),
        ("eos_token_id", writer.add_eos_token_id),
        ("pad_token_id", writer.add_pad_token_id),
    ):
        if config.get(key) is not None:
            add(config[key])
    if model_type in ("bloom", "gpt_neox"):
        writer.add_layer_norm_eps(1e-5)
    if (experts := first("num_experts", "num_local_experts")) is not None:
        writer.add_expert_count(experts)
    width = config.get("head_dim") or size // heads
    if "head_dim" in config:
        writer.add_key_length(width)
        writer.add_value_length(width)
    if model_type not in ("bloom", "gpt2"):
        share = first("partial_rotary_factor", "rotary_pct") or 1
        writer.add_rope_dimension_count(int(width * share))


def write_gguf(
    path: Path,
    model_type: str,
    config: Mapping[str, Any],
    folder: Path,
    *,
    kind: Kind = Kind.F32,
    more: Callable[[gguf.GGUFWriter], None] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> dict[str, np.ndarray]:
    """Writes the checkpoint in a folder as a GGUF file.

    Args:
        path: of the new file.
        model_type: of the folder.
        config: content of its config.json.
        folder: of the checkpoint.
        kind: type of the matrices; everything else is in float32.
        more: adds further keys or tensors.
        tensors: replace those of the folder.

    Returns:
        Name in the file -> the values that it holds, in float32.
    """
    writer = gguf.GGUFWriter(path, family_name(model_type))
    _add_keys(writer, model_type, config)
    if more is not None:
        more(writer)
    held = {}
    stored = converted_tensors(model_type, config, folder) if tensors is None else tensors
    for name, tensor in stored.items():
        values = np.ascontiguousarray(tensor.float().numpy())
        own = kind if tensor.dim() > 1 and tensor.shape[-1] % 32 == 0 else Kind.F32
        raw = gguf.quants.quantize(values, own)
        writer.add_tensor(name, raw, raw_dtype=own)
        held[name] = gguf.quants.dequantize(raw, own).reshape(values.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held
